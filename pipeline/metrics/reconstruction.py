"""RMSE, PSNR and SSIM of image pairs, one value an image (paper section: quantitative comparison).

Computed here in float64 closed form: importing torchmetrics' image package alone costs seconds at every start. The tests pin
equality with torchmetrics and scikit-image.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.metrics.images import ImageBatch, check_pair

SSIM_SIGMA = 1.5  # pixels; source: Wang et al. 2004
SSIM_WINDOW = 11  # taps; source: Wang et al. 2004
SSIM_K1, SSIM_K2 = 0.01, 0.03  # source: Wang et al. 2004
SMALL = 128  # pixels a side up to which a dense product is faster than torch's float64 convolution
PSNR_CEILING_DB = 100.0  # identical images have no finite PSNR; 100 dB is an RMSE of 1e-5


def rmse(output: ImageBatch, target: ImageBatch) -> Tensor:
    """Root mean squared error over pixels and channels, in units of the [0, 1] range.

    Returns (N,) float64 in [0, 1]; lower is better. Raises TypeError or ValueError as `check_pair` does.
    """
    check_pair(output, target)
    difference = output.unit().double() - target.unit().double()  # (N,3,H,W) in [-1, 1]
    return difference.square().mean(dim=(1, 2, 3)).sqrt()


def psnr(output: ImageBatch, target: ImageBatch) -> Tensor:
    """Peak signal-to-noise ratio 20 log10(1 / RMSE) with data range 1, in dB.

    Returns (N,) float64, at most `PSNR_CEILING_DB`; higher is better.
    """
    error = rmse(output, target)
    return (-20.0 * torch.log10(error.clamp_min(1e-30))).clamp_max(PSNR_CEILING_DB)


def has_ssim(images: ImageBatch) -> bool:
    """Whether the window of SSIM fits into the images."""
    return min(images.tensor.shape[-2:]) >= SSIM_WINDOW


def ssim(output: ImageBatch, target: ImageBatch, *, data_range: float = 1.0) -> Tensor:
    """Structural similarity of Wang et al. 2004: Gaussian 11 x 11, sigma 1.5, population covariance.

    Mean over channels and the pixels whose window lies inside the image.

    `data_range` scales the two constants; images have range 1, so 1 is right and 2 is the inflated variant that some
    published numbers use. Returns (N,) float64 in [-1, 1]; higher is better. Raises ValueError for images under 11 pixels.
    """
    check_pair(output, target)
    if not has_ssim(output):
        raise ValueError(f"SSIM needs images of at least {SSIM_WINDOW} pixels, got {tuple(output.tensor.shape[-2:])}")
    x, y = output.unit().double(), target.unit().double()
    c1, c2 = (SSIM_K1 * data_range) ** 2, (SSIM_K2 * data_range) ** 2
    # The five local means share one pass: (5N,3,H,W)
    moments = _gaussian(torch.cat([x, y, x * x, y * y, x * y]))
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = moments.chunk(5)
    variance_x, variance_y = mean_xx - mean_x**2, mean_yy - mean_y**2
    covariance = mean_xy - mean_x * mean_y
    similarity = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    )
    return similarity.mean(dim=(1, 2, 3))


def _band(taps: Tensor, side: int) -> Tensor:
    """(side-10,side): the window as a matrix."""
    return torch.stack([F.pad(taps, (i, side - len(taps) - i)) for i in range(side - len(taps) + 1)])


def _gaussian(images: Tensor) -> Tensor:
    """Separable Gaussian window without padding: (N,C,H,W) -> (N,C,H-10,W-10)."""
    position = torch.arange(SSIM_WINDOW, dtype=images.dtype, device=images.device) - SSIM_WINDOW // 2
    taps = torch.exp(-(position**2) / (2 * SSIM_SIGMA**2))
    taps = taps / taps.sum()
    count, channels, height, width = images.shape
    if max(height, width) <= SMALL:
        return _band(taps, height) @ images @ _band(taps, width).t()
    flat = images.reshape(count * channels, 1, height, width)
    flat = F.conv2d(flat, taps.view(1, 1, -1, 1))
    flat = F.conv2d(flat, taps.view(1, 1, 1, -1))
    return flat.view(count, channels, *flat.shape[-2:])
