"""Image batches that declare their value range, so that no metric is ever fed the wrong one.

Metrics take `ImageBatch` only. A batch whose values do not fit the declared range cannot be constructed; conversions are
methods, never guesses (published errors of this kind: LPIPS on [0, 1], SSIM with a default data range).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.data.batch import eight_bit

ValueRange = Literal["signed", "unit"]
BOUNDS: dict[str, tuple[float, float]] = {"signed": (-1.0, 1.0), "unit": (0.0, 1.0)}
TOLERANCE = 1e-3  # overshoot of float arithmetic that is still the declared range; values are clamped to it


@dataclass(frozen=True)
class ImageBatch:
    """N RGB images, (N,3,H,W) float32, in the declared range: "signed" = [-1, 1], "unit" = [0, 1].

    Raises ValueError on construction for another shape, dtype or range, and for values that are not finite. A "signed" batch
    that happens to lie in [0, 1] is legal (a bright image); the declaration comes from the producer, which knows.
    """

    tensor: Tensor
    range: ValueRange

    def __post_init__(self) -> None:
        if self.range not in BOUNDS:
            raise ValueError(f"image range {self.range!r}; allowed: signed ([-1, 1]) or unit ([0, 1])")
        if self.tensor.ndim != 4 or self.tensor.shape[1] != 3:
            raise ValueError(f"images must be (N,3,H,W), got shape {tuple(self.tensor.shape)}")
        if self.tensor.dtype != torch.float32:
            raise ValueError(f"images must be float32, got {self.tensor.dtype}")
        low, high = BOUNDS[self.range]
        if self.tensor.numel() == 0:
            return
        smallest, largest = (float(value) for value in self.tensor.detach().aminmax())
        if not (smallest >= low - TOLERANCE and largest <= high + TOLERANCE):  # also true for NaN
            raise ValueError(
                f"images declared {self.range} must lie in [{low:g}, {high:g}], found [{smallest:.4g}, {largest:.4g}]"
            )

    def __len__(self) -> int:
        return int(self.tensor.shape[0])

    def unit(self) -> Tensor:
        """(N,3,H,W) float32 in [0, 1], clamped."""
        values = self.tensor if self.range == "unit" else (self.tensor + 1.0) / 2.0
        return values.clamp(0.0, 1.0)

    def signed(self) -> Tensor:
        """(N,3,H,W) float32 in [-1, 1], clamped."""
        values = self.tensor if self.range == "signed" else self.tensor * 2.0 - 1.0
        return values.clamp(-1.0, 1.0)

    def uint8(self) -> NDArray[np.uint8]:
        """(N,H,W,3) uint8, as `eight_bit`."""
        return eight_bit(self.unit())

    def to(self, device: torch.device | str) -> ImageBatch:
        """The same batch on `device`."""
        return ImageBatch(self.tensor.to(device), self.range)

    def quantised(self) -> ImageBatch:
        """The batch as an 8-bit file would hold it, unit range."""
        return from_uint8(self.uint8()).to(self.tensor.device)


def from_uint8(images: NDArray[np.uint8]) -> ImageBatch:
    """(N,H,W,3) uint8 -> unit range batch on the CPU; any other dtype or shape raises ValueError."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"expected (N,H,W,3) uint8, got {images.shape} {images.dtype}")
    tensor = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).to(torch.float32).div(255.0)
    return ImageBatch(tensor.contiguous(), "unit")


def check_pair(a: ImageBatch, b: ImageBatch) -> None:
    """Raise TypeError unless both are `ImageBatch`, ValueError unless their shapes agree."""
    for value in (a, b):
        if not isinstance(value, ImageBatch):
            raise TypeError(f"metrics take ImageBatch, which declares its range; got {type(value).__name__}")
    if a.tensor.shape != b.tensor.shape:
        raise ValueError(f"image batches differ in shape: {tuple(a.tensor.shape)} and {tuple(b.tensor.shape)}")
