"""Keeping decoded samples in memory, for sets small enough that decoding would be most of the work."""

from __future__ import annotations

from pipeline.data.types import Dataset, Sample


class InMemory:
    """A data set that remembers every sample once it was asked for."""

    def __init__(self, source: Dataset) -> None:
        self.source = source
        self.label_space, self.keys = source.label_space, source.keys
        self.height, self.width, self.load_scale = source.height, source.width, source.load_scale
        self._training: dict[int, Sample] = {}
        self._exact: dict[int, Sample] = {}

    def __len__(self) -> int:
        return len(self.source)

    def for_training(self, index: int) -> Sample:
        """As the source's, from memory after the first time."""
        if self.load_scale == 1.0:
            return self[index]
        if index not in self._training:
            self._training[index] = self.source.for_training(index)
        return self._training[index]

    def __getitem__(self, index: int) -> Sample:
        if index not in self._exact:
            self._exact[index] = self.source[index]
        return self._exact[index]
