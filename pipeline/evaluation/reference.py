"""Features of reference sets, cached under the digest of what they were made of: images and extractor, never a chosen name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data.content import content_digest
from pipeline.data.types import Dataset
from pipeline.metrics.features import FeatureExtractor
from pipeline.metrics.images import from_uint8
from pipeline.progress import Progress
from pipeline.records.kept import kept_array, kept_at

BATCH = 32


def reference_features(
    extractor: FeatureExtractor, dataset: Dataset, total: int, cache: Path | None, progress: Progress
) -> tuple[NDArray[np.float32], str]:
    """Features (total, width) of the first `total` real images and the content digest of these images."""
    content = content_digest(dataset, total, cache)
    path = None if cache is None else kept_at(cache / "reference", [extractor.identity, content])

    def measure() -> NDArray[np.float32]:
        progress.start(f"reference of {extractor.names[0]}, once for all runs here:", total)
        found = []
        for start in range(0, total, BATCH):
            stop = min(start + BATCH, total)
            found.append(extractor.features(from_uint8(np.stack([dataset[i].image for i in range(start, stop)]))))
            progress.update(stop)
        progress.stop()
        return np.concatenate(found)

    return kept_array(path, measure, (total, extractor.width)), content
