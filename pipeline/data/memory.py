"""Keeping decoded samples in memory, for sets small enough that decoding would be most of the work."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.data.types import Dataset, Sample

# Per data set: all of CelebAMask-HQ at 128x128, a fourth of it at 256x256 (for that, data.cache=mapped).
BUDGET_BYTES = 2 * 2**30


class InMemory:
    """A data set that remembers samples once they were asked for, up to `budget_bytes`; the others are decoded again."""

    def __init__(self, source: Dataset, budget_bytes: int = BUDGET_BYTES) -> None:
        self.source = source
        self.label_space, self.keys = source.label_space, source.keys
        self.height, self.width, self.load_scale = source.height, source.width, source.load_scale
        self._left_bytes = budget_bytes
        self._training: dict[int, Sample] = {}
        self._exact: dict[int, Sample] = {}

    def __len__(self) -> int:
        return len(self.source)

    def for_training(self, index: int) -> Sample:
        """As the source's, from memory after the first time."""
        if self.load_scale == 1.0:
            return self[index]
        return self._remembered(self._training, index, self.source.for_training)

    def __getitem__(self, index: int) -> Sample:
        return self._remembered(self._exact, index, self.source.__getitem__)

    def _remembered(self, kept: dict[int, Sample], index: int, decode: Callable[[int], Sample]) -> Sample:
        if index in kept:
            return kept[index]
        sample = decode(index)
        size = sample.image.nbytes + sample.label.nbytes + (0 if sample.instance is None else sample.instance.nbytes)
        if size <= self._left_bytes:
            self._left_bytes -= size
            kept[index] = sample
        return sample
