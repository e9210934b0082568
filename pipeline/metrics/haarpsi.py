"""HaarPSI (Reisenhofer et al. 2018): perceptual similarity of image pairs without weights, one value an image; by piq."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.metrics.images import ImageBatch, check_pair

SMALLEST_SIDE = 16  # pixels; below, the coarsest of three filters does not fit into the halved image


def why_not(height: int, width: int) -> str:
    """Why images of this size have no HaarPSI, "" where they have one."""
    return f"images are smaller than {SMALLEST_SIDE} pixels" if min(height, width) < SMALLEST_SIDE else ""


def haarpsi(output: ImageBatch, target: ImageBatch) -> Tensor:
    """Haar wavelet-based perceptual similarity index of colour images, with the published constants and halving.

    Returns (N,) float64 in [0, 1]; higher is better, 1 for equal images. Computed in float64, so that a value does not
    depend on its batch. Raises ValueError for images under 16 pixels.
    """
    import piq  # takes a second: it brings networks with it

    check_pair(output, target)
    reason = why_not(*output.tensor.shape[-2:])
    if reason:
        raise ValueError(reason)
    # A signed range comes back with a rounding error beyond [0, 1], which piq refuses.
    x, y = (batch.unit().double().clamp(0, 1) for batch in (output, target))
    values: Tensor = piq.haarpsi(x, y, reduction="none")
    # Of images that are black throughout nothing weighs, and piq divides by it: they are equal.
    black = (x.amax(dim=(1, 2, 3)) == 0) & (y.amax(dim=(1, 2, 3)) == 0)
    return torch.where(black, 1.0, values)
