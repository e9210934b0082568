"""Features of reference sets, cached under the digest of what they were made of: images and extractor, never a chosen name."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.data.types import Dataset
from pipeline.identity import canonical_json, digest
from pipeline.images import from_uint8
from pipeline.progress import Progress
from pipeline.records import atomic

if TYPE_CHECKING:
    from pipeline.metrics.features import FeatureExtractor

BATCH = 32


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
    from pipeline.data.procfaces import RENDERER_VERSION
    from pipeline.editing.truth import renderer_of

    renderer = renderer_of(dataset)
    if renderer is None:
        return None
    faces = renderer.faces
    numbers = [faces.face_index(i) for i in range(total)]
    key = digest(canonical_json([RENDERER_VERSION, faces.seed, numbers, [dataset.height, dataset.width]]))
    return cache / "content" / f"procfaces_{key[:32]}.txt"


def _content_digest(dataset: Dataset, total: int) -> str:
    hasher = hashlib.sha256()
    for index in range(total):
        sample = dataset[index]
        hasher.update(str(sample.image.shape).encode())
        hasher.update(sample.image.tobytes())
        hasher.update(sample.label.astype("<i2").tobytes())
    return hasher.hexdigest()


def reference_features(
    extractor: FeatureExtractor, dataset: Dataset, total: int, cache: Path | None, progress: Progress
) -> tuple[NDArray[np.float32], str]:
    """Features (total, width) of the first `total` real images and the content digest of these images."""
    content = content_digest(dataset, total, cache)
    path = None
    if cache is not None:
        path = cache / "reference" / f"{digest(canonical_json([extractor.identity, content]))[:32]}.npy"
        if path.exists():
            stored: NDArray[np.float32] = np.load(path, allow_pickle=False)
            if stored.shape == (total, extractor.width):
                return stored, content
    progress.start(f"reference of {extractor.names[0]}", total)
    found = []
    for start in range(0, total, BATCH):
        stop = min(start + BATCH, total)
        found.append(extractor.features(from_uint8(np.stack([dataset[i].image for i in range(start, stop)]))))
        progress.update(stop)
    progress.stop()
    features = np.concatenate(found)
    if path is not None:
        buffer = io.BytesIO()
        np.save(buffer, features, allow_pickle=False)
        atomic.write_bytes(path, buffer.getvalue())
    return features, content
