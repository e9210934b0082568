"""Intersection over union and accuracy from a running confusion matrix.

Pitfall: such numbers depend on ignored labels, on the resize of labels and on the segmenter, and a generator
can beat real images. Hence: nearest labels only, the ignored class is stated, real images always stand beside generated ones.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Confusion:
    """Counts (K,K) int64 of (true class, predicted class) pixels."""

    def __init__(self, num_classes: int, ignore: int | None = None) -> None:
        self.num_classes = num_classes
        self.ignore = ignore  # true class whose pixels are not counted
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64)

    @classmethod
    def of(cls, counts: NDArray[np.int64]) -> Confusion:
        """A confusion with the given (K,K) counts."""
        confusion = cls(counts.shape[0])
        confusion.counts = torch.from_numpy(np.ascontiguousarray(counts, dtype=np.int64))
        return confusion

    def update(self, predicted: Tensor, label: Tensor) -> None:
        """Add pixels: `predicted` and `label` of one shape, int64 ids 0..K-1. Raises ValueError for ids outside."""
        if predicted.shape != label.shape:
            raise ValueError(f"prediction {tuple(predicted.shape)} and label {tuple(label.shape)} differ in shape")
        true, found = label.reshape(-1), predicted.reshape(-1)
        if self.ignore is not None:
            kept = true != self.ignore
            true, found = true[kept], found[kept]
        if true.numel() == 0:
            return
        pairs = true * self.num_classes + found
        if (
            int(true.min()) < 0
            or int(found.min()) < 0
            or int(torch.maximum(true.max(), found.max())) >= self.num_classes
        ):
            raise ValueError(f"class ids outside 0..{self.num_classes - 1}")
        counts = torch.bincount(pairs, minlength=self.num_classes**2)
        self.counts += counts.cpu().view(self.num_classes, self.num_classes)

    def iou(self) -> list[float]:
        """IoU of each class, NaN for classes that no label holds: every arm is averaged over the same classes."""
        hit = self.counts.diagonal().double()
        true, found = self.counts.sum(dim=1).double(), self.counts.sum(dim=0).double()
        iou = hit / (true + found - hit)
        return [float(value) if float(count) > 0 else math.nan for value, count in zip(iou, true, strict=True)]

    def mean_iou(self) -> float:
        """Mean IoU over the classes that occur in the labels, in [0, 1]. Raises ValueError when nothing was counted."""
        present = [value for value in self.iou() if not math.isnan(value)]
        if not present:
            raise ValueError("mean IoU without any labelled pixel")
        return sum(present) / len(present)

    def accuracy(self) -> float:
        """Share of pixels with the right class, in [0, 1]. Raises ValueError when nothing was counted."""
        total = int(self.counts.sum())
        if total == 0:
            raise ValueError("accuracy without any labelled pixel")
        return int(self.counts.diagonal().sum()) / total
