"""What the doctor learns from one sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.data.label_spaces import LabelSpace
from pipeline.data.listing import SampleFiles
from pipeline.data.prepare.sample import difference_hash
from pipeline.data.reading import check_alignment, photo_traits, read_ids, read_photo
from pipeline.errors import UserError
from pipeline.identity import file_digest

_UNKNOWN_SHARE = 0.95
_MIN_SIDE_PIXELS = 4


@dataclass(frozen=True)
class Inspected:
    """One sample's problems (kind, detail) and what the report counts."""

    files: SampleFiles
    problems: tuple[tuple[str, str], ...]
    pixels: dict[str, int]  # label pixels by class name
    size: tuple[int, int] | None  # of the photo, (width, height)
    look: str | None  # difference hash of the photo
    photo_sha256: str | None


def inspect_sample(files: SampleFiles, space: LabelSpace) -> Inspected:
    """Read photo, label and instance map of one sample and note everything that is not as it should be."""
    problems: list[tuple[str, str]] = []
    photo = _photo(files, problems)
    ids = _ids(files, problems)
    pixels: dict[str, int] = {}
    if ids is not None:
        try:
            label = space.decode(ids, files.label.name)
        except UserError as error:
            problems.append(("ids_out_of_range", str(error)))
        else:
            counts = np.bincount(label.reshape(-1), minlength=space.num_classes)
            pixels = {space.classes[k]: int(counts[k]) for k in np.flatnonzero(counts)}
            problems += _label_problems(files, space, label, counts)
    if photo is not None and ids is not None:
        try:
            check_alignment(files.photo, photo.size, files.label, ids.shape)
        except UserError as error:
            problems.append(("shape_mismatch", str(error)))
        else:
            if photo.size != (ids.shape[1], ids.shape[0]):
                problems.append(("size_differs", ""))
    return Inspected(
        files,
        tuple(problems),
        pixels,
        photo.size if photo is not None else None,
        difference_hash(photo) if photo is not None else None,
        file_digest(files.photo) if photo is not None else None,
    )


def _photo(files: SampleFiles, problems: list[tuple[str, str]]) -> Image.Image | None:
    try:
        photo = read_photo(files.photo)
        traits = photo_traits(files.photo)
    except UserError as error:
        problems.append(("unreadable", str(error)))
        return None
    if not traits.extension_fits:
        problems.append(("wrong_extension", f"{files.photo.name} is {traits.format}"))
    if traits.rotated:
        problems.append(("rotated", ""))
    if traits.mode != "RGB":
        problems.append(("converted", f"{files.photo.name} is {traits.mode}"))
    return photo


def _ids(files: SampleFiles, problems: list[tuple[str, str]]) -> NDArray[np.int32] | None:
    try:
        if files.instance is not None:
            read_ids(files.instance)
        return read_ids(files.label)
    except UserError as error:
        problems.append(("unreadable", str(error)))
        return None


def _label_problems(
    files: SampleFiles, space: LabelSpace, label: NDArray[np.uint8], counts: NDArray[np.int64]
) -> list[tuple[str, str]]:
    problems: list[tuple[str, str]] = []
    present = np.flatnonzero(counts)
    if present.size == 1:
        problems.append(("single_class", f"{files.label.name} is all {space.classes[int(present[0])]}"))
    if space.unknown is not None and counts[space.unknown] > _UNKNOWN_SHARE * label.size:
        problems.append(("mostly_unknown", ""))
    if _sides_swapped(space, label, counts):
        problems.append(("sides_swapped", files.label.name))
    return problems


def _sides_swapped(space: LabelSpace, label: NDArray[np.uint8], counts: NDArray[np.int64]) -> bool:
    """Whether more pairs of left and right parts lie the wrong way round than the right one (l_ belongs on the right)."""
    votes = 0
    for k, other in enumerate(space.mirror_permutation):
        if not space.classes[k].startswith("l_") or k == other or min(counts[k], counts[other]) < _MIN_SIDE_PIXELS:
            continue
        left = (np.flatnonzero(label == k) % label.shape[1]).mean()
        right = (np.flatnonzero(label == other) % label.shape[1]).mean()
        votes += 1 if left > right else -1
    return votes < 0
