"""Networks that segment: "unet", a compact one for small images, and torchvision's DeepLabV3-ResNet50 for large ones."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.norms import GroupNorm
from pipeline.schema.evaluation import SegmenterConfig

CHANNEL_CAP = 4  # widest level of the U-Net in units of its first: keeps the features few enough for small sets


class UNet(nn.Module):
    """Encoder and decoder with group normalisation: (N,3,H,W) in [-1,1] -> logits (N,K,H,W); any size.

    One convolution at the image's size, two at each coarser level, the innermost of which also sees its mean over positions; on the
    way back one a level, of the sum of what comes up and what was there. Twice as fast as two convolutions of stacked features
    everywhere, whose finest level takes most of the time.
    """

    def __init__(self, num_classes: int, width: int, depth: int) -> None:
        super().__init__()
        channels = [min(2**level, CHANNEL_CAP) * width for level in range(depth + 1)]
        upwards = list(zip(channels[:0:-1], channels[-2::-1], strict=True))
        self.stem = _convolved(3, channels[0])
        self.down = nn.ModuleList(nn.Sequential(_convolved(a, b), _convolved(b, b)) for a, b in pairwise(channels))
        self.context = nn.Conv2d(channels[-1], channels[-1], 1)
        self.lateral = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in upwards)
        self.up = nn.ModuleList(_convolved(b, b) for _, b in upwards)
        self.head = nn.Conv2d(channels[0], num_classes, 1)
        self.feature_width = channels[-1]

    def inner(self, x: Tensor) -> list[Tensor]:
        """Features of every level, finest first."""
        found = [self.stem(x)]
        for block in self.down:
            found.append(block(F.max_pool2d(found[-1], 2, ceil_mode=True)))
        found[-1] = F.relu(found[-1] + self.context(found[-1].mean(dim=(2, 3), keepdim=True)))
        return found

    def forward(self, x: Tensor) -> Tensor:
        """Logits at the image's size."""
        levels = self.inner(x)
        x = levels.pop()
        for lateral, block in zip(self.lateral, self.up, strict=True):
            skip = levels.pop()
            x = block(F.interpolate(lateral(x), size=skip.shape[-2:], mode="nearest") + skip)
        return self.head(x)


def _convolved(inputs: int, outputs: int) -> nn.Sequential:
    groups = next(g for g in (8, 4, 2, 1) if outputs % g == 0)
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), GroupNorm(groups, outputs), nn.ReLU())


def build_network(cfg: SegmenterConfig, num_classes: int) -> nn.Module:
    """The untrained network a config names."""
    if cfg.architecture == "unet":
        return UNet(num_classes, cfg.width, cfg.depth)
    from torchvision.models.segmentation import deeplabv3_resnet50

    network: nn.Module = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=num_classes)
    return network


def feature_width(network: nn.Module) -> int:
    """Width of `pooled_features`."""
    return network.feature_width if isinstance(network, UNet) else 2048


def pooled_features(network: nn.Module, image: Tensor) -> Tensor:
    """(N, feature_width) innermost features averaged over positions, of either architecture."""
    if isinstance(network, UNet):
        inner = network.inner(image)[-1]
    else:
        backbone: Callable[[Tensor], dict[str, Tensor]] = network.get_submodule("backbone")
        inner = backbone(image)["out"]
    return inner.mean(dim=(2, 3))


def class_logits(network: nn.Module, image: Tensor) -> Tensor:
    """(N,K,H,W) of own, torchvision's and external networks."""
    found = network(image)
    return found["out"] if isinstance(found, dict) else found
