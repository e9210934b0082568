"""Features of reference sets, cached under the digest of what they were made of: images and extractor, never a chosen name."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.data.content import content_digest
from pipeline.data.types import Dataset
from pipeline.evaluation.context import Context
from pipeline.identity import canonical_json, digest
from pipeline.metrics.accumulate import Contribution
from pipeline.metrics.features import FeatureExtractor
from pipeline.metrics.images import from_uint8
from pipeline.records.kept import kept_at, read_array, write_array

BATCH = 32


def reference_features(
    extractor: FeatureExtractor, dataset: Dataset, total: int, context: Context
) -> tuple[NDArray[np.float32], str]:
    """Features (total, width) of the first `total` real images of `dataset` and the content digest of these images.

    The processes of an evaluation share the images, and what is not kept on disk yet is measured by all or by none.
    """
    world = context.world
    content = world.of_main(lambda: content_digest(dataset, total, context.cache))
    path = None if context.cache is None else kept_at(context.cache / "reference", [extractor.identity, content])
    shape = (total, extractor.width)
    kept = world.of_main(lambda: read_array(path, shape))
    if kept is not None:
        return kept, content

    def measure(start: int, stop: int) -> Contribution:
        images = np.stack([dataset[i].image for i in range(start, stop)])
        return {"feat/real": extractor.features(from_uint8(images))}

    title = f"reference of {extractor.names[0]}, once for all runs here:"
    stage = f"real_{digest(canonical_json([extractor.identity, content]))[:16]}"
    features = context.collect(stage, total, min(BATCH, context.protocol.batch_size), measure, title=title)
    real = features.stacked("feat/real")
    if path is not None and world.main:
        write_array(path, real)
    return real, content
