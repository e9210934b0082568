"""Do two metrics say the same? Correlation over runs, with Fisher's interval."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

Kind = Literal["pearson", "spearman"]


@dataclass(frozen=True)
class Correlation:
    """Correlation of two metrics over the runs that have both.

    `coefficient` is None below three runs or without spread.
    """

    first: str
    second: str
    coefficient: float | None
    lower: float | None
    upper: float | None
    n: int


def correlation(
    first: np.ndarray, second: np.ndarray, *, kind: Kind = "spearman", level: float = 0.95
) -> tuple[float | None, float | None, float | None]:
    """Coefficient and interval of two equally long arrays without NaN (Fisher's z.

    For ranks with Bonett and Wright's error).
    """
    from scipy import stats

    n = len(first)
    if n < 3:
        return None, None, None
    if kind == "spearman":
        first, second = stats.rankdata(first), stats.rankdata(second)
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None, None, None
    r = float(np.clip(np.corrcoef(first, second)[0, 1], -1.0, 1.0))
    if n < 4 or abs(r) > 1 - 1e-12:
        return r, None, None
    variance = (1 + r * r / 2) / (n - 3) if kind == "spearman" else 1 / (n - 3)
    half = float(stats.norm.ppf((1 + level) / 2)) * math.sqrt(variance)
    z = math.atanh(r)
    return r, math.tanh(z - half), math.tanh(z + half)


def correlate_metrics(values: pd.DataFrame, *, kind: Kind = "spearman", level: float = 0.95) -> list[Correlation]:
    """Correlation of every pair of columns of `values` (rows = runs, columns = metrics, missing where not measured)."""
    results = []
    names = list(values.columns)
    for index, first in enumerate(names):
        for second in names[index + 1 :]:
            both = values[[first, second]].dropna().to_numpy(dtype=np.float64)
            result = correlation(both[:, 0], both[:, 1], kind=kind, level=level)
            results.append(Correlation(first, second, *result, n=len(both)))
    return results
