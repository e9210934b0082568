"""Robustness: a metric against the strength of a corruption of the mask, one panel a corruption.

Rows are recognised by their name, `robust_<metric>_<kind>_<level>` (level in percent or as a decimal number); level 0 is
the clean mask. Rows without a number at the end (areas under these curves) are no points of a curve.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analysis.figures.model import Drawing, NotDrawable
from analysis.figures.study_data import StudyData, bandless_in_words, estimate, seeds_in_words
from analysis.figures.style import axis_label, number, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CORRUPTED = re.compile(r"^robust_(?P<metric>[a-z0-9]+)_(?P<kind>[a-z_]+?)[_@=]+(?P<level>[0-9]+(?:\.[0-9]+)?)$")


@dataclass(frozen=True)
class CorruptedMetric:
    """A metric under one kind of corruption: `levels` maps strength to the full row name, ascending."""

    metric: str
    kind: str
    levels: dict[float, str]


def corrupted_metrics(names: Iterable[str]) -> list[CorruptedMetric]:
    """Find the robustness curves among row names, sorted by metric and kind; curves of one point are left out."""
    found: dict[tuple[str, str], dict[float, str]] = {}
    for name in names:
        match = CORRUPTED.match(name)
        if match:
            found.setdefault((match["metric"], match["kind"]), {})[float(match["level"])] = name
    return [CorruptedMetric(*key, dict(sorted(rows.items()))) for key, rows in sorted(found.items()) if len(rows) > 1]


def draw_robustness(data: StudyData) -> Drawing:
    """Draw all corruptions of one metric, the primary one where it has any. Raises NotDrawable without rows."""
    import matplotlib.pyplot as plt

    curves = corrupted_metrics(data.values)
    if not curves:
        raise NotDrawable("no run was evaluated under graded noise of the mask (a protocol with the group robustness)")
    names = [item.metric for item in curves]
    chosen = data.primary.name if data.primary and data.primary.name in names else names[0]
    panels = [item for item in curves if item.metric == chosen]
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    size = (1.1 + 2.3 * columns, 0.8 + 2.1 * rows)
    figure, grid = plt.subplots(rows, columns, figsize=size, sharey=True, squeeze=False)
    words: list[str] = []
    counts: dict[str, list[int]] = {}
    for axes, panel in zip(grid.flat, panels, strict=False):
        _panel(axes, data, panel, words, counts)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    known = {metric.name: metric for metric in data.metrics}
    label = axis_label(known[chosen].label, known[chosen].unit, known[chosen].direction) if chosen in known else chosen
    for row in grid:
        row[0].set_ylabel(label)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(3, len(labels)))
    seeds = [count for of_arm in counts.values() for count in of_arm]
    bands = ""
    if max(seeds) > 1:
        bands = " Bands: 95 % intervals over seeds (Student's t)."
        bands += bandless_in_words({data.labels[arm]: max(of_arm) for arm, of_arm in counts.items()})
    return Drawing(
        figure,
        title=f"{known[chosen].label if chosen in known else chosen} under noise of the mask",
        caption=f"Strength 0 is the clean mask. Lines: means over seeds, {seeds_in_words(seeds)}.{bands}",
        alt="; ".join(words) + ".",
    )


def _panel(axes: Axes, data: StudyData, panel: CorruptedMetric, words: list[str], counts: dict[str, list[int]]) -> None:
    """Draw one kind of corruption; adds what it shows to `words` and the seeds behind its points to `counts`, by arm."""
    by_level = {level: data.by_arm(name) for level, name in panel.levels.items()}
    for arm in data.arms:
        points = [(level, estimate(values[arm])) for level, values in by_level.items() if arm in values]
        if not points:
            continue
        look, levels = data.looks[arm], [level for level, _ in points]
        means = [point.mean for _, point in points]
        counts.setdefault(arm, []).extend(point.seeds for _, point in points)
        low = [point.mean if point.low is None else point.low for _, point in points]
        high = [point.mean if point.high is None else point.high for _, point in points]
        axes.fill_between(levels, low, high, color=look.colour, alpha=0.14, linewidth=0)
        axes.plot(
            levels,
            means,
            color=look.colour,
            linestyle=look.dash,
            marker=look.marker,
            markersize=4,
            label=data.short_label(arm, 30),
        )
        ends = f"{number(means[0])} at {levels[0]:g}, {number(means[-1])} at {levels[-1]:g}"
        words.append(f"{panel.kind}, {data.labels[arm]}: {ends}")
    axes.set_title(shorten(panel.kind.replace("_", " "), 26), fontweight="normal")
    axes.set_xlabel("strength")
