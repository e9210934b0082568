"""Photos and label maps from files, at the training size."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pipeline.data.label_spaces import LabelSpace
from pipeline.data.listing import SampleFiles
from pipeline.data.reading import check_alignment, read_ids, read_photo
from pipeline.data.sources import Source
from pipeline.data.transforms import ResizeMode, connected_components, resize_image, resize_label, source_box
from pipeline.data.types import Sample, Split
from pipeline.schema.data import DataConfig

DIMMED = 0.35  # brightness of what a crop cuts away


class FileDataset:
    """One split of a source. Evaluation sees samples resized to the training size; training may see them larger, to crop."""

    def __init__(self, cfg: DataConfig, source: Source, split: Split) -> None:
        self.listed = source.splits[split]
        self.label_space = source.space
        self.keys: tuple[str, ...] = tuple(files.key for files in self.listed)
        self.height, self.width = cfg.hw
        self.mode, self.instances = cfg.resize, cfg.instances
        self.load_scale = cfg.augment.load_scale if split == "train" else 1.0

    def __len__(self) -> int:
        return len(self.listed)

    def __getitem__(self, index: int) -> Sample:
        return self._at(index, self.height, self.width)

    def for_training(self, index: int) -> Sample:
        """Sample at `load_scale` times the training size (train split; others at the training size)."""
        return self._at(index, math.ceil(self.height * self.load_scale), math.ceil(self.width * self.load_scale))

    def whole(self, index: int, height: int) -> NDArray[np.uint8]:
        """The whole photo `index`, `height` pixels high, (height, width, 3); what the crop cuts away is dimmed."""
        photo = read_photo(self.listed[index].photo)
        box = source_box(photo.width / photo.height, self.width / self.height, self.mode)
        width = max(1, round(height * photo.width / photo.height))
        picture = resize_image(photo, height, width, (0.0, 0.0, 1.0, 1.0))
        kept = np.zeros((height, width, 1), dtype=bool)
        left, top, right, bottom = (round(edge * side) for edge, side in zip(box, (width, height) * 2, strict=True))
        kept[top:bottom, left:right] = True
        return np.where(kept, picture, (picture * DIMMED).astype(np.uint8))

    def _at(self, index: int, height: int, width: int) -> Sample:
        return read_sample(self.listed[index], self.label_space, height, width, self.mode, instances=self.instances)


def read_sample(
    files: SampleFiles, space: LabelSpace, height: int, width: int, mode: ResizeMode, *, instances: bool = False
) -> Sample:
    """The sample in `files` at (height, width). Raises UserError naming the file that is unreadable or does not fit."""
    photo = read_photo(files.photo)
    ids = read_ids(files.label)
    check_alignment(files.photo, photo.size, files.label, ids.shape)
    label = space.decode(ids, str(files.label))
    box = source_box(photo.width / photo.height, width / height, mode)
    small = resize_label(label, height, width, box)
    instance = None
    if instances and files.instance is not None:
        raw = read_ids(files.instance)
        check_alignment(files.photo, photo.size, files.instance, raw.shape)
        instance = resize_label(raw, height, width, box)
    elif instances:
        instance = connected_components(small)
    return Sample(resize_image(photo, height, width, box), small, files.key, instance)
