"""Arms against each other: every arm with its interval, and differences from the reference (forest plot)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.figures.model import Drawing, NotDrawable
from analysis.figures.study_data import MetricInfo, StudyData, interval, paired_differences, seeds_in_words
from analysis.figures.style import INK, MUTED, arrow, axis_label, number, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NO_INTERVAL = "One seed: no interval can be drawn."


def draw_arms(data: StudyData, metric: MetricInfo) -> Drawing:
    """One row an arm: a dot a seed, the mean, the 95 % interval of the mean. Raises NotDrawable without values."""
    import matplotlib.pyplot as plt

    values = data.by_arm(metric.name)
    if not values:
        raise NotDrawable(f"no arm has a value of {metric.name}")
    arms = [arm for arm in data.arms if arm in values]
    figure, axes = plt.subplots(figsize=(5.4, 0.9 + 0.36 * len(arms)))
    words, counts = [], []
    for row, arm in enumerate(arms):
        look, found = data.looks[arm], interval(values[arm])
        counts.append(found.n)
        if found.n > 1:
            axes.plot(values[arm], [row] * found.n, look.marker, color=look.colour, alpha=0.35, markersize=4, mew=0.8)
        if found.low is not None and found.high is not None:
            axes.plot([found.low, found.high], [row, row], color=look.colour, linewidth=2.4, solid_capstyle="round")
        axes.plot([found.mean], [row], look.marker, color=look.colour, markersize=7.5, mec="white", mew=0.9)
        axes.annotate(
            number(found.mean), (1.02, row), xycoords=("axes fraction", "data"), va="center", color=INK, fontsize=8
        )
        words.append(f"{data.labels[arm]} {number(found.mean)}")
    _mark_reference(axes, data, values)
    _arm_rows(axes, data, arms)
    axes.set_xlabel(axis_label(metric.name, metric.unit, metric.direction))
    axes.margins(x=0.08)
    shown = "Large marks are means over seeds, small marks single seeds, bars 95 % intervals of the mean (Student's t)."
    if max(counts) == 1:
        shown = f"Marks are single runs. {NO_INTERVAL}"
    missing = [data.labels[arm] for arm in data.arms if arm not in values]
    return Drawing(
        figure,
        title=f"{metric.name} by arm",
        caption=f"{shown} {seeds_in_words(counts)}. {_left_out(missing)}".strip(),
        alt=f"{metric.name}{arrow(metric.direction)} by arm: " + "; ".join(words) + ".",
    )


def draw_forest(data: StudyData, metric: MetricInfo) -> Drawing:
    """One row an arm: its difference from the reference arm, paired by seed. Raises NotDrawable without such pairs."""
    import matplotlib.pyplot as plt

    reference = data.reference
    if reference is None:
        raise NotDrawable("the study names no reference arm")
    found = data.values.get(metric.name, {})
    if not found.get(reference):
        raise NotDrawable(f"the reference arm has no value of {metric.name}")
    pairs = {
        arm: paired_differences(found[arm], found[reference])
        for arm in data.arms
        if arm != reference and arm not in data.trivial and found.get(arm)
    }
    pairs = {arm: differences for arm, differences in pairs.items() if differences}
    if not pairs:
        raise NotDrawable("no other learned arm shares a seed with the reference arm")
    figure, axes = plt.subplots(figsize=(5.4, 0.95 + 0.36 * len(pairs)))
    words = []
    for row, (arm, differences) in enumerate(pairs.items()):
        look, delta = data.looks[arm], interval(differences)
        if delta.low is not None and delta.high is not None:
            axes.plot([delta.low, delta.high], [row, row], color=look.colour, linewidth=2.4, solid_capstyle="round")
        axes.plot([delta.mean], [row], look.marker, color=look.colour, markersize=7.5, mec="white", mew=0.9)
        text = number(delta.mean, 3, sign=True)
        if delta.low is not None and delta.high is not None:
            text += f"  [{number(delta.low, 3, sign=True)}, {number(delta.high, 3, sign=True)}]"
        axes.annotate(text, (1.02, row), xycoords=("axes fraction", "data"), va="center", color=INK, fontsize=8)
        words.append(f"{data.labels[arm]} {text}")
    axes.axvline(0, color=INK, linewidth=0.9)
    _arm_rows(axes, data, list(pairs))
    axes.margins(x=0.1)
    _better_side(axes, metric.direction)
    unit = f" [{metric.unit}]" if metric.unit else ""
    axes.set_xlabel(f"difference in {metric.name}{unit} from {shorten(data.labels[reference], 28)}")
    counts = [len(differences) for differences in pairs.values()]
    note = "Bars are 95 % intervals of the mean difference (Student's t), not corrected for the number of arms."
    skipped = [
        data.labels[arm] for arm in data.arms if arm != reference and arm not in pairs and arm not in data.trivial
    ]
    return Drawing(
        figure,
        title=f"Change in {metric.name} against the reference",
        caption=(
            f"Each arm minus the reference arm ({data.labels[reference]}), paired by seed, "
            f"{seeds_in_words(counts)}. {note if max(counts) > 1 else NO_INTERVAL} {_left_out(skipped)}"
        ).strip(),
        alt=f"Difference in {metric.name} from {data.labels[reference]}: " + "; ".join(words) + ".",
    )


def _arm_rows(axes: Axes, data: StudyData, arms: list[str]) -> None:
    """Label the rows, first arm on top."""
    axes.set_yticks(range(len(arms)), [shorten(data.labels[arm]) for arm in arms])
    for tick, arm in zip(axes.get_yticklabels(), arms, strict=True):
        tick.set_fontweight("bold" if arm == data.reference else "normal")
    axes.set_ylim(len(arms) - 0.45, -0.55)
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _mark_reference(axes: Axes, data: StudyData, values: dict[str, list[float]]) -> None:
    """A thin line at the reference arm's mean."""
    if data.reference in values:
        mean = interval(values[data.reference]).mean
        axes.axvline(mean, color=data.looks[data.reference].colour, linewidth=0.9, alpha=0.55, dashes=(4, 3))


def _better_side(axes: Axes, direction: str) -> None:
    """Write which side of zero is better, above the plot."""
    if direction == "none":
        return
    side, sign = ("right", "→") if direction == "max" else ("left", "←")
    text = f"better {sign}" if side == "right" else f"{sign} better"
    axes.annotate(
        text, (1.0 if side == "right" else 0.0, 1.01), xycoords="axes fraction", ha=side, va="bottom", color=MUTED, fontsize=8
    )


def _left_out(labels: list[str]) -> str:
    return f"Without a value, so left out: {', '.join(labels)}." if labels else ""
