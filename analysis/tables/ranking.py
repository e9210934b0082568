"""Best, second and ties of a column: by direction, with ties marked as ties."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from analysis.comparisons import generator_for
from analysis.statistics.tests import Method, paired_test
from analysis.tables.model import Rank


def rank(means: Mapping[str, float], direction: str, decimals: int, scale: float) -> dict[str, Rank]:
    """Rank of each row by its mean; rows that print the same number share a rank.

    Empty below two rows or without direction.
    """
    if direction not in ("max", "min") or len(means) < 2:
        return {}
    printed = {row: round(mean / scale, decimals) for row, mean in means.items()}
    order = sorted(set(printed.values()), reverse=direction == "max")
    if len(order) == 1:
        return {}  # all equal: nothing is best
    words: tuple[Rank, ...] = ("best", "second")
    return {row: words[order.index(value)] for row, value in printed.items() if order.index(value) < 2}


def ties_with_best(
    values: Mapping[str, Mapping[int, float]],
    ranks: Mapping[str, Rank],
    names: Sequence[str],
    *,
    alpha: float,
    method: Method,
) -> set[str]:
    """Rows that are not the best, yet whose paired difference to it is not significant at alpha (uncorrected).

    Rows that are `untested` are not called ties: nothing is known about them.
    """
    best = _best(ranks)
    if best is None:
        return set()
    ties = set()
    left_out = untested(values, ranks)
    for row, of_row in values.items():
        if ranks.get(row) == "best" or row in left_out:
            continue
        seeds = sorted(set(of_row) & set(values[best]))
        differences = [of_row[seed] - values[best][seed] for seed in seeds]
        result = paired_test(differences, generator_for(*names, row, best), method=method)
        if result.p_value >= alpha:
            ties.add(row)
    return ties


def untested(values: Mapping[str, Mapping[int, float]], ranks: Mapping[str, Rank]) -> set[str]:
    """Rows that are not the best and share fewer than two seeds with it: no test can tell whether they are as good."""
    best = _best(ranks)
    if best is None:
        return set()
    return {
        row for row, seeds in values.items() if ranks.get(row) != "best" and len(set(seeds) & set(values[best])) < 2
    }


def of_one_seed(values: Mapping[str, Mapping[int, float]]) -> set[str]:
    """Rows with one seed where others have more."""
    lone = {row for row, seeds in values.items() if len(seeds) == 1}
    return lone if len(lone) < len(values) else set()


def _best(ranks: Mapping[str, Rank]) -> str | None:
    return next((row for row, rank_ in ranks.items() if rank_ == "best"), None)
