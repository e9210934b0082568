"""A folder of pictures that other code has made, held to what is wanted: names, readable 8-bit RGB, size. All faults are told."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pipeline.data.adapters.pairing import list_files
from pipeline.data.digests import named_digest
from pipeline.data.reading import PHOTO_SUFFIXES
from pipeline.errors import UserError

SHOWN = 5  # names of a fault that are told
ASPECT_TOLERANCE = 0.01  # a picture is brought to size, never into another shape
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class PictureFolder:
    """The pictures of a folder that fit."""

    folder: Path
    files: dict[str, Path]  # by name
    digest: str  # of names and files
    jpeg: int  # how many are JPEG by their content
    sizes: tuple[str, ...]  # "WxH", those that occur

    def read(self, name: str, height: int, width: int, resize: str) -> NDArray[np.uint8]:
        """One picture (height,width,3) uint8, brought to size by the filter `resize` if it has another."""
        with Image.open(self.files[name]) as opened:
            picture = opened.convert("RGB")
        if picture.size != (width, height):
            picture = picture.resize((width, height), FILTERS[resize])
        return np.asarray(picture)


def read_folder(
    folder: Path, known: Collection[str], needed: Sequence[str], size: tuple[int, int], resize: str, what: str
) -> PictureFolder:
    """The pictures of `folder`, every file of which is looked at.

    `known`: names a picture may have (what they are of is said by `what`), `needed`: those that must be there. `size`: (height,
    width) that they must have, unless a filter `resize` brings them to it. Raises UserError naming folder and files: missing,
    of no known name, unreadable, not 8-bit RGB, of another size or shape.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of pictures")
    files = list_files(folder, PHOTO_SUFFIXES)
    faults: dict[str, list[str]] = {}
    missing = [name for name in needed if name not in files]
    if missing:
        faults[f"no picture of {len(missing)} of the {len(needed)} {what}"] = missing
    extra = sorted(files[name].name for name in files if name not in known)
    if extra:
        faults[f"{_count(extra)} of none of the {what}"] = extra
    sizes: set[str] = set()
    jpeg = 0
    height, width = size
    unreadable: list[str] = []
    colours: list[str] = []
    turned: list[str] = []
    wrong: list[str] = []
    other_shape: list[str] = []
    for name in sorted(set(files) & set(known)):
        path = files[name]
        try:
            with Image.open(path) as opened:
                opened.load()
                form, mode, (w, h) = opened.format, opened.mode, opened.size
                orientation = opened.getexif().get(0x0112, 1)
        except (OSError, SyntaxError, ValueError, EOFError, UnidentifiedImageError, Image.DecompressionBombError):
            unreadable.append(path.name)
            continue
        jpeg += form in ("JPEG", "MPO")
        sizes.add(f"{w}x{h}")
        if mode != "RGB":
            colours.append(f"{path.name} ({mode})")
        elif orientation != 1:
            turned.append(path.name)
        elif abs(w * height - h * width) > ASPECT_TOLERANCE * w * height:
            other_shape.append(f"{path.name} ({w}x{h})")
        elif (w, h) != (width, height) and resize == "none":
            wrong.append(f"{path.name} ({w}x{h})")
    for said, of_fault in (
        ("cannot be read as pictures", unreadable),
        ("not 8-bit RGB", colours),
        ("turned by an EXIF orientation", turned),
        (f"not of the shape {width}x{height}", other_shape),
        (f"not {width}x{height} (--resize bicubic brings them to size, and says so)", wrong),
    ):
        if of_fault:
            faults[f"{_count(of_fault)} {said}"] = of_fault
    if faults:
        told = "; ".join(f"{said}: {_some(of_fault)}" for said, of_fault in faults.items())
        raise UserError(f"{folder}: {told}")
    kept = {name: files[name] for name in sorted(files)}
    return PictureFolder(folder, kept, named_digest(kept), jpeg, tuple(sorted(sizes)))


def _count(files: Sequence[str]) -> str:
    return f"{len(files)} picture{'s' if len(files) > 1 else ''}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
