"""Files that a browser sends: checked as a data set's files are, in a temporary folder that is gone when the check ends."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from PIL import Image

from pipeline.data.files import read_sample
from pipeline.data.listing import SampleFiles
from pipeline.data.reading import LABEL_SUFFIXES, PHOTO_SUFFIXES, read_ids, read_photo
from pipeline.data.transforms import resize_image, resize_label, source_box
from pipeline.data.types import Sample
from pipeline.errors import UserError
from pipeline.paint.studio import Labels, Studio

MAX_BYTES = 20_000_000  # of one file
MAX_PIXELS = 40_000_000  # of one file: 40 megapixels are 120 MB of RGB
MAX_NAME = 120  # bytes
FORMATS = ("PNG", "JPEG", "MPO")  # by content; MPO: a JPEG of a phone with a second picture behind it
T = TypeVar("T")


def read_label(studio: Studio, data: bytes, name: str) -> Labels:
    """(H,W) class indices of an uploaded label map, resized as the data set's are. UserError names the file."""
    space, size = studio.space, (studio.height, studio.width)

    def read(folder: Path) -> Labels:
        ids = read_ids(_written(folder, name, data, LABEL_SUFFIXES, "label map"))
        box = source_box(ids.shape[1] / ids.shape[0], size[1] / size[0], studio.resize)
        return resize_label(space.decode(ids, name), *size, box)

    return _in_passing(read)


def read_style(studio: Studio, photo: tuple[str, bytes], label: tuple[str, bytes] | Labels) -> Sample:
    """A style photo with its label map: a file of its own, or one (H,W) that is there already. UserError names the file."""

    def read(folder: Path) -> Sample:
        path = _written(folder, *photo, PHOTO_SUFFIXES, "photo")
        if isinstance(label, tuple):
            other = _written(folder / "label", *label, LABEL_SUFFIXES, "label map")
            files = SampleFiles(photo[0], path, other, None)
            return read_sample(files, studio.space, studio.height, studio.width, studio.resize)
        picture = read_photo(path)
        box = source_box(picture.width / picture.height, studio.width / studio.height, studio.resize)
        return Sample(resize_image(picture, studio.height, studio.width, box), label, photo[0], None)

    return _in_passing(read)


def _in_passing(read: Callable[[Path], T]) -> T:
    """What `read` makes of a temporary folder, whose name its errors do not show."""
    with tempfile.TemporaryDirectory(prefix="ca2sis-paint-") as name:
        try:
            return read(Path(name))
        except UserError as error:
            raise UserError(str(error).replace(f"{Path(name, 'label')}/", "").replace(f"{name}/", "")) from error


def _written(folder: Path, name: str, data: bytes, suffixes: tuple[str, ...], what: str) -> Path:
    """The upload as a file that a reader of data sets takes; refused by name, bytes and pixels before it is decoded."""
    plain = name.isprintable() and not name.startswith(".") and Path(name).name == name
    if not name or not plain or len(name.encode(errors="replace")) > MAX_NAME:
        raise UserError(f"{what}: {name[:40]!r} is not the name of a file")
    if Path(name).suffix.lower() not in suffixes:
        raise UserError(f"{name}: {what} must be a file {', '.join(suffixes)}")
    if len(data) > MAX_BYTES:
        raise UserError(f"{name}: {what} has {len(data) / 1e6:.1f} MB; at most {MAX_BYTES / 1e6:.0f} are taken")
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_bytes(data)
    with (
        contextlib.suppress(OSError, SyntaxError, ValueError, Image.DecompressionBombError),
        Image.open(path) as opened,
    ):
        # What is no image is left to its reader, which says so.
        if opened.format not in FORMATS:  # decoders for other formats are many, and some start other programs
            raise UserError(f"{name}: {what} is {opened.format}, whatever its extension says; PNG and JPEG are taken")
        width, height = opened.size
        if width * height > MAX_PIXELS:
            raise UserError(f"{name}: {what} is {width}x{height}; at most {MAX_PIXELS // 10**6} megapixels are taken")
    return path
