"""What makes a drawn picture the photo: the terms that inversion and pivotal tuning have in common."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.metrics.perceptual import Lpips, too_small
from pipeline.models.contract import Synthesis
from pipeline.schema.evaluation import InversionConfig
from pipeline.training.losses import multiscale_pixel_loss
from pipeline.weights import WeightsMissing

PERCEPTUAL_SIDE = 256  # pixels that larger pictures are pooled to before LPIPS (release)
Distance = Callable[[Tensor, Tensor], Tensor]  # images (N,3,H,W), photos (N,3,H,W) -> (N,)


def picture_loss(image: Tensor, photo: Tensor, cfg: InversionConfig, perceptual: Distance) -> Tensor:
    """Perceptual term and mean square of pictures (N,3,H,W) against photos, weighed: (N,)."""
    loss = cfg.perceptual * perceptual(image, photo)
    return loss + cfg.mse * (image - photo).square().flatten(1).mean(dim=1)


def layout_loss(made: Synthesis, labels: Tensor, cfg: InversionConfig) -> Tensor:
    """The mask term of a batch with the layouts `labels` (N,H,W) in the family's own classes, weighed: (N,)."""
    assert made.layout is not None, "composing families draw a layout"
    wrong = F.cross_entropy(made.layout, labels, reduction="none")
    return cfg.mask * wrong.flatten(1).mean(dim=1)


def perceptual_term(cfg: InversionConfig, folder: str | None, device: torch.device) -> tuple[Distance, str]:
    """The perceptual term and its name: LPIPS on VGG-16, or the multi-scale pixel loss where its weights are not here."""

    def pixel(image: Tensor, photo: Tensor) -> Tensor:
        pairs = zip(image.split(1), photo.split(1), strict=True)
        return torch.stack([multiscale_pixel_loss(one, other, cfg.pixel_scales) for one, other in pairs])

    if cfg.perceptual == 0:
        return lambda image, photo: image.new_zeros(image.shape[0]), "no perceptual term"
    try:
        network = Lpips("vgg", folder, device).network
    except WeightsMissing:
        return pixel, f"L1 at {cfg.pixel_scales} scales in place of LPIPS (no VGG weights)"

    def lpips(image: Tensor, photo: Tensor) -> Tensor:
        window = max(1, min(image.shape[-2:]) // PERCEPTUAL_SIDE)
        small = too_small(image.shape[-2] // window, image.shape[-1] // window)
        if small:
            return pixel(image, photo)
        distance: Tensor = network(F.avg_pool2d(image, window), F.avg_pool2d(photo, window))
        return distance.flatten()

    return lpips, "LPIPS (VGG)"
