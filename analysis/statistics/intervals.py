"""Intervals over seeds and test images, for differences paired by seed value and by image.

Runs and images are crossed (every run is evaluated on the same images), so new seeds and new images are two sources of noise. The
standard error is that of the pigeonhole bootstrap, which resamples both independently and is mildly conservative (Owen, "The
pigeonhole bootstrap", 2007), with weights rescaled for few seeds (Rao and Wu, "Resampling inference with complex survey data",
1988): its variance has a closed form, so nothing is drawn. Each source has Student's quantile of its own degrees of freedom: half
the interval, squared, is t(seeds - 1)^2 times the variance from seeds plus t(images - 1)^2 times that from images (Banerjee, "On
confidence interval for two-means problem based on separate estimates of variances", Sankhya, 1961). Its error rate is at most the
nominal one for normal noise, at every level and every ratio of the two, as P(Z^2 <= x) is concave in x. Satterthwaite's single
number of degrees of freedom would not do: where two or three seeds agree by luck it is that of the images, and at the levels that
Holm's correction asks for, true nulls are then rejected 10 to 30 times too often.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.statistics.effects import power_of_paired_t
from analysis.statistics.summary import finite

MOST_SEEDS = 10_000


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval, over so many `seeds` and `images`; of one there is no noise in it."""

    estimate: float
    lower: float
    upper: float
    level: float
    seeds: int
    images: int
    standard_error: float
    parts: tuple[
        tuple[float, int], ...
    ]  # of its variance, seeds before images: (share, degrees of freedom); those with noise

    def p_beyond(self, value: float) -> tuple[float, float]:
        """One-sided p-values of "the mean is at most `value`" and "at least `value`", consistent with the ends."""
        if self.standard_error == 0:
            return float(self.estimate <= value), float(self.estimate >= value)
        statistic = (self.estimate - value) / self.standard_error
        smaller = tail(self.parts, abs(statistic))
        return (smaller, 1 - smaller) if statistic > 0 else (1 - smaller, smaller)

    def p_within(self, value: float) -> tuple[float, float]:
        """p-values of "the mean lies not within ±`value`" (two one-sided tests, Schuirmann 1987) and of "it lies within"."""
        above_low, below_low = self.p_beyond(-value)
        above_high, below_high = self.p_beyond(value)
        return max(above_low, below_high), min(1.0, 2 * min(above_high, below_low))

    def excludes(self, value: float) -> bool:
        """Whether the value lies outside the interval."""
        return value < self.lower or value > self.upper


def quantile(parts: Sequence[tuple[float, int]], beyond: float) -> float:
    """Standard errors that an estimate with noise of these (share, df) exceeds with probability `beyond` at most, one-sided."""
    from scipy import stats

    return math.sqrt(sum(share * float(stats.t.isf(beyond, df)) ** 2 for share, df in parts))


def tail(parts: Sequence[tuple[float, int]], statistic: float) -> float:
    """The one-sided p-value, at most 1/2, of which `statistic` (>= 0 standard errors) is the `quantile`."""
    from scipy import optimize, stats

    ends = sorted(float(stats.t.sf(statistic, df)) for _, df in parts)  # of each source as if it were all
    if ends[-1] - ends[0] <= 1e-12 * ends[-1]:
        return ends[-1]
    low, high = math.log(ends[0]), math.log(ends[-1])  # tails are small: searched by their logarithm
    return math.exp(optimize.brentq(lambda p: quantile(parts, math.exp(p)) - statistic, low - 1e-9, high + 1e-9))


def hierarchical_interval(values: np.ndarray, *, level: float = 0.95) -> Interval:
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
    estimate, error, parts = float(matrix.mean()), _standard_error(matrix), _parts(matrix)
    half = quantile(parts, (1 - level) / 2) * error
    seeds, images = matrix.shape
    return Interval(estimate, estimate - half, estimate + half, level, seeds, images, error, parts)


def seeds_to_decide(interval: Interval, distance: float, *, beyond: float, power: float = 0.8) -> int | None:
    """Seeds at which a truth `distance` (> 0) away is told with this power, one-sided at level `beyond`, on the same test images.

    More seeds take away the noise of seeds and not that of images: None where the images alone are too few, or more than
    10,000 seeds were needed. Exact where seeds are all the noise there is; beside images the estimate is taken as normal.
    """
    from scipy import stats

    if interval.seeds < 2:
        raise ValueError("one seed says nothing of what more seeds would bring")
    (share, df), *images = interval.parts
    of_one = share * interval.standard_error**2 * (df + 1)  # variance from a single seed
    rest = [(part * interval.standard_error**2, degrees) for part, degrees in images]
    margin = float(stats.norm.isf(1 - power))

    def enough(seeds: int) -> bool:
        variances = [(of_one / seeds, seeds - 1), *rest]
        total = sum(variance for variance, _ in variances)
        if total == 0:
            return True
        if not rest:
            return power_of_paired_t(distance / math.sqrt(of_one), seeds, alpha=beyond, sides=1) >= power
        parts = [(variance / total, degrees) for variance, degrees in variances]
        return distance / math.sqrt(total) >= quantile(parts, beyond) + margin

    if distance <= 0 or not enough(MOST_SEEDS):
        return None
    low, high = 1, MOST_SEEDS  # power grows with the number of seeds: bisect
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _standard_error(matrix: np.ndarray) -> float:
    """Of the mean of a crossed (seeds, images) layout: what independent, rescaled resampling of both axes tends to.

    Resampling weights of n items have covariance (I - 11'/n) / (n (n - 1)): the mean then varies by the variances of the margins
    over their number, and by what is left beside both margins, once more.
    """
    seeds, images = matrix.shape
    rows, columns = matrix.mean(axis=1), matrix.mean(axis=0)
    variance = sum(float(np.var(margin, ddof=1)) / len(margin) for margin in (rows, columns) if len(margin) > 1)
    if min(seeds, images) > 1:
        left = matrix - rows[:, None] - columns + matrix.mean()
        variance += float((left**2).sum()) / ((seeds - 1) * (images - 1)) / matrix.size
    return math.sqrt(variance)


def _parts(matrix: np.ndarray) -> tuple[tuple[float, int], ...]:
    """Where the variance of the mean of a crossed (seeds, images) layout comes from: (share, degrees of freedom) of each axis."""
    found = []
    for axis in (0, 1):
        margin = matrix.mean(axis=1 - axis)
        if len(margin) > 1:
            found.append((float(np.var(margin, ddof=1)) / len(margin), len(margin) - 1))
    total = sum(variance for variance, _ in found)
    return tuple((variance / total if total else 1 / len(found), df) for variance, df in found)
