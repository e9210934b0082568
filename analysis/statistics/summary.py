"""Describing the runs of one arm: mean, sample standard deviation, median, interquartile mean, and always n."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

FEW_SEEDS = 5  # below this many seeds every spread is a rough guess, and tables say so


@dataclass(frozen=True)
class Summary:
    """`std` is that of the sample (ddof=1) and None for a single value: one run has no spread to report."""

    n: int
    mean: float
    std: float | None
    median: float
    iqm: float  # interquartile mean
    minimum: float
    maximum: float


def finite(values: Iterable[float]) -> np.ndarray:
    """The values as float64, shape (n,); raises ValueError when empty or not finite: NaN never enters a statistic."""
    array = np.asarray(list(values), dtype=np.float64)
    if array.size == 0:
        raise ValueError("no values")
    if not np.isfinite(array).all():
        raise ValueError(f"values are not all finite: {array}")
    return array


def summarise(values: Iterable[float]) -> Summary:
    """Summary of at least one finite value."""
    array = finite(values)
    mean = _exact_mean(array)
    squares = math.fsum((array - mean) ** 2)
    return Summary(
        n=len(array),
        mean=mean,
        std=math.sqrt(squares / (len(array) - 1)) if len(array) > 1 else None,
        median=float(np.median(array)),
        iqm=interquartile_mean(array),
        minimum=float(array.min()),
        maximum=float(array.max()),
    )


def interquartile_mean(values: Iterable[float]) -> float:
    """Mean of what is left when floor(n/4) values are cut from each end (scipy's `trim_mean(values, 0.25)`)."""
    array = np.sort(finite(values))
    cut = len(array) // 4
    return _exact_mean(array[cut : len(array) - cut])


def _exact_mean(array: np.ndarray) -> float:
    """Mean by exact summation: it does not depend on the order of the runs, so tables rebuild byte-identically."""
    return math.fsum(array) / len(array)
