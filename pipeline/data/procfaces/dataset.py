"""Procedural faces as a data set: no files, splits are disjoint ranges of the index."""

from __future__ import annotations

import math

from pipeline.data.label_spaces import LabelSpace, label_space
from pipeline.data.procfaces.layouts import layout_of
from pipeline.data.procfaces.render import render_label
from pipeline.data.procfaces.shapes import label_map
from pipeline.data.procfaces.styles import light_of, styles_of
from pipeline.data.transforms import connected_components
from pipeline.data.types import Sample, Split
from pipeline.schema.data import DataConfig

# First index of each split: growing one split never changes another.
SPLIT_START: dict[Split, int] = {"train": 0, "val": 1_000_000_000, "test": 2_000_000_000}


class ProcFaces:
    """`count` faces of one split; face i is index SPLIT_START[split] + i of the data seed."""

    def __init__(self, cfg: DataConfig, split: Split, count: int) -> None:
        self.label_space: LabelSpace = label_space("celebamask_hq")
        self.height, self.width = cfg.hw
        self.seed, self.start = cfg.data_seed, SPLIT_START[split]
        self.instances = cfg.instances
        self.load_scale = cfg.augment.load_scale if split == "train" else 1.0
        self.keys: tuple[str, ...] = tuple(f"{split}{index:06d}" for index in range(count))

    def __len__(self) -> int:
        return len(self.keys)

    def face_index(self, index: int) -> int:
        """Index by which `layout_of`, `styles_of` and `light_of` make sample `index`."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.start + index

    def __getitem__(self, index: int) -> Sample:
        return self._at(index, self.height, self.width)

    def for_training(self, index: int) -> Sample:
        """Sample at `load_scale` times the training size."""
        return self._at(index, math.ceil(self.height * self.load_scale), math.ceil(self.width * self.load_scale))

    def _at(self, index: int, height: int, width: int) -> Sample:
        face = self.face_index(index)
        label = label_map(layout_of(self.seed, face), height, width)
        image = render_label(label, styles_of(self.seed, face), light_of(self.seed, face))
        return Sample(image, label, self.keys[index], connected_components(label) if self.instances else None)
