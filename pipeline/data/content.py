"""What a data set holds, as one digest, and the procedural faces behind it; the same cached or not."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pipeline.data.mapped import Mapped
from pipeline.data.memory import InMemory
from pipeline.data.procfaces import RENDERER_VERSION
from pipeline.data.procfaces.dataset import ProcFaces
from pipeline.data.types import Dataset
from pipeline.identity import canonical_digest
from pipeline.records import atomic


def faces_behind(dataset: Dataset) -> ProcFaces | None:
    """The procedural faces a data set hands out, cached or not; None for any other data set."""
    source = dataset.source if isinstance(dataset, InMemory | Mapped) else dataset
    return source if isinstance(source, ProcFaces) else None


def content_digest(dataset: Dataset, total: int, cache: Path | None = None) -> str:
    """sha256 over images and labels of the first `total` samples, in order: two sets are the same when their pixels are.

    Faces are drawn for it once per `cache`: what is drawn follows from the renderer's version and the faces' numbers, under which
    the digest is remembered there.
    """
    note = None if cache is None else _note(dataset, total, cache)
    if note is not None and note.exists():
        return note.read_text()
    found = _content_digest(dataset, total)
    if note is not None:
        atomic.write_bytes(note, found.encode())
    return found


def _note(dataset: Dataset, total: int, cache: Path) -> Path | None:
    """Where the digest of these samples is remembered; None where only their pixels say what they are."""
    faces = faces_behind(dataset)
    if faces is None:
        return None
    numbers = [faces.face_index(i) for i in range(total)]
    key = canonical_digest([RENDERER_VERSION, faces.seed, numbers, [dataset.height, dataset.width]])
    return cache / "content" / f"procfaces_{key[:32]}.txt"


def _content_digest(dataset: Dataset, total: int) -> str:
    hasher = hashlib.sha256()
    for index in range(total):
        sample = dataset[index]
        hasher.update(str(sample.image.shape).encode())
        hasher.update(sample.image.tobytes())
        hasher.update(sample.label.astype("<i2").tobytes())
    return hasher.hexdigest()
