"""Keeping decoded samples in memory, for sets small enough that decoding would be most of the work."""

from __future__ import annotations

from pipeline.data.transforms import centre_crop
from pipeline.data.types import Dataset, Sample


class InMemory:
    """A data set that remembers every sample, at the size training loads it, once it was asked for."""

    def __init__(self, source: Dataset) -> None:
        self.source = source
        self.label_space, self.keys = source.label_space, source.keys
        self.height, self.width = source.height, source.width
        self._samples: dict[int, Sample] = {}

    def __len__(self) -> int:
        return len(self.source)

    def for_training(self, index: int) -> Sample:
        """As the source's, from memory after the first time."""
        if index not in self._samples:
            self._samples[index] = self.source.for_training(index)
        return self._samples[index]

    def __getitem__(self, index: int) -> Sample:
        return centre_crop(self.for_training(index), self.height, self.width)
