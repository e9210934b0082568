"""The perceptual loss: L1 distance of VGG-19 features (pix2pixHD's, as SPADE, SEAN and (CA)²-SIS use it)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.schema.losses import PerceptualLoss
from pipeline.weights import load_tensors

# Ends of the torchvision VGG-19 slices whose outputs are relu1_1, relu2_1, relu3_1, relu4_1, relu5_1.
_SLICE_ENDS = (2, 7, 12, 21, 30)
_IMAGENET_MEAN = (0.485, 0.456, 0.406)  # source: torchvision, of RGB in [0, 1]
_IMAGENET_STD = (0.229, 0.224, 0.225)


def vgg19_features(folder: str | None) -> nn.Sequential:
    """VGG-19's convolutions with the published ImageNet weights, verified; `folder` is searched before torch's cache.

    Raises WeightsMissing when the file is absent or refused.
    """
    state, _ = load_tensors("vgg19", folder)
    from torchvision.models import vgg19

    with torch.device("meta"):  # nothing is drawn: every weight is loaded
        features = vgg19(weights=None).features
    features = features.to_empty(device="cpu")
    features.load_state_dict({key[9:]: value for key, value in state.items() if key.startswith("features.")})
    return features


class VggPerceptualLoss(nn.Module):
    """Sum over five layers of weight x mean absolute feature difference; frozen, no gradient into the real image."""

    mean: Tensor
    std: Tensor

    def __init__(self, features: nn.Sequential, cfg: PerceptualLoss) -> None:
        super().__init__()
        starts = (0, *_SLICE_ENDS[:-1])
        self.slices = nn.ModuleList(features[start:end] for start, end in zip(starts, _SLICE_ENDS, strict=True))
        self.layer_weights = cfg.layer_weights
        self.normalise = cfg.normalise
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    def forward(self, fake: Tensor, real: Tensor) -> Tensor:
        """Images (N,3,H,W) float32 [-1,1] -> scalar. Sides below 16 are refused by VGG's four poolings."""
        fake_x, real_x = self._enter(fake), self._enter(real.detach())
        terms: list[Tensor] = []
        for weight, part in zip(self.layer_weights, self.slices, strict=True):
            fake_x = part(fake_x)
            with torch.no_grad():
                real_x = part(real_x)
            terms.append(weight * F.l1_loss(fake_x, real_x))
        return torch.stack(terms).sum()

    def _enter(self, image: Tensor) -> Tensor:
        # In-place ReLUs must not reach the caller's image; the first layer is a conv, so they do not.
        return ((image + 1) / 2 - self.mean) / self.std if self.normalise else image
