"""Config section `data`: which data set, size, split, augmentation. Defaults: `pipeline/conf/data/*.yaml`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipeline.errors import nearest
from pipeline.schema.base import Section, later

CLASSES_FILE = "classes_file"  # label space of `folder`: read from the root's classes.txt

# The data sets that lie on disk, with the label spaces that make sense for each; the first is the usual one. How one is read says
# its adapter (`pipeline.data.adapters`).
SPACES_OF: dict[str, tuple[str, ...]] = {
    "celebamask_hq": ("celebamask_hq", "celebamask_hq_g_mask", "celebamask_13"),
    "ade20k": ("ade20k",),
    "deepfashion": ("deepfashion",),
    "cityscapes": ("cityscapes_35", "cityscapes_19"),
    "coco_stuff": ("coco_stuff",),
    "folder": (CLASSES_FILE,),
}
SplitRule = Literal[
    "auto", "indices", "folders", "holdout", "group", "share", "celebamask_28000_2000", "celebamask_official"
]

NoiseKind = Literal["jitter", "erosion", "dilation", "confusion", "dropped", "spurious", "ds", "edge", "random"]

# Fields that change where data lies or how fast it comes, never what it is: not part of the run identity.
# (The content below `root` enters the identity through the data fingerprint.)
NUISANCE_FIELDS: tuple[str, ...] = ("root", "group", "cache", "cache_root", "workers")


class LabelNoise(Section):
    """Damage to the label maps of training samples; photos stay as they are."""

    probability: float = Field(ge=0, le=1)  # that a sample's map is damaged, each epoch anew; 0: none is
    kinds: tuple[NoiseKind, ...] = Field(min_length=1)  # one of these, all alike; as the metrics `robust_*` know them
    level: float = Field(gt=0, le=1)  # strongest damage; each is drawn between 0 and this


_NO_NOISE = LabelNoise(probability=0.0, kinds=("jitter", "dilation", "dropped"), level=1.0)


class Augment(Section):
    """Random changes of training samples; each sample's randomness is a function of (seed, epoch, index)."""

    mirror: bool  # horizontal mirror with probability 1/2, left and right classes exchanged
    load_scale: float = Field(ge=1.0, le=4.0)  # resize to load_scale * size, then crop size at random; 1.0 = no crop
    label_noise: LabelNoise = later(_NO_NOISE)


class DataConfig(Section):
    """One data set as one run sees it."""

    name: str  # procfaces, or one of SPACES_OF
    root: str | None  # folder of the data set; null only for procfaces
    label_space: str  # name in pipeline.data.label_spaces, or "classes_file" for `folder`
    size: int = Field(ge=8, le=4096)  # short side of the training size, pixels
    aspect: float = Field(gt=0.1, lt=10.0)  # width / height of the training size
    resize: Literal["stretch", "cover"]  # stretch: ignore the photo's aspect; cover: keep it, cut the middle out
    split: SplitRule
    group: str | None = later(
        None
    )  # of split=group: a pattern of the samples' names, or a CSV file; null: the manifest's
    train_images: int | None = Field(ge=0)  # at most so many (null: all); procfaces: exactly so many
    val_images: int | None = Field(ge=0)
    test_images: int | None = Field(ge=0)
    data_seed: int = Field(ge=0)  # seed of the procedural faces, independent of the run's seed
    instances: bool  # hand out instance maps (files, or connected components where the data set has none)
    augment: Augment
    cache: Literal["none", "memory", "mapped"]  # mapped: memory-mapped uint8 file at the training size
    cache_root: str | None  # folder of the mapped caches; null: OUT/cache of a run, else the user's
    workers: int = Field(ge=0, le=64)  # decoding threads, 0 = in the caller's thread

    @model_validator(mode="after")
    def _consistent(self) -> DataConfig:
        if self.name != "procfaces" and self.name not in SPACES_OF:
            raise ValueError(
                f"data.name is {self.name!r}{nearest(self.name, list(SPACES_OF))}; allowed: procfaces, {', '.join(SPACES_OF)}"
            )
        counts = (self.train_images, self.val_images, self.test_images)
        if self.name == "procfaces":
            if any(count is None for count in counts):
                raise ValueError(
                    "procfaces needs a number for train_images, val_images and test_images (it has no end)"
                )
            if self.split != "indices":
                raise ValueError(f"split={self.split}: procfaces knows only split=indices")
        elif self.split == "indices":
            raise ValueError(f"split=indices belongs to procfaces, not to {self.name}")
        if self.group is not None and self.split not in ("auto", "group"):
            raise ValueError(f"group={self.group!r} belongs to split=group, not to split={self.split}")
        if self.name == "procfaces" and self.group is not None:
            raise ValueError("group: procedural faces are all of different people")
        if self.name != "celebamask_hq" and self.split.startswith("celebamask"):
            raise ValueError(f"split={self.split} belongs to celebamask_hq, not to {self.name}")
        return self

    def count_limit(self, split: Literal["train", "val", "test"]) -> int | None:
        """The number of images asked for in `split`, None for all."""
        return {"train": self.train_images, "val": self.val_images, "test": self.test_images}[split]

    @property
    def hw(self) -> tuple[int, int]:
        """(height, width) of the training size: the short side is `size`; a longer one rounds to a multiple of 8."""
        if self.aspect == 1.0:
            return self.size, self.size
        long = max(self.aspect, 1.0 / self.aspect) * self.size
        long_side = max(self.size, round(long / 8.0) * 8)
        return (self.size, long_side) if self.aspect > 1.0 else (long_side, self.size)
