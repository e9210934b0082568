"""Photos and label maps from files, at the training size."""

from __future__ import annotations

import math

from pipeline.data.reading import check_alignment, read_ids, read_photo
from pipeline.data.sources import Source
from pipeline.data.transforms import connected_components, resize_image, resize_label, source_box
from pipeline.data.types import Sample, Split
from pipeline.schema.data import DataConfig


class FileDataset:
    """One split of a source. Evaluation sees samples resized to the training size; training may see them larger, to crop."""

    def __init__(self, cfg: DataConfig, source: Source, split: Split) -> None:
        self.records = source.splits[split]
        self.label_space = source.space
        self.keys: tuple[str, ...] = tuple(record.key for record in self.records)
        self.height, self.width = cfg.hw
        self.mode, self.instances = cfg.resize, cfg.instances
        self.load_scale = cfg.augment.load_scale if split == "train" else 1.0

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        return self._at(index, self.height, self.width)

    def for_training(self, index: int) -> Sample:
        """Sample at `load_scale` times the training size (train split; others at the training size)."""
        return self._at(index, math.ceil(self.height * self.load_scale), math.ceil(self.width * self.load_scale))

    def _at(self, index: int, height: int, width: int) -> Sample:
        record = self.records[index]
        photo = read_photo(record.photo)
        ids = read_ids(record.label)
        check_alignment(record.photo, photo.size, record.label, ids.shape)
        label = self.label_space.decode(ids, str(record.label))
        box = source_box(photo.width / photo.height, width / height, self.mode)
        small = resize_label(label, height, width, box)
        instance = None
        if self.instances and record.instance is not None:
            raw = read_ids(record.instance)
            check_alignment(record.photo, photo.size, record.instance, raw.shape)
            instance = resize_label(raw, height, width, box)
        elif self.instances:
            instance = connected_components(small)
        return Sample(resize_image(photo, height, width, box), small, record.key, instance)
