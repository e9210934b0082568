"""Arms against each other: every arm with its interval, and differences from the reference (forest plot)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.figures.model import Drawing, NotDrawable
from analysis.figures.study_data import Estimate, MetricInfo, StudyData, interval_in_words, seeds_in_words
from analysis.figures.style import INK, MUTED, ArmLook, arrow, axis_label, number, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_arms(data: StudyData, metric: MetricInfo) -> Drawing:
    """One row an arm: a small mark a seed, the mean, its 95 % interval. Raises NotDrawable without values."""
    import matplotlib.pyplot as plt

    values = data.by_arm(metric.name)
    if not values:
        raise NotDrawable(f"no arm has a value of {metric.label}")
    arms = [arm for arm in data.arms if arm in values]
    figure, axes = plt.subplots(figsize=(5.4, 0.9 + 0.36 * len(arms)))
    estimates = data.estimates[metric.name]
    for row, arm in enumerate(arms):
        look, found = data.looks[arm], estimates[arm]
        if found.seeds > 1:
            rows = [row] * found.seeds
            axes.plot(values[arm], rows, look.marker, color=look.colour, alpha=0.35, markersize=4, mew=0.8)
        _interval_mark(axes, row, found.mean, found.low, found.high, look)
        _beside(axes, row, number(found.mean))
    _mark_reference(axes, data, metric.name)
    _arm_rows(axes, data, arms)
    axes.set_xlabel(axis_label(metric.label, metric.unit, metric.direction))
    axes.margins(x=0.08)
    counts = [estimates[arm].seeds for arm in arms]
    shown = "Large marks: means over seeds; small marks: single seeds." if max(counts) > 1 else "Marks: single runs."
    missing = [data.labels[arm] for arm in data.arms if arm not in values]
    words = "; ".join(f"{data.labels[arm]} {number(estimates[arm].mean)}" for arm in arms)
    return Drawing(
        figure,
        title=f"{metric.label} by arm",
        caption=_sentences(
            shown,
            interval_in_words([(data.labels[arm], estimates[arm]) for arm in arms]),
            f"{seeds_in_words(counts)}.",
            _left_out(missing),
        ),
        alt=f"{metric.label}{arrow(metric.direction)} by arm: {words}.",
    )


def draw_forest(data: StudyData, metric: MetricInfo) -> Drawing:
    """One row an arm: its difference from the reference arm, paired by seed (and test image where recorded).

    Raises NotDrawable without a reference arm, without such pairs and where a metric's segmenter cannot judge.
    """
    import matplotlib.pyplot as plt

    reference = data.reference
    if metric.name in data.unjudged:
        raise NotDrawable(data.unjudged[metric.name])
    if reference is None:
        raise NotDrawable("the study names no reference arm")
    if reference not in data.by_arm(metric.name):
        raise NotDrawable(f"the reference arm has no value of {metric.label}")
    found = {arm: item for arm, item in data.comparisons[metric.name].items() if arm not in data.trivial}
    if not found:
        raise NotDrawable("no other learned arm shares a seed with the reference arm")
    figure, axes = plt.subplots(figsize=(5.4, 0.95 + 0.36 * len(found)))
    words, deltas = [], {}
    for row, (arm, item) in enumerate(found.items()):
        low, high = (item.interval.lower, item.interval.upper) if item.interval else (None, None)
        images = item.interval.images if item.interval else 1
        deltas[arm] = Estimate(item.difference, low, high, len(item.seeds), images)
        _interval_mark(axes, row, item.difference, low, high, data.looks[arm])
        text = number(item.difference, 3, sign=True)
        if low is not None and high is not None:
            text += f"  [{number(low, 3, sign=True)}, {number(high, 3, sign=True)}]"
        _beside(axes, row, f"{text} {item.stars}".strip())
        words.append(f"{data.labels[arm]} {text}")
    axes.axvline(0, color=INK, linewidth=0.9)
    _arm_rows(axes, data, list(found))
    axes.margins(x=0.1)
    _better_side(axes, metric.direction)
    unit = f" [{metric.unit}]" if metric.unit else ""
    axes.set_xlabel(f"difference in {metric.label}{unit} from {shorten(data.labels[reference], 28)}")
    starred = any(item.stars for item in found.values())
    skipped = [data.labels[arm] for arm in data.arms if arm not in (reference, *found) and arm not in data.trivial]
    return Drawing(
        figure,
        title=f"Change in {metric.label} against the reference",
        caption=_sentences(
            f"Each arm minus {data.labels[reference]}, paired by seed, {seeds_in_words([d.seeds for d in deltas.values()])}.",
            interval_in_words([(data.labels[arm], item) for arm, item in deltas.items()]),
            "Stars: * p < 0.05, ** p < 0.01, *** p < 0.001, paired test, Holm-corrected over the arms."
            if starred
            else "",
            _left_out(skipped),
        ),
        alt=f"Difference in {metric.label} from {data.labels[reference]}: " + "; ".join(words) + ".",
    )


def _interval_mark(axes: Axes, row: int, mean: float, low: float | None, high: float | None, look: ArmLook) -> None:
    if low is not None and high is not None:
        axes.plot([low, high], [row, row], color=look.colour, linewidth=2.4, solid_capstyle="round")
    axes.plot([mean], [row], look.marker, color=look.colour, markersize=7.5, mec="white", mew=0.9)


def _beside(axes: Axes, row: int, text: str) -> None:
    """Write a value right of the plot, in its row."""
    axes.annotate(text, (1.02, row), xycoords=("axes fraction", "data"), va="center", color=INK, fontsize=8)


def _arm_rows(axes: Axes, data: StudyData, arms: list[str]) -> None:
    """Label the rows, first arm on top."""
    axes.set_yticks(range(len(arms)), [data.short_label(arm) for arm in arms])
    for tick, arm in zip(axes.get_yticklabels(), arms, strict=True):
        tick.set_fontweight("bold" if arm == data.reference else "normal")
    axes.set_ylim(len(arms) - 0.45, -0.55)
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _mark_reference(axes: Axes, data: StudyData, metric: str) -> None:
    """A thin line at the reference arm's mean."""
    found = data.estimates[metric].get(data.reference or "")
    if data.reference is not None and found is not None:
        axes.axvline(found.mean, color=data.looks[data.reference].colour, linewidth=0.9, alpha=0.55, dashes=(4, 3))


def _better_side(axes: Axes, direction: str) -> None:
    """Write which side of zero is better, above the plot."""
    if direction == "none":
        return
    side, text, x = ("right", "better →", 1.0) if direction == "max" else ("left", "← better", 0.0)
    axes.annotate(text, (x, 1.01), xycoords="axes fraction", ha=side, va="bottom", color=MUTED, fontsize=8)


def _left_out(labels: list[str]) -> str:
    return f"Without a value, so left out: {', '.join(labels)}." if labels else ""


def _sentences(*parts: str) -> str:
    return " ".join(part for part in parts if part)
