"""Interaction plot of a factorial study: does the effect of one factor depend on the level of another?"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from analysis.figures.model import Drawing, NotDrawable
from analysis.figures.study_data import MetricInfo, StudyData, estimate
from analysis.figures.style import DASHES, MARKERS, MUTED, PALETTE, axis_label, shorten, shorten_apart, wrap

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes

MAX_PANELS = 6


def crossed_factors(data: StudyData) -> list[tuple[str, str]]:
    """Pairs of factors of which at least two levels each occur in all combinations, in the study's order."""
    levels: dict[str, dict[str, None]] = {}
    for arm in data.manifest.arms:
        for factor, level in arm.levels.items():
            levels.setdefault(factor, {})[level] = None
    crossed = []
    for first, second in itertools.combinations(levels, 2):
        present = {
            (arm.levels[first], arm.levels[second])
            for arm in data.manifest.arms
            if first in arm.levels and second in arm.levels
        }
        complete = all(pair in present for pair in itertools.product(levels[first], levels[second]))
        if complete and len(levels[first]) > 1 and len(levels[second]) > 1:
            crossed.append((first, second))
    return crossed


def _levels(data: StudyData, factor: str) -> list[str]:
    """The levels of a factor: numbers by size, others in the order of the study's arms, whose first is the reference."""
    found = list(dict.fromkeys(arm.levels[factor] for arm in data.manifest.arms if factor in arm.levels))
    try:
        return sorted(found, key=float)
    except ValueError:
        return found


def _draw_panel(
    axes: Axes, data: StudyData, values: Mapping[str, list[float]], factors: tuple[str, str]
) -> tuple[list[str], list[int]]:
    """The first factor along x, a line a level of the second. What it says in words, and the runs behind each mark."""
    first, second = factors
    along, lines = _levels(data, first), _levels(data, second)
    words: list[str] = []
    counts: list[int] = []
    for index, line in enumerate(lines):
        points = []
        for place, level in enumerate(along):
            pool = [
                value
                for arm in data.manifest.arms
                if arm.levels.get(first) == level and arm.levels.get(second) == line
                for value in values.get(arm.name, [])
            ]
            if pool:
                points.append((place, estimate(pool)))
        if not points:
            continue
        counts.extend(point.seeds for _, point in points)
        colour = PALETTE[index % len(PALETTE)]
        shift = (index - (len(lines) - 1) / 2) * 0.05  # keeps intervals of one x apart
        for place, point in points:
            if point.low is not None and point.high is not None:
                axes.plot([place + shift] * 2, [point.low, point.high], color=colour, linewidth=1.8)
        axes.plot(
            [place + shift for place, _ in points],
            [point.mean for _, point in points],
            color=colour,
            linestyle=DASHES[index % len(DASHES)],
            marker=MARKERS[index % len(MARKERS)],
            label=shorten_apart(lines, 24)[index],
        )
        words.append(
            f"{second} {line}: " + ", ".join(f"{first} {along[place]} {point.mean:.4g}" for place, point in points)
        )
    axes.set_xticks(range(len(along)), [wrap(level, 12) for level in along])
    axes.margins(x=0.15)
    axes.set_xlabel(shorten(first, 30))
    # beside the panel: lines of a factorial fill it from top to bottom
    axes.legend(title=shorten(second, 26), fontsize=7.5, title_fontsize=7.5, loc="upper left", bbox_to_anchor=(1, 1))
    return words, counts


def _draw_beside(axes: Axes, means: Mapping[str, float]) -> None:
    """Arms beside the design, by label: a horizontal line each, named below the panel's legend."""
    lines = [
        axes.axhline(
            mean, color=MUTED, linewidth=1.0, linestyle=DASHES[index % len(DASHES)], zorder=0, label=shorten(label, 24)
        )
        for index, (label, mean) in enumerate(means.items())
    ]
    if lines:
        of_panel = axes.get_legend()
        assert of_panel is not None, "drawn with the panel"
        axes.legend(
            handles=lines, title="beside the design", fontsize=7.5, title_fontsize=7.5, loc="lower left",
            bbox_to_anchor=(1, 0),
        )  # fmt: skip
        axes.add_artist(of_panel)
        of_panel.set_clip_on(False)  # it lies outside the axes, and must count when the figure is cropped


def draw_interaction(data: StudyData, metric: MetricInfo) -> Drawing:
    """One panel a pair of crossed factors: the first along x, a line a level of the second. Raises NotDrawable else."""
    import matplotlib.pyplot as plt

    pairs = crossed_factors(data)
    if not pairs:
        raise NotDrawable(f"the design is {data.manifest.design}: no two factors are fully crossed")
    values = data.by_arm(metric.name)
    if not values:
        raise NotDrawable(f"no arm has a value of {metric.label}")
    beside = {
        arm.name: estimate(values[arm.name]).mean
        for arm in data.manifest.arms
        if not arm.levels and not arm.reference and arm.name in values
    }
    shown = pairs[:MAX_PANELS]
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    panel = max(4.0, 0.75 * max(len(_levels(data, first)) for first, _ in shown))  # inches: names along x stay apart
    size = (0.6 + panel * columns, 0.5 + 2.7 * rows)
    figure, grid = plt.subplots(rows, columns, figsize=size, sharey=True, squeeze=False)
    words: list[str] = []
    counts: list[int] = []
    for axes, factors in zip(grid.flat, shown, strict=False):
        said, runs = _draw_panel(axes, data, values, factors)
        words += said
        counts += runs
        _draw_beside(axes, {data.labels[arm]: mean for arm, mean in beside.items()})
    words += [f"beside the design, {data.labels[arm]}: {mean:.4g}" for arm, mean in beside.items()]
    for axes in grid.flat[len(shown) :]:
        axes.set_visible(False)
    for row in grid:
        row[0].set_ylabel(axis_label(metric.label, metric.unit, metric.direction))
    more = f" The first {MAX_PANELS} of {len(pairs)} pairs of factors are drawn." if len(pairs) > MAX_PANELS else ""
    lines_beside = " Horizontal lines: means of the arms beside the design." if beside else ""
    return Drawing(
        figure,
        title=f"Interaction of factors in {metric.label}",
        caption=(
            "Parallel lines mean that the factors add up; crossing or fanning lines mean that they interact. "
            f"Marks are means over seeds and over the other factors' levels, bars 95 % intervals of the mean; "
            f"{min(counts)} to {max(counts)} runs behind a mark.{lines_beside}{more}"
        ),
        alt="; ".join(words) + ".",
    )
