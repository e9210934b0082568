"""LPIPS and DISTS: perceptual distances of image pairs, on weights that are verified before a number is made.

LPIPS (Zhang et al. 2018) is the package `lpips`, version 0.1; DISTS (Ding et al. 2020) is written out here on torchvision's
VGG-16. Both take `ImageBatch`, so the range can not be wrong (LPIPS on [0, 1] images is a recurring published error).
"""

from __future__ import annotations

import warnings
from typing import Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.metrics.images import ImageBatch, check_pair
from pipeline.weights import WeightsMissing, load_tensors

SMALLEST_SIDE = 32  # pixels; below, the poolings of the backbones leave nothing
# Ends of the five stages within torchvision's vgg16.features; each later stage starts with a pooling.
DISTS_STAGE_ENDS = (4, 9, 16, 23, 30)
DISTS_C = 1e-6  # source: Ding et al. 2020
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # source: torchvision, RGB in [0, 1]


def too_small(height: int, width: int) -> str:
    """Why images of this size have no perceptual distance, "" where they have one."""
    return f"images are smaller than {SMALLEST_SIDE} pixels" if min(height, width) < SMALLEST_SIDE else ""


class PerceptualDistance(Protocol):
    """A perceptual distance ready to measure."""

    weights_digest: str  # of every file it uses

    def distance(self, a: ImageBatch, b: ImageBatch) -> Tensor:
        """(N,) float64, lower is more alike."""
        ...


class Lpips:
    """LPIPS 0.1 with backbone "alex" or "vgg"."""

    def __init__(self, net: Literal["alex", "vgg"], folder: str | None, device: torch.device) -> None:
        """Load and self-test. Raises WeightsMissing when a file is absent or refused, or the self-test fails."""
        backbone, backbone_digest = load_tensors("alexnet" if net == "alex" else "vgg16", folder)
        linear, linear_digest = load_tensors(f"lpips_{net}", folder)
        import lpips

        with warnings.catch_warnings():  # the package calls torchvision in a way that is deprecated, and works
            warnings.simplefilter("ignore", UserWarning)
            # On the meta device, seconds of drawing random weights (those of a classifier nobody uses first of all) are saved.
            with torch.device("meta"):
                network = lpips.LPIPS(pretrained=False, pnet_rand=True, net=net, version="0.1", verbose=False)
        network = network.to_empty(device="cpu")
        network.scaling_layer = lpips.ScalingLayer()  # its constants are buffers
        with torch.no_grad():
            # The slices keep torchvision's layer numbers: slice2.3.weight is features.3.weight.
            for name, parameter in network.net.named_parameters():
                _, layer, kind = name.split(".")
                parameter.copy_(backbone[f"features.{layer}.{kind}"])
            for i in range(network.L):
                weight = linear[f"lin{i}.model.1.weight"]
                if bool((weight < 0).any()):
                    raise WeightsMissing(f"LPIPS {net}: linear weights must not be negative; the file is refused")
                getattr(network, f"lin{i}").model[-1].weight.copy_(weight)
        self.network = network.to(device).eval().requires_grad_(False)
        self.weights_digest = f"{backbone_digest}+{linear_digest}"
        self_test(self, f"LPIPS {net}", device)

    def distance(self, a: ImageBatch, b: ImageBatch) -> Tensor:
        """Per-pair LPIPS, (N,) float64."""
        check_pair(a, b)
        with torch.no_grad():
            return self.network(a.signed(), b.signed()).flatten().double()


