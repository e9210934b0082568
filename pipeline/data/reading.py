"""Reading one photo or one label map from a file, with errors that name the file and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.errors import UserError

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png")
LABEL_SUFFIXES = (".png",)

_EXIF_ORIENTATION = 0x0112
_EXIF_TURNED = (5, 6, 7, 8)  # orientations that exchange width and height

# Photo modes that become RGB without loss of meaning: grey, palette, CMYK, with alpha (dropped).
PHOTO_MODES = ("RGB", "L", "P", "CMYK", "YCbCr", "RGBA", "LA", "1")
# Label modes that hold ids as they are; P: the palette's indices are the ids, its colours are for display only.
LABEL_MODES = ("L", "P", "I;16", "I", "1")


@contextmanager
def _naming(path: Path, what: str) -> Iterator[None]:
    """Turn what an image library raises on a broken file into one line that names it."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{path}: {what} is missing (removed, or a link that leads nowhere)") from error
    except UnidentifiedImageError as error:
        raise UserError(
            f"{path}: {what} cannot be read: its content is no image, whatever the extension says"
        ) from error
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: {what} cannot be read, the file is damaged or incomplete ({error})") from error


def read_photo(path: Path) -> Image.Image:
    """RGB photo, upright by its EXIF orientation. Grey, palette, CMYK and alpha photos become RGB; 16-bit ones are refused."""
    with _naming(path, "photo"), Image.open(path) as opened:
        mode = opened.mode
        if mode in PHOTO_MODES:
            opened.load()
            upright = ImageOps.exif_transpose(opened)
            return upright if upright.mode == "RGB" else upright.convert("RGB")
    raise UserError(f"{path}: photo has pixel mode {mode}; allowed are 8-bit photos ({', '.join(PHOTO_MODES)})")


def photo_size(path: Path) -> tuple[int, int]:
    """(width, height) of a photo as it is read, from its header: upright by its EXIF orientation."""
    with _naming(path, "photo"), Image.open(path) as opened:
        width, height = opened.size
        turned = opened.getexif().get(_EXIF_ORIENTATION, 1) in _EXIF_TURNED
        return (height, width) if turned else (width, height)


def open_pixels(path: Path, what: str) -> Image.Image:
    """The picture in a file, whatever its pixel mode; `what` it is, for the one line that names a file that does not read."""
    with _naming(path, what), Image.open(path) as opened:
        opened.load()
        return opened.copy()


def read_ids(path: Path) -> NDArray[np.int32]:
    """(H,W) int32 ids of a label or instance map; palette files give their indices; colour files are refused."""
    with _naming(path, "label map"), Image.open(path) as opened:
        mode = opened.mode
        if mode in LABEL_MODES or mode.startswith("I;16"):
            return np.asarray(opened).astype(np.int32)
    raise UserError(
        f"{path}: label map has pixel mode {mode} (colours); "
        "it must hold one class id per pixel (mode L, P or 16-bit grey)"
    )


def check_alignment(photo: Path, size: tuple[int, int], label: Path, label_shape: tuple[int, ...]) -> None:
    """UserError unless photo (width, height) and label (height, width) have one aspect (sizes may differ, as 1024 and 512 do)."""
    width, height = size
    rows, columns = label_shape[0], label_shape[1]
    if abs(width * rows - columns * height) > 0.01 * width * rows:
        raise UserError(
            f"{photo} is {width}x{height} but its label map {label} is {columns}x{rows}: not one picture's shape"
        )


def read_mask(path: Path) -> NDArray[np.bool_]:
    """(H,W) bool of a black and white mask in any mode.

    Inside where brighter than half (CelebAMask-HQ's part masks).
    """
    with _naming(path, "part mask"), Image.open(path) as opened:
        inside: NDArray[np.bool_] = np.asarray(opened.convert("L")) > 127
        return inside


@dataclass(frozen=True)
class PhotoTraits:
    """What a photo file's header says."""

    format: str  # by content: "JPEG", "PNG", ...
    mode: str  # of its pixels, as stored
    rotated: bool  # by its EXIF orientation
    extension_fits: bool  # .jpg, .jpeg or .png is true

    @property
    def plain(self) -> bool:
        """8-bit RGB, upright and honest about its format: the file can be used as it is."""
        return self.mode == "RGB" and not self.rotated and self.extension_fits


def photo_traits(path: Path) -> PhotoTraits:
    """Traits of a photo from its header."""
    suffixes = {"JPEG": (".jpg", ".jpeg"), "MPO": (".jpg", ".jpeg"), "PNG": (".png",)}
    with _naming(path, "photo"), Image.open(path) as opened:
        kind = opened.format or "unknown"
        rotated = opened.getexif().get(_EXIF_ORIENTATION, 1) != 1
        return PhotoTraits(kind, opened.mode, rotated, path.suffix.lower() in suffixes.get(kind, ()))
