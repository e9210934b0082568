"""Robustness: a metric against the strength of a corruption of the mask, one panel a corruption.

Rows are recognised by their name: `<metric>@<corruption>=<level>`, level 0 or the plain metric being the clean mask.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from analysis.figures.model import Drawing, NotDrawable
from analysis.figures.study_data import StudyData, interval, seeds_in_words
from analysis.figures.style import axis_label, shorten

CORRUPTED = re.compile(r"^(?P<metric>[^@=]+)@(?P<corruption>[^@=]+)=(?P<level>[0-9]+(?:\.[0-9]+)?)$")


@dataclass(frozen=True)
class CorruptedMetric:
    """A metric under one corruption: `levels` maps strength to the full row name."""

    metric: str
    corruption: str
    levels: dict[float, str]


def corrupted_metrics(names: list[str]) -> list[CorruptedMetric]:
    """Find the corrupted versions of metrics among row names, sorted by metric and corruption."""
    found: dict[tuple[str, str], dict[float, str]] = {}
    for name in names:
        match = CORRUPTED.match(name)
        if match:
            found.setdefault((match["metric"], match["corruption"]), {})[float(match["level"])] = name
    for (metric, _), levels in found.items():
        if metric in names:
            levels.setdefault(0.0, metric)
    return [CorruptedMetric(*key, dict(sorted(levels.items()))) for key, levels in sorted(found.items())]


def draw_robustness(data: StudyData) -> Drawing:
    """Draw all corruptions of the first metric that has any, the primary one first. Raises NotDrawable without rows."""
    import matplotlib.pyplot as plt

    everything = [item for item in corrupted_metrics(sorted(data.values)) if len(item.levels) > 1]
    if not everything:
        raise NotDrawable("no metric was measured at graded corruptions of the mask (rows named metric@corruption=level)")
    names = [item.metric for item in everything]
    chosen = data.primary.name if data.primary and data.primary.name in names else names[0]
    panels = [item for item in everything if item.metric == chosen]
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(1.1 + 2.3 * columns, 0.7 + 2.1 * rows), sharey=True, squeeze=False)
    words, counts = [], []
    for axes, panel in zip(grid.flat, panels, strict=False):
        for arm in data.arms:
            points = [
                (level, interval(data.by_arm(name)[arm]))
                for level, name in panel.levels.items()
                if arm in data.by_arm(name)
            ]
            if not points:
                continue
            look, levels = data.looks[arm], [level for level, _ in points]
            counts.extend(point.n for _, point in points)
            low = [point.mean if point.low is None else point.low for _, point in points]
            high = [point.mean if point.high is None else point.high for _, point in points]
            axes.fill_between(levels, low, high, color=look.colour, alpha=0.14, linewidth=0)
            axes.plot(
                levels,
                [point.mean for _, point in points],
                color=look.colour,
                linestyle=look.dash,
                marker=look.marker,
                markersize=4,
                label=shorten(data.labels[arm], 30),
            )
            words.append(
                f"{panel.corruption}, {data.labels[arm]}: {points[0][1].mean:.4g} at {levels[0]:g}, "
                f"{points[-1][1].mean:.4g} at {levels[-1]:g}"
            )
        axes.set_title(shorten(panel.corruption.replace("_", " "), 26), fontweight="normal")
        axes.set_xlabel("strength")
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    known = {metric.name: metric for metric in data.metrics}
    label = axis_label(chosen, known[chosen].unit, known[chosen].direction) if chosen in known else chosen
    for row in grid:
        row[0].set_ylabel(label)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(3, len(labels)))
    return Drawing(
        figure,
        title=f"{chosen} under corrupted masks",
        caption=f"Lines are means over seeds, bands 95 % intervals of the mean (from two seeds on), {seeds_in_words(counts)}.",
        alt="; ".join(words) + ".",
    )