class Dists(nn.Module):
    """DISTS with its published channel weights."""

    mean: Tensor
    std: Tensor
    window: Tensor
    alpha: Tensor
    beta: Tensor

    def __init__(self, folder: str | None, device: torch.device) -> None:
        """Load and self-test; raises WeightsMissing like `Lpips`."""
        super().__init__()
        backbone, backbone_digest = load_tensors("vgg16", folder)
        channel_weights, channel_digest = load_tensors("dists", folder)
        from torchvision.models import vgg16

        with torch.device("meta"):  # nothing is drawn: every weight is loaded
            layers = vgg16(weights=None).features
        layers = layers.to_empty(device="cpu")
        layers.load_state_dict({key[9:]: value for key, value in backbone.items() if key.startswith("features.")})
        starts = (0, *(end + 1 for end in DISTS_STAGE_ENDS[:-1]))  # the max pooling between stages is left out
        self.stages = nn.ModuleList(layers[start:end] for start, end in zip(starts, DISTS_STAGE_ENDS, strict=True))
        hann = torch.from_numpy(np.hanning(5)[1:-1]).float()
        self.register_buffer("window", torch.outer(hann, hann) / torch.outer(hann, hann).sum())
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))
        total = channel_weights["alpha"].sum() + channel_weights["beta"].sum()
        self.register_buffer("alpha", (channel_weights["alpha"] / total).flatten())
        self.register_buffer("beta", (channel_weights["beta"] / total).flatten())
        self.weights_digest = f"{backbone_digest}+{channel_digest}"
        self.to(device).eval().requires_grad_(False)
        self_test(self, "DISTS", device)

    def distance(self, a: ImageBatch, b: ImageBatch) -> Tensor:
        """Per-pair DISTS at the images' own size, (N,) float64: 1 - sum of weighted texture and structure similarity."""
        check_pair(a, b)
        with torch.no_grad():
            similarity = torch.zeros(len(a), dtype=torch.float64, device=a.tensor.device)
            offset = 0
            for x, y in zip(self._features(a.unit()), self._features(b.unit()), strict=True):
                x, y = x.double(), y.double()
                channels = slice(offset, offset := offset + x.shape[1])
                mean_x, mean_y = x.mean((2, 3)), y.mean((2, 3))
                var_x, var_y = x.var((2, 3), correction=0), y.var((2, 3), correction=0)
                covariance = (x * y).mean((2, 3)) - mean_x * mean_y
                texture = (2 * mean_x * mean_y + DISTS_C) / (mean_x**2 + mean_y**2 + DISTS_C)
                structure = (2 * covariance + DISTS_C) / (var_x + var_y + DISTS_C)
                similarity += (self.alpha[channels] * texture + self.beta[channels] * structure).sum(dim=1)
            return 1.0 - similarity

    def _features(self, image: Tensor) -> list[Tensor]:
        """The image (N,3,H,W) in [0, 1] itself and the outputs of the five stages."""
        found = [image]
        x = (image - self.mean) / self.std
        for number, stage in enumerate(self.stages):
            x = stage(self._l2_pool(x) if number else x)
            found.append(x)
        return found

    def _l2_pool(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        pooled = F.conv2d(x * x, self.window.expand(channels, 1, 3, 3), stride=2, padding=1, groups=channels)
        return (pooled + 1e-12).sqrt()


def self_test(metric: PerceptualDistance, name: str, device: torch.device) -> None:
    """Guard against unloaded or broken weights on a fixed pair: zero on itself, positive and growing with noise, repeatable.

    That the weights are the published ones is what the digest says. Raises WeightsMissing when the test fails.
    """
    ramp = torch.linspace(0, 1, 64)
    base = torch.stack([ramp.expand(64, 64), ramp.expand(64, 64).T, (ramp * 12).sin().expand(64, 64) / 2 + 0.5])
    noise = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)) - 0.5
    levels = torch.stack([base, (base + 0.2 * noise).clamp(0, 1), (base + 0.8 * noise).clamp(0, 1)]).to(device)
    reference = ImageBatch(base.expand(3, 3, 64, 64).contiguous().to(device), "unit")
    first = metric.distance(reference, ImageBatch(levels, "unit")).cpu()
    second = metric.distance(reference, ImageBatch(levels, "unit")).cpu()
    same, mild, strong = first.tolist()
    if not (abs(same) < 1e-5 and mild > 1e-5 and strong > mild and torch.equal(first, second)):
        raise WeightsMissing(
            f"{name} fails its self-test (same image {same:.2g}, mild noise {mild:.2g}, strong noise {strong:.2g}): "
            "weights are not usable"
        )
