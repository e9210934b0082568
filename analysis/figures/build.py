"""Which figures a study gets: each is drawn where the data allow it, else named with the reason."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from analysis.figures.access import arms_with_access, draw_access
from analysis.figures.comparison import draw_arms, draw_forest
from analysis.figures.curves import draw_learning
from analysis.figures.grids import draw_attention, draw_edits, draw_reconstructions
from analysis.figures.interaction import crossed_factors, draw_interaction
from analysis.figures.model import Drawing, FigureSet, LeftOut, NotDrawable, Picture, render
from analysis.figures.robustness import draw_robustness
from analysis.figures.samples import Choice, SampleSet, choose_samples, study_samples
from analysis.figures.study_data import MetricInfo, StudyData
from analysis.figures.tradeoff import draw_correlation, draw_pareto
from pipeline.errors import UserError, nearest
from pipeline.progress import LongStep

MAX_METRICS = 6  # metrics drawn unless others are named: the primary ones and then the first secondary ones


@dataclass(frozen=True)
class Options:
    """What a user may choose about figures."""

    pick: str  # rule that chooses inputs of grids: "spread" | "first" | "seed:N"
    rows: int  # inputs a grid shows
    metrics: tuple[str, ...] = ()  # outcomes to draw, in this order; none: the first `MAX_METRICS`
    only: tuple[str, ...] = ()  # figures to draw, by name; none: all


@dataclass(frozen=True)
class _Planned:
    name: str
    title: str
    draw: Callable[[], Drawing]


def build_figures(data: StudyData, options: Options) -> FigureSet:
    """Draw every figure the study has data for. Raises UserError for unreadable samples, a wrong rule, metric or name."""
    pictures: list[Picture] = []
    left_out: list[LeftOut] = []
    plans = _named(_plan(data, options), options.only)
    shown = LongStep("drawing figures", len(plans))
    for done, plan in enumerate(plans):
        shown.update(done)
        try:
            pictures.append(render(plan.name, plan.draw))
        except NotDrawable as reason:
            left_out.append(LeftOut(plan.name, plan.title, str(reason)))
    shown.update(len(plans))
    return FigureSet(tuple(pictures), tuple(left_out))


def _named(plans: list[_Planned], names: Sequence[str]) -> list[_Planned]:
    known = {plan.name: plan for plan in plans}
    for name in names:
        if name not in known:
            raise UserError(f"figure {name}: unknown{nearest(name, list(known))}; there are: {', '.join(known)}")
    return [known[name] for name in names or known]


def _plan(data: StudyData, options: Options) -> list[_Planned]:
    samples = study_samples(data)
    choice = choose_samples(data, samples, options.pick, options.rows) if samples else None
    plans = [
        _Planned("reconstructions", "Reconstructions", partial(_grid, draw_reconstructions, data, samples, choice))
    ]
    metrics = _metrics(data, options.metrics)
    stems = _stems([metric.name for metric in data.outcomes])
    for metric in metrics:
        stem = stems[metric.name]
        plans += [
            _Planned(f"arms_{stem}", f"{metric.label} by arm", partial(draw_arms, data, metric)),
            _Planned(
                f"deltas_{stem}",
                f"Change in {metric.label} against the reference",
                partial(draw_forest, data, metric),
            ),
            _Planned(f"learning_{stem}", f"{metric.label} during training", partial(draw_learning, data, metric)),
        ]
    plans += [
        _Planned("pareto", "Quality against cost", partial(draw_pareto, data)),
        _Planned("correlation", "Do the metrics agree?", partial(draw_correlation, data)),
        _Planned("robustness", "Robustness to mask noise", partial(draw_robustness, data)),
    ]
    if data.primary is not None:
        plans.append(_Planned("interaction", "Interaction of factors", partial(draw_interaction, data, data.primary)))
    if crossed_factors(data):
        plans += [
            _Planned(
                f"interaction_{stems[metric.name]}",
                f"Interaction of factors in {metric.label}",
                partial(draw_interaction, data, metric),
            )
            for metric in metrics
            if metric is not data.primary
        ]
    of_arms = _stems(data.arms)
    plans += [
        _Planned(f"access_{of_arms[arm]}", f"Access learned: {data.labels[arm]}", partial(draw_access, data, arm))
        for arm in arms_with_access(data)
    ]
    plans += [
        _Planned("attention", "Attention by class", partial(_grid, draw_attention, data, samples, choice)),
        _Planned("edits", "Edits", partial(_grid, draw_edits, data, samples, choice)),
    ]
    return plans


def _metrics(data: StudyData, named: Sequence[str]) -> list[MetricInfo]:
    outcomes = [metric for metric in data.outcomes if "@" not in metric.name]
    outcomes.sort(key=lambda metric: metric.role != "primary")
    if not named:
        return outcomes[:MAX_METRICS]
    known = {metric.name: metric for metric in outcomes}
    for name in named:
        if name not in known:
            raise UserError(
                f"--metric {name}: not an outcome of study {data.manifest.name}{nearest(name, list(known))}; "
                f"it has {', '.join(known)}"
            )
    return [known[name] for name in dict.fromkeys(named)]


def _stems(names: Sequence[str]) -> dict[str, str]:
    """Each of some different names as the stem of a file; those that look alike ("lr=1e-4", "lr=1e+4") end in a digest."""
    plain = {name: re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") for name in names}
    times = Counter(plain.values())
    digests = {name: hashlib.sha256(name.encode()).hexdigest()[:8] for name in names}
    return {
        name: stem if stem and times[stem] == 1 else f"{stem}_{digests[name]}".lstrip("_")
        for name, stem in plain.items()
    }


def _grid(
    draw: Callable[[StudyData, SampleSet, Choice], Drawing],
    data: StudyData,
    samples: SampleSet | None,
    choice: Choice | None,
) -> Drawing:
    if samples is None or choice is None:
        raise NotDrawable(f"no finished run kept sample images under protocol {data.manifest.protocol}")
    return draw(data, samples, choice)
