"""How large an effect is, and what a study of this size can see at all.

All for paired differences, one a seed; power by the noncentral t distribution of the paired t test.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from analysis.statistics.summary import finite

Sides = Literal[1, 2]


@dataclass(frozen=True)
class EffectSize:
    """Standardised mean of paired differences with its interval (noncentral t)."""

    d_z: float  # mean difference / its standard deviation
    g_z: float  # d_z with Hedges' small-sample correction
    lower: float  # of d_z
    upper: float
    level: float
    n: int


def effect_size(differences: Sequence[float], *, level: float = 0.95) -> EffectSize:
    """Cohen's d_z and Hedges' g_z of paired differences.

    Raises ValueError below two pairs or for constant differences.
    """
    from scipy import optimize

    array = finite(differences)
    n = len(array)
    spread = float(np.std(array, ddof=1)) if n > 1 else 0.0
    if spread == 0:
        raise ValueError("an effect size needs at least two differences that are not all equal")
    d_z = float(array.mean()) / spread
    statistic = d_z * math.sqrt(n)

    def noncentrality(probability: float) -> float:
        """The noncentrality under which the observed t has this cumulative probability."""
        reach = 6 * abs(statistic) + 40.0  # the interval is wide on the far side when n is 2
        return float(
            optimize.brentq(lambda delta: noncentral_t_cdf(statistic, n - 1, delta) - probability, -reach, reach)
        )

    lower, upper = noncentrality((1 + level) / 2), noncentrality((1 - level) / 2)
    root = math.sqrt(n)
    return EffectSize(d_z, d_z * hedges_correction(n - 1), lower / root, upper / root, level, n)


def noncentral_t_cdf(t: float, df: int, noncentrality: float) -> float:
    """P(T <= t) of the noncentral t distribution, by quadrature over the chi variable s: E[Phi(t s - noncentrality)].

    scipy's `nct.cdf` gives NaN where t and the noncentrality are large, which a study with small noise reaches.
    """
    from scipy import special, stats

    low, high = (math.sqrt(float(stats.chi2.ppf(p, df)) / df) for p in (1e-15, 1 - 1e-15))
    nodes, weights = np.polynomial.legendre.leggauss(16)
    edges = np.linspace(low, high, 65)
    half = np.diff(edges)[:, None] / 2
    s = (edges[:-1, None] + half + half * nodes).ravel()
    density = 2 * df * s * stats.chi2.pdf(df * s**2, df)
    return float((special.ndtr(t * s - noncentrality) * density * (half * weights).ravel()).sum())


def hedges_correction(df: int) -> float:
    """Hedges' exact correction factor J(df) = Gamma(df/2) / (sqrt(df/2) Gamma((df-1)/2)).

    0 where undefined (df = 1).
    """
    if df < 2:
        return 0.0
    return math.exp(math.lgamma(df / 2) - math.lgamma((df - 1) / 2)) / math.sqrt(df / 2)


def power_of_paired_t(effect: float, n: int, *, alpha: float = 0.05, sides: Sides = 2) -> float:
    """Probability that a paired t test on n seeds finds a true d_z of `effect` (>= 0)."""
    from scipy import stats

    if n < 2:
        return 0.0
    shift = abs(effect) * math.sqrt(n)
    critical = stats.t.ppf(1 - alpha / sides, n - 1)
    power = 1 - noncentral_t_cdf(critical, n - 1, shift)
    if sides == 2:
        power += noncentral_t_cdf(-critical, n - 1, shift)
    return float(min(power, 1.0))


def minimum_detectable_effect(
    std: float, n: int, *, alpha: float = 0.05, power: float = 0.8, sides: Sides = 2
) -> float:
    """Smallest true mean difference that n paired seeds with this spread of differences find with this power.

    In the metric's unit; infinite below two seeds.
    """
    from scipy import optimize

    if n < 2:
        return math.inf
    if std == 0:
        return 0.0
    high = 1.0
    while power_of_paired_t(high, n, alpha=alpha, sides=sides) < power:
        high *= 2
    effect = optimize.brentq(lambda d: power_of_paired_t(d, n, alpha=alpha, sides=sides) - power, 0.0, high)
    return float(effect) * std
