"""Main effects and interactions of a factorial study: which factor moves the metric, and does it depend on another?

Ordinary least squares with sum-to-zero contrasts. Seeds enter as blocks (every cell has the same seeds), so that the
spread between seeds does not hide the factors. Sums of squares are partial (type III); in the balanced designs that
studies plan, all types agree. A run that a factor does not enter (a conditional one: no attention loss without attention) counts
at the mean of that factor's levels, so it tells of the other factors and the factor's effects are those of the runs that have it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class TermTest:
    """One line of the analysis of variance."""

    term: str  # "factor", "factor:factor" or "seed"
    df: int
    sum_of_squares: float
    f: float | None  # None without residual degrees of freedom
    p_value: float | None
    partial_eta_squared: float | None


@dataclass(frozen=True)
class LevelEffect:
    """What a level (or a pair of levels) adds to the grand mean, in the metric's unit."""

    term: str
    levels: tuple[str, ...]
    effect: float
    standard_error: float | None
    mean: float  # mean of the values with these levels


@dataclass(frozen=True)
class Factorial:
    """Analysis of one metric over a factorial."""

    tests: tuple[TermTest, ...]
    effects: tuple[LevelEffect, ...]
    grand_mean: float
    residual_df: int
    residual_std: float | None
    n: int
    left_out: tuple[str, ...] = ()  # interactions that cannot be estimated: the rest holds where there are none


def analyse_factorial(
    data: pd.DataFrame, factors: Sequence[str], *, value: str = "value", block: str | None = "seed", order: int = 2
) -> Factorial:
    """Analyse `data`, one row a run: columns `factors`, `value`, and the block (None: no blocks).

    Levels are text, missing where the factor does not enter. `order` 1 gives main effects, 2 also the interactions of two factors
    that can be estimated. Raises ValueError when a factor has one level, when a value is not finite, or when cells are missing
    so that a main effect cannot be estimated.
    """
    values = data[value].to_numpy(dtype=np.float64)
    if len(values) == 0 or not np.isfinite(values).all():
        raise ValueError("a factorial needs finite values")
    columns = {factor: _texts(data[factor]) for factor in factors}
    if block is not None and len(set(data[block])) > 1:
        columns[block] = _texts(data[block])
    for factor in factors:
        if len(_levels(columns[factor])) < 2:
            raise ValueError(f"factor {factor!r} has one level only")
    coded = {name: _sum_coded(levels) for name, levels in columns.items()}
    mains: list[tuple[str, ...]] = [(factor,) for factor in factors]
    blocks: list[tuple[str, ...]] = [(block,)] if block is not None and block in coded else []
    pairs: list[tuple[str, ...]] = [
        pair for pair in itertools.combinations(factors, 2) if order >= 2 and _meet(*(columns[name] for name in pair))
    ]
    design = {term: _product([coded[name] for name in term]) for term in (*mains, *pairs, *blocks)}
    alone = {term: design[term] for term in (*mains, *blocks)}
    if confounded := [":".join(term) for term in alone if not _estimable(term, alone)]:
        raise ValueError(f"cells are missing, so that the effects of {', '.join(confounded)} cannot be told apart")
    # Judged beside all others: of two interactions that these runs cannot tell apart, neither is named as the one there is.
    left_out = [term for term in pairs if not _estimable(term, design)]
    terms = [*mains, *(term for term in pairs if term not in left_out), *blocks]
    design = {term: design[term] for term in terms}
    full = np.hstack([np.ones((len(values), 1)), *design.values()])
    coefficients, residual = _fit(full, values)
    residual_df = len(values) - full.shape[1]
    variance = residual / residual_df if residual_df > 0 else None
    tests = tuple(_test(term, design, values, residual, residual_df) for term in terms)
    covariance = np.linalg.inv(full.T @ full)
    effects: list[LevelEffect] = []
    start = 1
    for term in terms:
        width = design[term].shape[1]
        if term not in blocks:
            part = slice(start, start + width)
            effects += _effects(term, columns, values, coefficients[part], covariance[part, part], variance)
        start += width
    residual_std = float(np.sqrt(variance)) if variance is not None else None
    return Factorial(
        tests,
        tuple(effects),
        float(coefficients[0]),
        residual_df,
        residual_std,
        len(values),
        tuple(":".join(term) for term in left_out),
    )


