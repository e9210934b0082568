"""How fast batches come: what the benchmark reports with and without the prepared cache."""

from __future__ import annotations

import time
from dataclasses import dataclass

from pipeline.data.build import build_dataset
from pipeline.data.loader import batches
from pipeline.data.types import Split
from pipeline.schema.data import DataConfig


@dataclass(frozen=True)
class FeedingSpeed:
    """One measurement of feeding."""

    cache: str  # none, memory or mapped
    height: int
    width: int
    workers: int
    images: int  # measured
    images_per_s: float
    first_epoch_s: float  # what filling or opening the cache costs once, with the first pass


def feeding_speed(cfg: DataConfig, split: Split, *, batch_size: int, seconds: float) -> FeedingSpeed:
    """Images a second of training batches, after one pass that fills the caches; at least one more pass.

    Includes decoding (or the cache), augmentation, one-hot masks and the conversion to tensors.
    """
    began = time.perf_counter()
    dataset = build_dataset(cfg, split)
    for _ in batches(dataset, batch_size=batch_size, seed=0, epoch=0, augment=cfg.augment, workers=cfg.workers):
        pass
    first = time.perf_counter() - began
    images, epoch, began = 0, 1, time.perf_counter()
    while images == 0 or time.perf_counter() - began < seconds:
        for batch in batches(
            dataset, batch_size=batch_size, seed=0, epoch=epoch, augment=cfg.augment, workers=cfg.workers
        ):
            images += len(batch.keys)
        epoch += 1
    elapsed = time.perf_counter() - began
    return FeedingSpeed(cfg.cache, dataset.height, dataset.width, cfg.workers, images, images / elapsed, first)
