"""Quality against cost with the Pareto front, and how the metrics of a study agree with each other."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from analysis.figures.model import Drawing, NotDrawable
from analysis.figures.study_data import MetricInfo, StudyData, estimate, interval_in_words, seeds_in_words
from analysis.figures.style import MUTED, axis_label, wrap
from analysis.statistics import correlation


def pareto_front(points: Mapping[str, tuple[float, float]], cost: str, quality: str) -> list[str]:
    """Names of the points that no other point beats: not worse in both and better in one, by direction ("max" | "min").

    Returned in order of growing x. Equal points are all on the front or all off it.
    """

    def gains(point: tuple[float, float]) -> tuple[float, float]:
        return (point[0] if cost == "max" else -point[0], point[1] if quality == "max" else -point[1])

    scores = {name: gains(point) for name, point in points.items()}
    front = [
        name
        for name, (cheap, good) in scores.items()
        if not any(c >= cheap and g >= good and (c > cheap or g > good) for c, g in scores.values())
    ]
    return sorted(front, key=lambda name: (points[name][0], points[name][1]))


def choose_cost(data: StudyData) -> MetricInfo | None:
    """The first cost in which at least two learned arms differ: what a reader pays at use comes first."""
    for metric in data.costs:
        means = {arm: data.mean(metric.name, arm) for arm in data.by_arm(metric.name) if arm not in data.trivial}
        if metric.direction in ("max", "min") and len(set(means.values())) > 1:
            return metric
    return None


def draw_pareto(data: StudyData) -> Drawing:
    """Primary metric against cost, the front as a step line.

    Raises NotDrawable below two arms with both, and where nothing is concluded from the metric.
    """
    import matplotlib.pyplot as plt
    from matplotlib.ticker import EngFormatter

    quality, cost = data.primary, choose_cost(data)
    if quality is None or quality.direction == "none":
        raise NotDrawable("the study has no primary metric with a direction")
    if quality.name in data.unjudged:
        raise NotDrawable(data.unjudged[quality.name])
    if cost is None:
        raise NotDrawable("no cost column differs between at least two learned arms")
    costs, values = data.by_arm(cost.name), data.by_arm(quality.name)
    arms = [arm for arm in data.arms if arm in costs and arm in values and arm not in data.trivial]
    if len(arms) < 2:
        raise NotDrawable(f"fewer than two learned arms have both {quality.label} and {cost.label}")
    absent = [data.labels[arm] for arm in data.arms if arm not in arms and arm not in data.trivial]
    estimates = data.estimates[quality.name]
    points = {arm: (estimate(costs[arm]).mean, estimates[arm].mean) for arm in arms}
    front = pareto_front(points, cost.direction, quality.direction)
    figure, axes = plt.subplots(figsize=(5.6, 3.4))
    if len(front) > 1:
        # Going along x the attainable quality changes at the next point of the front when cheaper lies to the left.
        step = "post" if cost.direction == "min" else "pre"
        axes.step(*zip(*(points[arm] for arm in front), strict=True), where=step, color=MUTED, linewidth=1, zorder=1)
    counts = []
    for arm in arms:
        look, bar = data.looks[arm], estimates[arm]
        counts.append(bar.seeds)
        x, y = points[arm]
        if bar.low is not None and bar.high is not None:
            axes.plot([x, x], [bar.low, bar.high], color=look.colour, linewidth=1.8, zorder=2)
        face = look.colour if arm in front else "white"
        axes.plot([x], [y], look.marker, color=look.colour, mfc=face, markersize=8, mew=1.5, zorder=3, linestyle="none",
                  label=data.short_label(arm, 30))  # fmt: skip
    xs = [point[0] for point in points.values()]
    if min(xs) > 0 and max(xs) / min(xs) > 20:
        axes.set_xscale("log")
    axes.margins(0.1)
    if max(abs(x) for x in xs) >= 1e4:
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel(axis_label(cost.label, cost.unit, cost.direction))
    axes.set_ylabel(axis_label(quality.label, quality.unit, quality.direction))
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02))
    return Drawing(
        figure,
        title=f"{quality.label} against {cost.label[:1].lower() + cost.label[1:]}",
        caption=(
            "Filled marks lie on the Pareto front (no other arm is at least as good in both and better in one); the "
            f"grey line is that front. {interval_in_words([(data.labels[arm], estimates[arm]) for arm in arms])} "
            f"{seeds_in_words(counts)}."
            + (f" Without comparable values of both, so left out: {', '.join(absent)}." if absent else "")
        ),
        alt=f"On the Pareto front of {quality.label} and {cost.label}: {', '.join(data.labels[arm] for arm in front)}.",
    )


def draw_correlation(data: StudyData) -> Drawing:
    """Spearman correlation of metrics over runs of learned arms. Raises NotDrawable below two metrics and three runs."""
    import matplotlib.pyplot as plt

    unjudged = [metric for metric in data.outcomes if metric.name in data.unjudged]
    flat = {
        metric.name: {
            (arm, seed): value
            for arm, seeds in data.values.get(metric.name, {}).items()
            if arm not in data.trivial
            for seed, value in seeds.items()
        }
        for metric in data.outcomes
        if metric.name not in data.unjudged
    }
    names = [name for name, values in flat.items() if len(values) >= 3]
    if len(names) < 2:
        raise NotDrawable("fewer than two metrics have values in at least three runs")
    table: list[list[float | None]] = []
    fewest = math.inf
    for row in names:
        line = []
        for column in names:
            shared = sorted(set(flat[row]) & set(flat[column]))
            fewest = min(fewest, len(shared))
            first, second = (np.array([flat[name][key] for key in shared]) for name in (row, column))
            line.append(correlation(first, second)[0])
        table.append(line)
    if all(value is None for r, line in enumerate(table) for c, value in enumerate(line) if r != c):
        raise NotDrawable("no two metrics vary together over at least three runs")
    size = 1.5 + 0.62 * len(names)
    figure, axes = plt.subplots(figsize=(size + 1.0, size))
    image = axes.imshow(
        [[math.nan if value is None else value for value in line] for line in table], cmap="RdBu", vmin=-1, vmax=1
    )
    for r, line in enumerate(table):
        for c, value in enumerate(line):
            text = "–" if value is None else f"{value:+.2f}".replace("-", "−")
            light = value is not None and abs(value) > 0.6
            axes.text(c, r, text, ha="center", va="center", color="white" if light else "#1F2733", fontsize=8)
    label = {metric.name: metric.label for metric in data.outcomes}
    ticks = [wrap(label[name], 14) for name in names]
    axes.set_xticks(range(len(names)), ticks, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), ticks)
    axes.grid(False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    figure.colorbar(image, ax=axes, shrink=0.8, label="Spearman's ρ")
    pairs = [
        f"{label[names[r]]} and {label[names[c]]} {table[r][c]:+.2f}"
        for r in range(len(names))
        for c in range(r)
        if table[r][c] is not None
    ]
    return Drawing(
        figure,
        title="Do the metrics agree?",
        caption=(
            f"Spearman's rank correlation over runs of learned arms (at least {fewest:.0f} runs a pair; a dash where "
            "one of the two does not vary). A metric where less is better correlates negatively with one where more is better. "
            "Runs of one arm are alike, not independent: this describes these runs."
            + "".join(f" Left out is {item.label}: {data.unjudged[item.name]}." for item in unjudged)
        ),
        alt="Rank correlations: " + "; ".join(pairs) + ".",
    )
