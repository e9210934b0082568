"""Hierarchical bootstrap over seeds and test images, for differences paired by seed value and by image.

Runs and images are crossed (every run is evaluated on the same images), so both are resampled independently: the
pigeonhole bootstrap (Owen, "The pigeonhole bootstrap", 2007), which is mildly conservative. With few seeds the plain
percentile interval is far too narrow: the resampled variance lacks the factor n/(n-1) and the normal quantile is
wrong. The default method therefore rescales the resampled weights (Rao and Wu, "Resampling inference with complex
survey data", 1988) and takes Student's quantile with Satterthwaite's degrees of freedom.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from analysis.statistics.summary import finite

RESAMPLES = 4000
Method = Literal["student", "percentile"]


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval. `seeds` and `images` say what was resampled.

    One seed means no training noise in it.
    """

    estimate: float
    lower: float
    upper: float
    level: float
    seeds: int
    images: int
    method: str
    standard_error: float
    df: float  # Satterthwaite's degrees of freedom

    def p_beyond(self, value: float) -> tuple[float, float]:
        """One-sided p-values of "the mean is at most `value`" and "at least `value`", consistent with the ends."""
        from scipy import stats

        if self.standard_error == 0:
            return float(self.estimate <= value), float(self.estimate >= value)
        statistic = (self.estimate - value) / self.standard_error
        return float(stats.t.sf(statistic, self.df)), float(stats.t.cdf(statistic, self.df))

    def excludes(self, value: float) -> bool:
        """Whether the value lies outside the interval."""
        return value < self.lower or value > self.upper


def hierarchical_interval(
    values: np.ndarray,
    generator: np.random.Generator,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    method: Method = "student",
) -> Interval:
    """Interval of the mean of `values`, shape (seeds, images), over new seeds *and* new images.

    For a paired difference pass arm minus reference. With one seed the interval covers test images only; with one image
    column (metrics of whole image sets, such as FID) it covers seeds only. Raises ValueError for one single number.
    """
    matrix = np.asarray(values, dtype=np.float64)
    if matrix.ndim != 2:
        raise ValueError(f"values have shape {matrix.shape}, not (seeds, images)")
    finite(matrix.ravel())
    if matrix.size == 1:
        raise ValueError("one number has no interval")
    if not 0 < level < 1:
        raise ValueError(f"level {level} is not between 0 and 1")
    seeds, images = matrix.shape
    rescale = method == "student"
    seed_weights = _weights(seeds, resamples, generator, rescale)
    image_weights = _weights(images, resamples, generator, rescale)
    means = np.einsum("bi,bi->b", seed_weights @ matrix, image_weights)
    estimate = float(matrix.mean())
    error, df = float(np.sqrt(np.mean((means - estimate) ** 2))), _degrees_of_freedom(matrix)
    if method == "percentile":
        lower, upper = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    else:
        from scipy import stats

        half = float(stats.t.ppf((1 + level) / 2, df)) * error
        lower, upper = estimate - half, estimate + half
    return Interval(estimate, float(lower), float(upper), level, seeds, images, method, error, df)


def _weights(count: int, resamples: int, generator: np.random.Generator, rescale: bool) -> np.ndarray:
    """Resampling weights (resamples, count), rows summing to 1."""
    if count == 1:
        return np.ones((resamples, 1))
    weights = generator.multinomial(count, np.full(count, 1 / count), size=resamples) / count
    if rescale:
        weights = 1 / count + np.sqrt(count / (count - 1)) * (weights - 1 / count)
    return weights


def _degrees_of_freedom(matrix: np.ndarray) -> float:
    """Satterthwaite's degrees of freedom of the mean of a crossed (seeds, images) layout."""
    parts = []
    for axis in (0, 1):
        margin = matrix.mean(axis=1 - axis)
        if len(margin) > 1:
            parts.append((float(np.var(margin, ddof=1)) / len(margin), len(margin) - 1))
    total = sum(variance for variance, _ in parts)
    if total == 0:
        return float(min(df for _, df in parts))
    return total**2 / sum(variance**2 / df for variance, df in parts)
