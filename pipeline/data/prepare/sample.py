"""Preparing one sample: verify, convert, write, describe. Nothing is ever half-written.

Files are renamed into place.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.data.label_spaces import LabelSpace
from pipeline.data.prepare.labels import LabelReader
from pipeline.data.prepare.raw import Job
from pipeline.data.reading import check_alignment, photo_traits, read_ids, read_mask, read_photo
from pipeline.errors import UserError

# Raised whenever the prepared bytes of a given raw sample change: older work is then done again.
SAMPLE_FORMAT = 1


@dataclass(frozen=True)
class PreparedSample:
    """What the manifest says of one sample; paths are relative to the prepared root."""

    key: str
    part: str
    photo: str
    photo_sha256: str
    label: str
    label_sha256: str
    instance: str | None
    instance_sha256: str | None
    width: int
    height: int
    pixels: dict[str, int]  # label pixels by class name, classes that occur
    look: str  # hex difference hash of the photo, equal for the same picture at any size or quality

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def label_name(key: str) -> str:
    """Where the label map of a sample lies below the prepared root."""
    return f"labels/{key}.png"


def signature(job: Job) -> list[list[int]]:
    """Size and modification time of every raw file: changes when a raw file does. UserError where one is missing."""
    files = [job.photo, *([job.label] if job.label else []), *(p for _, p in job.part_masks)]
    files += [job.instance] if job.instance else []
    result = []
    for path in files:
        try:
            stat = path.stat()
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from error
        result.append([stat.st_size, stat.st_mtime_ns])
    return result


def merge_parts(parts: tuple[tuple[int, Path], ...]) -> NDArray[np.uint8]:
    """(H,W) uint8 class indices: part masks painted in the given order over background 0, later over earlier."""
    merged: NDArray[np.uint8] | None = None
    for k, path in parts:
        mask = read_mask(path)
        if merged is None:
            merged = np.zeros(mask.shape, dtype=np.uint8)
        if mask.shape != merged.shape:
            raise UserError(f"{path}: {mask.shape[1]}x{mask.shape[0]}, the other parts of this image are "
                            f"{merged.shape[1]}x{merged.shape[0]}")  # fmt: skip
        merged[mask] = k
    if merged is None:
        raise UserError("an image without any part mask")
    return merged


def prepare_sample(job: Job, space: LabelSpace, reader: LabelReader, target: Path, scratch: Path) -> PreparedSample:
    """Write `photos/`, `labels/` (and `instances/`) of one sample below `target`; UserError names the file at fault."""
    photo = read_photo(job.photo)
    if job.label is not None:
        ids = reader.read(job.label, job.photo)
        label, where = space.decode(ids, str(job.label)), job.label
    else:
        label, where = merge_parts(job.part_masks), job.part_masks[0][1]
    check_alignment(job.photo, photo.size, where, label.shape)
    if photo_traits(job.photo).plain:  # keep the original bytes: no second lossy compression, no growth
        suffix = ".jpg" if job.photo.suffix.lower() in (".jpg", ".jpeg") else ".png"
        photo_bytes = job.photo.read_bytes()
    else:
        suffix, photo_bytes = ".png", _png(photo)
    label_bytes = _png(Image.fromarray(label))
    photo_name, label_at = f"photos/{job.key}{suffix}", label_name(job.key)
    _place(photo_bytes, target / photo_name, scratch)
    _place(label_bytes, target / label_at, scratch)
    instance_name = instance_digest = None
    if job.instance is not None:
        instance = read_ids(job.instance)
        check_alignment(job.photo, photo.size, job.instance, instance.shape)
        if instance.min() < 0 or instance.max() > 65535:
            raise UserError(f"{job.instance}: instance ids {instance.min()}..{instance.max()} do not fit 16 bits")
        instance_bytes = _png(Image.fromarray(instance.astype(np.uint16)))
        instance_name, instance_digest = f"instances/{job.key}.png", hashlib.sha256(instance_bytes).hexdigest()
        _place(instance_bytes, target / instance_name, scratch)
    counts = np.bincount(label.reshape(-1), minlength=space.num_classes)
    return PreparedSample(
        key=job.key,
        part=job.part,
        photo=photo_name,
        photo_sha256=hashlib.sha256(photo_bytes).hexdigest(),
        label=label_at,
        label_sha256=hashlib.sha256(label_bytes).hexdigest(),
        instance=instance_name,
        instance_sha256=instance_digest,
        width=photo.width,
        height=photo.height,
        pixels={space.classes[k]: int(counts[k]) for k in np.flatnonzero(counts)},
        look=difference_hash(photo),
    )


def difference_hash(photo: Image.Image) -> str:
    """64 hex digits: of a 17x16 grey miniature, is each pixel brighter than its right neighbour."""
    grey = np.asarray(photo.convert("L").resize((17, 16), Image.Resampling.BOX), dtype=np.int16)
    bits = (grey[:, :-1] > grey[:, 1:]).reshape(-1)
    return np.packbits(bits).tobytes().hex()


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format="PNG", compress_level=6)
    return stream.getvalue()


def _place(data: bytes, path: Path, scratch: Path) -> None:
    """Write through a temporary file of the same file system; OSError (a full disk) leaves nothing at `path`."""
    handle, temporary = tempfile.mkstemp(dir=scratch)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise
