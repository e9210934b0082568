"""What lies on disk, before any split: the files of a sample, and what an adapter found below a root."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.data.label_spaces import LabelSpace
from pipeline.data.types import Split


@dataclass(frozen=True)
class SampleFiles:
    """The files of one sample."""

    key: str  # unique within the data set
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


def with_unique_keys(listing: Listing) -> Listing:
    """The listing itself, or, where the same file name lies in two parts, with keys that begin with their part."""
    keys = unique_keys([(part, files.key) for part, listed in listing.parts.items() for files in listed])
    parts = {
        part: tuple(replace(files, key=keys[part, files.key]) for files in listed)
        for part, listed in listing.parts.items()
    }
    return replace(listing, parts=parts)


def unique_keys(found: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Unique keys of samples by (part, key): the keys themselves, or, where one is in two parts, all with their part before."""
    alike = len({key for _, key in found}) < len(found)
    return {(part, key): f"{part}_{key}" if alike else key for part, key in found}
