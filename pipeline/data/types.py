"""What a data set hands out: one `Sample`, and the `Dataset` protocol every source fulfils. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.data.label_spaces import LabelSpace

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Sample:
    """One photo with its label map, at one common size."""

    image: NDArray[np.uint8]  # (H, W, 3) RGB in 0..255
    label: NDArray[np.uint8]  # (H, W) class index 0..K-1 of the data set's label space
    key: str  # unique within the data set
    instance: NDArray[np.int32] | None  # (H, W) instance ids, None where the data set has none or none were asked for


class Dataset(Protocol):
    """A finite, ordered, read-only set of samples of one split."""

    label_space: LabelSpace
    keys: tuple[str, ...]
    height: int
    width: int
    load_scale: float  # size of `for_training` samples relative to (height, width); 1.0: both are the same sample

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def __getitem__(self, index: int) -> Sample:
        """Sample `index` at exactly (height, width): what evaluation sees."""
        ...

    def for_training(self, index: int) -> Sample:
        """Sample `index` as augmentation takes it: possibly larger than (height, width), to be cropped at random."""
        ...
