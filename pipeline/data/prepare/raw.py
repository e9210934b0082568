"""What there is to prepare: one `Job` a sample, found in the layouts that users download."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.data import class_names
from pipeline.data.adapters import find_listing, photos
from pipeline.data.adapters.celebamask import PARTS, PHOTOS, PREPARED_ONLY
from pipeline.data.adapters.pairing import list_files
from pipeline.data.adapters.prepared import MANIFEST
from pipeline.data.label_spaces import LabelSpace, label_space
from pipeline.data.prepare.labels import Ids, LabelReader
from pipeline.data.reading import LABEL_SUFFIXES, PHOTO_SUFFIXES
from pipeline.errors import UserError, nearest
from pipeline.schema.data import CLASSES_FILE

_PART_FILE = re.compile(r"^(\d+)_(.+)$")


@dataclass(frozen=True)
class Job:
    """The raw files of one sample."""

    key: str
    part: str  # "train", "val", "test", or "all" where nothing divides the set
    photo: Path
    label: Path | None  # one label map, or
    part_masks: tuple[tuple[int, Path], ...]  # (class index, mask) in the order they are painted
    instance: Path | None


@dataclass(frozen=True)
class Raw:
    """Everything a preparation starts from."""

    layout: str
    space: LabelSpace  # reads the raw label values
    jobs: tuple[Job, ...]
    extra_files: tuple[Path, ...]  # small files that split rules need later
    extra_texts: Mapping[str, str] = field(default_factory=dict)  # files to write beside them: content by name
    reader: LabelReader = field(default_factory=Ids)  # of the label maps


def find_raw(name: str, source: Path, space_name: str) -> Raw:
    """The jobs below `source`. UserError: no such folder, unknown layout, unpaired files, already prepared."""
    if not source.is_dir():
        raise UserError(f"--from {source}: no such folder")
    if (source / MANIFEST).is_file():
        raise UserError(f"--from {source}: holds a {MANIFEST}, so it is prepared already; give the downloaded folder")
    if name == "celebamask_hq":
        inner = source / "CelebAMask-HQ"
        source = inner if (inner / PHOTOS).is_dir() else source
        parts = _part_masks(source) if (source / PARTS).is_dir() else {}
        if parts:  # the original, whatever merged maps lie beside it
            return _from_part_masks(source, parts, space_name)
    listing = find_listing(name, source, space_name)
    jobs = [
        Job(files.key, part, files.photo, files.label, (), files.instance)
        for part, listed in listing.parts.items()
        for files in listed
    ]
    if not jobs:
        raise UserError(f"--from {source}: no samples found ({listing.name})")
    return Raw(listing.name, listing.space, tuple(sorted(jobs, key=lambda job: job.key)), _extras(source, space_name))


def _extras(source: Path, space_name: str) -> tuple[Path, ...]:
    wanted = [source / "CelebA-HQ-to-CelebA-mapping.txt"]
    if space_name == CLASSES_FILE:
        wanted.append(source / photos.CLASSES)
    return tuple(path for path in wanted if path.is_file())


def _part_masks(source: Path) -> dict[int, dict[str, Path]]:
    """{image number: {part: mask}} of `CelebAMask-HQ-mask-anno`, whatever folders the masks were put in."""
    names = label_space("celebamask_hq").classes[1:]
    found: dict[int, dict[str, Path]] = {}
    for stem, path in list_files(source / PARTS, LABEL_SUFFIXES).items():
        match = _PART_FILE.match(stem)
        if match is None or match[2] not in names:
            hint = nearest(match[2], names) if match else ""
            raise UserError(f"{path}: not a part mask of CelebAMask-HQ, expected NUMBER_PART.png{hint}")
        found.setdefault(int(match[1]), {})[match[2]] = path
    return found


def _from_part_masks(source: Path, masks: dict[int, dict[str, Path]], space_name: str) -> Raw:
    if space_name not in ("celebamask_hq", PREPARED_ONLY):
        raise UserError(f"--label-space {space_name}: part masks have names, so they are merged in our order only")
    space = label_space(space_name)
    order = (
        class_names.CELEBAMASK_13_PAINT
        if space_name == PREPARED_ONLY
        else tuple(zip(space.classes, space.classes, strict=True))
    )
    photo_files = {int(key): path for key, path in list_files(source / PHOTOS, PHOTO_SUFFIXES).items() if key.isdigit()}
    alone = sorted(set(photo_files) ^ set(masks))
    if alone:
        what = "photo without part masks" if alone[0] in photo_files else "part masks without photo"
        raise UserError(f"{source}: {len(alone)} images are incomplete, the first is image {alone[0]} ({what})")
    jobs = []
    for number in sorted(photo_files):
        painted = tuple((space.index(name), masks[number][part]) for part, name in order if part in masks[number])
        jobs.append(Job(str(number), "all", photo_files[number], None, painted, None))
    return Raw(f"{PHOTOS} + {PARTS}", space, tuple(jobs), _extras(source, space_name))
