"""Listing folders and pairing photos, label maps and instance maps by name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.listing import SampleFiles
from pipeline.data.reading import LABEL_SUFFIXES, PHOTO_SUFFIXES
from pipeline.errors import UserError

_SHOWN = 5


@dataclass(frozen=True)
class Complaint:
    """Something a layout does wrong that does not keep the rest of it from being read."""

    kind: str  # "unpaired", "label_order"
    message: str
    files: tuple[Path, ...]


_complaints: ContextVar[list[Complaint] | None] = ContextVar("complaints", default=None)


@contextmanager
def lenient() -> Iterator[list[Complaint]]:
    """Within the block, what would be an error of pairing is collected and the complete samples are read all the same."""
    collected: list[Complaint] = []
    token = _complaints.set(collected)
    try:
        yield collected
    finally:
        _complaints.reset(token)


def complain(complaint: Complaint) -> None:
    """Raise the complaint as UserError, or collect it within `lenient`."""
    collected = _complaints.get()
    if collected is None:
        raise UserError(complaint.message)
    collected.append(complaint)


def list_files(folder: Path, suffixes: tuple[str, ...], *, ending: str = "") -> dict[str, Path]:
    """{key: path} of the files below `folder` (recursively, hidden ones left out) whose stem ends in `ending`.

    The key is the stem without `ending`. UserError: two files of one key, links that lead in circles, an unreadable
    folder.
    """
    found: dict[str, Path] = {}
    seen: set[str] = set()
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        real = os.path.realpath(current)
        if real in seen:
            raise UserError(f"{current}: a link that leads back to a folder above it; remove it")
        seen.add(real)
        for entry in _entries(current):
            path = current / entry.name
            if _is_folder(entry):
                waiting.append(path)
                continue
            stem, suffix = path.stem, path.suffix
            if suffix.lower() not in suffixes or not stem.endswith(ending):
                continue
            key = stem[: len(stem) - len(ending)]
            if key in found:
                raise UserError(f"{path} and {found[key]} both are {key!r}: one sample, one file")
            found[key] = path
    return found


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed ({error.strerror})") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        raise UserError(f"{entry.path}: a link that leads in circles ({error.strerror}); remove it") from error


def pair(
    photos: Path,
    labels: Path,
    instances: Path | None = None,
    *,
    photo_ending: str = "",
    label_ending: str = "",
    instance_ending: str = "",
) -> tuple[SampleFiles, ...]:
    """Records of two (or three) folders, sorted by key. UserError names what has no partner."""
    photo_files = list_files(photos, PHOTO_SUFFIXES, ending=photo_ending)
    label_files = list_files(labels, LABEL_SUFFIXES, ending=label_ending)
    instance_files = (
        list_files(instances, LABEL_SUFFIXES, ending=instance_ending) if instances and instances.is_dir() else None
    )
    complete = complete_pairs(photo_files, label_files, photos, labels)
    if instance_files is not None:
        _complain(photo_files, instance_files, photos, "photo", f"instance map in {instances}")
        complete = [key for key in complete if key in instance_files]
    return tuple(
        SampleFiles(key, photo_files[key], label_files[key], None if instance_files is None else instance_files[key])
        for key in complete
    )


def complete_pairs(photo_files: dict[str, Path], label_files: dict[str, Path], photos: Path, labels: Path) -> list[str]:
    """Keys that have a photo and a label map, sorted; UserError names what has no partner, and where it was looked for."""
    _complain(photo_files, label_files, photos, "photo", f"label map in {labels}")
    _complain(label_files, photo_files, labels, "label map", f"photo in {photos}")
    return sorted(set(photo_files) & set(label_files))


def _complain(have: dict[str, Path], partners: dict[str, Path], folder: Path, what: str, partner: str) -> None:
    alone = sorted(key for key in have if key not in partners)
    if alone:
        names = ", ".join(have[key].name for key in alone[:_SHOWN]) + (", ..." if len(alone) > _SHOWN else "")
        message = f"{folder}: {len(alone)} {what}{'s' if len(alone) > 1 else ''} without {partner}: {names}"
        complain(Complaint("unpaired", message, tuple(have[key] for key in alone)))
