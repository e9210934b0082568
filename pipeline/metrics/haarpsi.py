"""HaarPSI (Reisenhofer et al. 2018): perceptual similarity of image pairs without weights, one value an image.

Written out here in float64 closed form, like SSIM: importing piq, the library the tests pin equality with, alone costs a second
at every start. Sums over windows are made by doubling, which is exact, takes no convolution and is the same on every device.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.metrics.images import ImageBatch, check_pair

SCALES = 3  # the finer ones are compared, the coarsest weighs; source: Reisenhofer et al. 2018, section 2
C, ALPHA = 30.0, 4.2  # on images in [0, 255]; source: Reisenhofer et al. 2018, section 3.1
SMALLEST_SIDE = 2 ** (SCALES + 1)  # pixels; below, the coarsest filter does not fit into the halved image
YIQ = (  # source: NTSC, as Reisenhofer et al. 2018, section 2.2 takes it; columns R, G, B
    (0.299, 0.587, 0.114),
    (0.5959, -0.2746, -0.3213),
    (0.2115, -0.5227, 0.3112),
)


def why_not(height: int, width: int) -> str:
    """Why images of this size have no HaarPSI, "" where they have one."""
    return f"images are smaller than {SMALLEST_SIDE} pixels" if min(height, width) < SMALLEST_SIDE else ""


def haarpsi(output: ImageBatch, target: ImageBatch) -> Tensor:
    """Haar wavelet-based perceptual similarity index of colour images, with the published constants and halving.

    Returns (N,) float64 in [0, 1]; higher is better, 1 for equal images. Raises ValueError for images under 16 pixels.
    """
    check_pair(output, target)
    reason = why_not(*output.tensor.shape[-2:])
    if reason:
        raise ValueError(reason)
    x, y = _yiq_halved(output), _yiq_halved(target)
    similarity, weight = [], []  # of edges along rows, of edges along columns, then of colour; (N,H/2,W/2) each
    for turn in (False, True):
        a, b = (_edges(image[:, 0].mT if turn else image[:, 0]) for image in (x, y))
        alike = torch.stack([_similarity(a[k], b[k]) for k in range(SCALES - 1)]).mean(dim=0)
        heavy = torch.maximum(a[-1], b[-1])
        similarity.append(alike.mT if turn else alike)
        weight.append(heavy.mT if turn else heavy)
    similarity.append(_similarity(_colour(x), _colour(y)).mean(dim=1))
    weight.append((weight[0] + weight[1]) / 2)
    heaviness = torch.stack(weight, dim=1)
    total = heaviness.sum(dim=(1, 2, 3))
    raised = (torch.sigmoid(ALPHA * torch.stack(similarity, dim=1)) * heaviness).sum(dim=(1, 2, 3)) / total
    # Nothing weighs where both images are black throughout: they are equal.
    return torch.where(total > 0, (torch.logit(raised) / ALPHA).square(), 1.0)


def _yiq_halved(images: ImageBatch) -> Tensor:
    """(N,3,H,W) -> (N,3,ceil(H/2),ceil(W/2)) float64 YIQ of range 255, the mean over 2 x 2 pixels; beyond odd sides lies black."""
    rgb = images.unit().double() * 255.0
    matrix = torch.tensor(YIQ, dtype=rgb.dtype, device=rgb.device)
    yiq = torch.einsum("ij,njhw->nihw", matrix, rgb)
    height, width = yiq.shape[-2:]
    return F.avg_pool2d(F.pad(yiq, (0, width % 2, 0, height % 2)), 2)


def _edges(luma: Tensor) -> list[Tensor]:
    """(N,H,W) -> magnitudes of the Haar coefficients across rows, finest scale first, (N,H,W) each; black lies outside."""
    found = []
    for scale in range(1, SCALES + 1):
        side = 2**scale
        before, after = side // 2 - 1, side // 2
        sums = _windows(F.pad(luma, (before, after, before, after)), side // 2, side)
        found.append((sums[:, : -side // 2] - sums[:, side // 2 :]).abs() / side)
    return found


def _windows(x: Tensor, rows: int, columns: int) -> Tensor:
    """Sums over windows of powers of two inside the image: (...,H,W) -> (...,H-rows+1,W-columns+1)."""
    step = 1
    while step < columns:
        x = x[..., :-step] + x[..., step:]
        step *= 2
    step = 1
    while step < rows:
        x = x[..., :-step, :] + x[..., step:, :]
        step *= 2
    return x


def _colour(yiq: Tensor) -> Tensor:
    """(N,3,H,W) -> (N,2,H,W): magnitudes of I and Q, mean over 2 x 2; black lies outside."""
    return (_windows(F.pad(yiq[:, 1:], (0, 1, 0, 1)), 2, 2) / 4).abs()


def _similarity(a: Tensor, b: Tensor) -> Tensor:
    return (2 * a * b + C) / (a.square() + b.square() + C)
