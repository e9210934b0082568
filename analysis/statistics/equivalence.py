"""Equivalence: evidence that a part does *not* matter, which a missing significance is not.

Two one-sided tests (Schuirmann 1987): the arms are equivalent when the mean difference is shown to be above `low` and
below `high`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.statistics.summary import finite


@dataclass(frozen=True)
class Equivalence:
    """Outcome of the two one-sided paired t tests; equivalent at `alpha` when `p_value` is below it."""

    mean: float
    p_low: float  # of "the mean difference is at most low"
    p_high: float  # of "the mean difference is at least high"
    lower: float  # interval of level 1 - 2 alpha: inside (low, high) exactly when equivalent
    upper: float
    n: int
    alpha: float

    @property
    def p_value(self) -> float:
        return max(self.p_low, self.p_high)

    @property
    def equivalent(self) -> bool:
        return self.p_value < self.alpha


def tost(differences: Sequence[float], low: float, high: float, *, alpha: float = 0.05) -> Equivalence:
    """Test whether paired differences have a mean inside (low, high).

    Raises ValueError below two pairs or if low >= high.
    """
    from scipy import stats

    array = finite(differences)
    if len(array) < 2:
        raise ValueError("an equivalence test needs at least two pairs")
    if low >= high:
        raise ValueError(f"the equivalence margins are empty: {low} to {high}")
    mean, df = float(array.mean()), len(array) - 1
    error = float(np.std(array, ddof=1)) / np.sqrt(len(array))
    if error == 0:
        p_low, p_high = float(mean <= low), float(mean >= high)
    else:
        p_low = float(stats.t.sf((mean - low) / error, df))
        p_high = float(stats.t.cdf((mean - high) / error, df))
    half = float(stats.t.ppf(1 - alpha, df)) * float(error)
    return Equivalence(mean, p_low, p_high, mean - half, mean + half, len(array), alpha)
