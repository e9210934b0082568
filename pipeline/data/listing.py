"""What lies on disk, before any split: the files of a sample, and what an adapter found below a root."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pipeline.data.label_spaces import LabelSpace
from pipeline.data.types import Split


@dataclass(frozen=True)
class SampleFiles:
    """The files of one sample."""

    key: str
    photo: Path
    label: Path
    instance: Path | None
    size: tuple[int, int] | None = None  # width and height of the photo, where a manifest says it


@dataclass(frozen=True)
class Listing:
    """What an adapter found below a root: samples by part ("train", "val", "test", or "all" where nothing divides them)."""

    name: str  # for people, e.g. "CelebA-HQ-img + merged_labels"
    parts: dict[str, tuple[SampleFiles, ...]]
    space: LabelSpace  # with the lookup table that fits these files
    named_splits: dict[str, dict[Split, tuple[SampleFiles, ...]]] = field(default_factory=dict)  # of a prepared root
    default_split: str | None = None  # the rule a prepared root was given
