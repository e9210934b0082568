"""Learning curves: validation metrics over training, one line an arm, a band over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from analysis.figures.model import Drawing, NotDrawable
from analysis.figures.study_data import MetricInfo, StudyData, bandless_in_words, seeds_in_words
from analysis.figures.style import axis_label, number


@dataclass(frozen=True)
class Curve:
    """One arm's learning curve on the iterations that at least one of its seeds was validated at."""

    arm: str
    iterations: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float | None, ...]  # ddof = 1 over seeds; None where fewer than two seeds have a value
    n: tuple[int, ...]  # seeds behind each point
    dropped: int  # values that were not finite


def learning_curve(data: StudyData, arm: str, metric: str, kind: str = "val") -> Curve | None:
    """Collect an arm's curve from the histories of its runs; None when no history carries the metric."""
    found: dict[int, dict[int, float]] = {}
    dropped = 0
    for seed, run in data.runs.get(arm, {}).items():
        for row in run.history():
            value, iteration = row.get(metric), row.get("iteration")
            if row.get("kind") != kind or not isinstance(iteration, int) or not isinstance(value, int | float):
                continue
            if not math.isfinite(value):
                dropped += 1
                continue
            found.setdefault(iteration, {})[seed] = float(value)
    if not found:
        return None
    iterations = tuple(sorted(found))
    rows = [list(found[iteration].values()) for iteration in iterations]
    means = tuple(math.fsum(row) / len(row) for row in rows)
    return Curve(
        arm=arm,
        iterations=iterations,
        mean=means,
        std=tuple(_std(row, mean) for row, mean in zip(rows, means, strict=True)),
        n=tuple(len(row) for row in rows),
        dropped=dropped,
    )


def _std(row: list[float], mean: float) -> float | None:
    return math.sqrt(math.fsum((value - mean) ** 2 for value in row) / (len(row) - 1)) if len(row) > 1 else None


def learning_curves(data: StudyData, metric: str) -> dict[str, Curve]:
    """Curves of all learned arms that have one."""
    curves = {arm: learning_curve(data, arm, metric) for arm in data.arms if arm not in data.trivial}
    return {arm: curve for arm, curve in curves.items() if curve is not None}


def draw_learning(data: StudyData, metric: MetricInfo) -> Drawing:
    """Draw the validation curves of one metric. Raises NotDrawable when no finished run was validated twice."""
    import matplotlib.pyplot as plt

    curves = learning_curves(data, metric.name)
    if not curves or max(len(curve.iterations) for curve in curves.values()) < 2:
        raise NotDrawable(f"no finished run recorded {metric.label} at two or more validations")
    figure, axes = plt.subplots(figsize=(5.8, 3.3))
    for arm, curve in curves.items():
        look = data.looks[arm]
        low = [mean - (std or 0.0) for mean, std in zip(curve.mean, curve.std, strict=True)]
        high = [mean + (std or 0.0) for mean, std in zip(curve.mean, curve.std, strict=True)]
        if max(curve.n) > 1:
            axes.fill_between(curve.iterations, low, high, color=look.colour, alpha=0.16, linewidth=0)
        axes.plot(
            curve.iterations,
            curve.mean,
            color=look.colour,
            linestyle=look.dash,
            marker=look.marker,
            markersize=4,
            markevery=max(1, len(curve.iterations) // 8),
            label=data.short_label(arm, 30),
        )
    for arm in sorted(data.trivial & set(data.arms)):  # a level to beat, not a curve
        level = data.mean(metric.name, arm)
        if level is not None:
            look = data.looks[arm]
            axes.axhline(level, color=look.colour, linestyle=look.dash, label=data.short_label(arm, 30))
    axes.set_xlabel("iteration")
    axes.set_ylabel(axis_label(metric.label, metric.unit, metric.direction))
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02))
    counts = {arm: max(curve.n) for arm, curve in curves.items()}
    band = "One run a line."
    if max(counts.values()) > 1:
        band = "Lines are means over seeds, bands ± one standard deviation."
        band += bandless_in_words({data.labels[arm]: count for arm, count in counts.items()})
    return Drawing(
        figure,
        title=f"{metric.label} during training",
        caption=f"On the validation images. {band} {seeds_in_words(list(counts.values()))}.{_dropped(curves)}",
        alt=f"Validation {metric.label} over iterations: "
        + "; ".join(
            f"{data.labels[arm]} from {number(curve.mean[0])} to {number(curve.mean[-1])}"
            for arm, curve in curves.items()
        )
        + ".",
    )


def _dropped(curves: Mapping[str, Curve]) -> str:
    count = sum(curve.dropped for curve in curves.values())
    return f" {count} values that were not finite are not drawn." if count else ""