def _texts(levels: pd.Series) -> np.ndarray:
    """Levels as text, None where the factor does not enter."""
    return np.array([None if pd.isna(level) else str(level) for level in levels], dtype=object)


def _levels(levels: np.ndarray) -> list[str]:
    return sorted({level for level in levels if level is not None})


def _meet(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether both factors vary among the runs that have both: else there is nothing between them that could interact."""
    both = [(one, other) for one, other in zip(first, second, strict=True) if one is not None and other is not None]
    return all(len(set(levels)) > 1 for levels in zip(*both, strict=True)) if both else False


def _estimable(term: tuple[str, ...], design: dict[tuple[str, ...], np.ndarray]) -> bool:
    """Whether all columns of a term stand apart from those of the others."""
    intercept = np.ones((len(design[term]), 1))
    others = np.hstack([intercept, *(columns for name, columns in design.items() if name != term)])
    both = np.hstack([others, design[term]])
    return int(np.linalg.matrix_rank(both)) - int(np.linalg.matrix_rank(others)) == design[term].shape[1]


def _contrasts(count: int) -> np.ndarray:
    """Sum-to-zero contrasts (count, count - 1): the last level is minus the sum of the others."""
    return np.vstack([np.eye(count - 1), -np.ones((1, count - 1))])


def _sum_coded(levels: np.ndarray) -> np.ndarray:
    names = _levels(levels)
    contrasts = np.vstack(
        [_contrasts(len(names)), np.zeros((1, len(names) - 1))]
    )  # the last: at the mean of the levels
    return contrasts[[len(names) if level is None else names.index(level) for level in levels]]


def _product(parts: list[np.ndarray]) -> np.ndarray:
    """Columns of an interaction: all products of the columns of its factors, shape (runs, product of widths)."""
    product = parts[0]
    for part in parts[1:]:
        product = (product[:, :, None] * part[:, None, :]).reshape(len(product), -1)
    return product


def _fit(design: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, float]:
    coefficients, *_ = np.linalg.lstsq(design, values, rcond=None)
    return coefficients, float(((values - design @ coefficients) ** 2).sum())


def _test(
    term: tuple[str, ...],
    design: dict[tuple[str, ...], np.ndarray],
    values: np.ndarray,
    residual: float,
    residual_df: int,
) -> TermTest:
    from scipy import stats

    others = [columns for name, columns in design.items() if name != term]
    _, without = _fit(np.hstack([np.ones((len(values), 1)), *others]), values)
    squares, df = max(without - residual, 0.0), design[term].shape[1]
    eta = squares / (squares + residual) if squares + residual > 0 else None
    if residual_df <= 0 or residual <= 0:
        return TermTest(":".join(term), df, squares, None, None, eta)
    f = (squares / df) / (residual / residual_df)
    return TermTest(":".join(term), df, squares, f, float(stats.f.sf(f, df, residual_df)), eta)


def _effects(
    term: tuple[str, ...],
    columns: dict[str, np.ndarray],
    values: np.ndarray,
    coefficients: np.ndarray,
    covariance: np.ndarray,
    variance: float | None,
) -> list[LevelEffect]:
    """Effects of all level combinations of a term, recovered from its sum-to-zero coefficients."""
    names = [_levels(columns[factor]) for factor in term]
    basis = _contrasts(len(names[0]))
    for levels in names[1:]:
        basis = np.kron(basis, _contrasts(len(levels)))
    results = []
    for row, combination in zip(basis, itertools.product(*names), strict=True):
        chosen = np.all([columns[factor] == level for factor, level in zip(term, combination, strict=True)], axis=0)
        error = float(np.sqrt(row @ covariance @ row * variance)) if variance is not None else None
        mean = float(values[chosen].mean())
        results.append(LevelEffect(":".join(term), combination, float(row @ coefficients), error, mean))
    return results
