"""Paired tests of one arm against another, and Holm's correction within a declared family of comparisons."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from analysis.statistics.summary import finite

Alternative = Literal["two-sided", "greater", "less"]
Method = Literal["auto", "t", "permutation", "wilcoxon"]
EXACT_LIMIT = 16  # up to 2**16 sign patterns are enumerated
# From n pairs the smallest two-sided p-value is 2/2**n. With fewer than this, no arm of a study could stay significant after
# Holm's correction, however clear it is: at 10 pairs up to 25 comparisons can, at 6 pairs only one.
PERMUTATION_MINIMUM = 10


@dataclass(frozen=True)
class TestResult:
    """A test of "the mean paired difference is zero"."""

    __test__ = False  # not a test case for pytest

    name: str
    statistic: float
    p_value: float
    n: int
    alternative: Alternative


def paired_test(
    differences: Sequence[float],
    generator: np.random.Generator,
    *,
    method: Method = "auto",
    alternative: Alternative = "two-sided",
) -> TestResult:
    """Test paired differences (one a seed). "auto": sign-flip permutation from 10 pairs on, Student's t below.

    Raises ValueError below two pairs.
    """
    if method == "auto":
        method = "permutation" if len(differences) >= PERMUTATION_MINIMUM else "t"
    if method == "t":
        return paired_t_test(differences, alternative=alternative)
    if method == "wilcoxon":
        return wilcoxon_test(differences, alternative=alternative)
    return paired_permutation_test(differences, generator, alternative=alternative)


def paired_t_test(differences: Sequence[float], *, alternative: Alternative = "two-sided") -> TestResult:
    """Student's t test of paired differences; assumes that they are roughly normal. Needs at least two."""
    from scipy import stats

    array = _at_least_two(differences)
    error = np.std(array, ddof=1) / np.sqrt(len(array))
    mean = float(array.mean())
    constant = float(np.copysign(np.inf, mean)) if mean else 0.0  # constant differences: certain if not zero
    statistic = float(mean / error) if error > 0 else constant
    df = len(array) - 1
    tails = {
        "two-sided": 2 * stats.t.sf(abs(statistic), df),
        "greater": stats.t.sf(statistic, df),
        "less": stats.t.cdf(statistic, df),
    }
    return TestResult("paired t test", statistic, float(tails[alternative]), len(array), alternative)


def paired_permutation_test(
    differences: Sequence[float],
    generator: np.random.Generator,
    *,
    alternative: Alternative = "two-sided",
    resamples: int = 10_000,
) -> TestResult:
    """Sign-flip permutation test of the mean.

    Exact up to 16 pairs, else Monte Carlo with p = (hits + 1) / (resamples + 1).
    """
    array = _at_least_two(differences)
    n = len(array)
    exact = n <= EXACT_LIMIT
    flips = _all_flips(n) if exact else _random_flips(generator, resamples, n)
    means = (array.sum() - 2 * (flips @ array)) / n
    observed = float(array.mean())
    slack = 1e-12 * max(1.0, float(np.abs(array).max()))  # equal up to rounding counts as equal
    if alternative == "two-sided":
        hits = int((np.abs(means) >= abs(observed) - slack).sum())
    elif alternative == "greater":
        hits = int((means >= observed - slack).sum())
    else:
        hits = int((means <= observed + slack).sum())
    p_value = hits / len(means) if exact else (hits + 1) / (len(means) + 1)
    return TestResult("paired permutation test", observed, float(p_value), n, alternative)


def wilcoxon_test(differences: Sequence[float], *, alternative: Alternative = "two-sided") -> TestResult:
    """Wilcoxon's signed-rank test; zero differences are dropped, and only zeros give p = 1."""
    from scipy import stats

    array = _at_least_two(differences)
    if not array.any():
        return TestResult("Wilcoxon signed-rank test", 0.0, 1.0, len(array), alternative)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "sample size too small for normal approximation", with ties
        result = stats.wilcoxon(array, alternative=alternative, zero_method="wilcox")
    return TestResult(
        "Wilcoxon signed-rank test", float(result.statistic), float(result.pvalue), len(array), alternative
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given (Holm 1979). The family is exactly what is passed."""
    array = np.asarray(p_values, dtype=np.float64)
    if array.size == 0:
        return []
    if not ((array >= 0) & (array <= 1)).all():
        raise ValueError(f"p-values must lie in [0, 1]: {array}")
    order = np.argsort(array, kind="stable")
    stepped = np.maximum.accumulate(array[order] * np.arange(len(array), 0, -1))
    adjusted = np.empty_like(array)
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]


def _all_flips(n: int) -> np.ndarray:
    """Every pattern of n bits, shape (2**n, n), 0 or 1."""
    return ((np.arange(2**n)[:, None] >> np.arange(n)) & 1).astype(np.float64)


def _random_flips(generator: np.random.Generator, count: int, n: int) -> np.ndarray:
    """Random bits, shape (count, n), 0 or 1."""
    packed = np.frombuffer(generator.bytes(count * -(-n // 8)), dtype=np.uint8).reshape(count, -1)
    return np.unpackbits(packed, axis=1, count=n).astype(np.float64)


def _at_least_two(differences: Sequence[float]) -> np.ndarray:
    array = finite(differences)
    if len(array) < 2:
        raise ValueError("a paired test needs at least two pairs")
    return array
