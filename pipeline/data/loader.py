"""Feeding: which samples in which order with which augmentation, as a pure function of (seed, epoch).

Resuming in the middle of an epoch is exact: `batches(..., start=b)` yields what an undisturbed epoch yields from
batch b on, because neither the order nor a sample's augmentation depends on what was drawn before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from pipeline.data.batch import Batch, collate
from pipeline.data.label_noise import noisy_sample
from pipeline.data.transforms import augment_sample
from pipeline.data.types import Dataset, Sample
from pipeline.schema.data import Augment

_ORDER, _AUGMENT = 11, 12  # names of the two random streams
_LOOKAHEAD_BATCHES = 2


def batches_per_epoch(num_samples: int, batch_size: int) -> int:
    """Full batches in one epoch, at least one: what is left over waits for the next epoch's order."""
    return max(1, num_samples // batch_size)


def epoch_order(num_samples: int, *, batch_size: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Sample indices (batches_per_epoch * batch_size,) of one epoch.

    A random permutation; a set smaller than one batch is gone through again and again until the batch is full.
    """
    needed = batches_per_epoch(num_samples, batch_size) * batch_size
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([_ORDER, seed, epoch])))
    rounds = -(-needed // num_samples)
    return np.concatenate([rng.permutation(num_samples) for _ in range(rounds)])[:needed]


def augmentation_stream(seed: int, epoch: int, position: int) -> np.random.Generator:
    """Randomness of the sample at `position` of the epoch's order."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([_AUGMENT, seed, epoch, position])))


def batches(
    dataset: Dataset,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    start: int = 0,
    augment: Augment | None,
    workers: int = 0,
    part: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Training batches `start`, `start + 1`, ... of one epoch; each of exactly `batch_size` samples.

    `part` = (r, n): only the r-th of n equal parts of every batch, for n processes training together.

    `augment` None: samples as evaluation sees them. `workers` threads decode ahead; the batches are the same for any
    number.
    """
    order = epoch_order(len(dataset), batch_size=batch_size, seed=seed, epoch=epoch)

    def sample(position: int) -> Sample:
        index = int(order[position])
        if augment is None:
            return dataset[index]
        rng = augmentation_stream(seed, epoch, position)
        loaded = dataset.for_training(index)
        space, noise = dataset.label_space, augment.label_noise
        made = augment_sample(loaded, space, rng, dataset.height, dataset.width, mirrored=augment.mirror)
        if noise.probability > 0:
            made = noisy_sample(made, noise, num_classes=space.num_classes, unknown=space.unknown, rng=rng)
        return made

    positions = range(start * batch_size, len(order))
    yield from _collated(dataset, sample, positions, batch_size, workers, part)


def _collated(
    dataset: Dataset,
    sample: Callable[[int], Sample],
    positions: range,
    batch_size: int,
    workers: int,
    part: tuple[int, int],
) -> Iterator[Batch]:
    count = dataset.label_space.num_classes
    mine = slice(part[0] * batch_size // part[1], (part[0] + 1) * batch_size // part[1])
    groups = [positions[i : i + batch_size][mine] for i in range(0, len(positions), batch_size)]
    if workers == 0:
        for group in groups:
            yield collate([sample(position) for position in group], count)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    try:
        waiting: deque[list[Future[Sample]]] = deque()
        ahead = iter(groups)
        for group in ahead:
            waiting.append([pool.submit(sample, position) for position in group])
            if len(waiting) > _LOOKAHEAD_BATCHES:
                yield collate([future.result() for future in waiting.popleft()], count)
        while waiting:
            yield collate([future.result() for future in waiting.popleft()], count)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
