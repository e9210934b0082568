"""One metric of a study from every side: summaries, differences, effect sizes, power, equivalence, factors, correlations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.comparisons import Comparison, compare, correct
from analysis.judging import why_unjudged
from analysis.labels import metric_label
from analysis.statistics import (
    Correlation,
    EffectSize,
    Factorial,
    Summary,
    analyse_factorial,
    correlate_metrics,
    effect_size,
    holm,
    minimum_detectable_effect,
    summarise,
)
from analysis.study import Study
from analysis.tables import TableSpec
from analysis.tables.gather import Gatherer
from analysis.tables.layout import RowPlan, plan_columns, plan_rows
from analysis.tables.notes import warnings
from analysis.tables.spec import ColumnSpec
from pipeline.errors import UserError, nearest


@dataclass(frozen=True)
class Line:
    """One arm. What needs a reference or two seeds is None without them."""

    arm: str
    label: str
    summary: Summary
    comparison: Comparison | None
    effect: EffectSize | None
    detectable: float | None  # smallest difference this many seeds find with power 0.8 at Holm's strictest step
    p_within: float | None  # of "it differs by more than `within`", Holm-corrected over the arms; None below two seeds


@dataclass(frozen=True)
class Overview:
    """All arms on one metric."""

    study: str
    metric: str
    label: str
    unit: str
    direction: str
    reference: str
    level: float
    within: float | None
    lines: tuple[Line, ...]
    factorial: Factorial | None
    about_factors: tuple[str, ...]  # which runs the analysis is of, and what it cannot tell; none below two factors
    correlations: tuple[Correlation, ...]
    warnings: tuple[str, ...]


def overview(study: Study, metric: str | None = None, *, level: float = 0.95, within: float | None = None) -> Overview:
    """Everything about one metric (default: the primary one). Raises UserError when nothing of it was recorded."""
    name = metric or (study.primary.name if study.primary is not None else None)
    if name is None:
        raise UserError(f"study {study.name!r} declares no primary metric; name one with --metric")
    known = sorted(set(study.frame["metric"]))
    if name not in known:
        raise UserError(f"study {study.name!r} has no metric {name!r}{nearest(name, known)}")
    spec = TableSpec(metrics=[ColumnSpec(metric=name)])
    rows = plan_rows(study, spec)
    column = plan_columns(study, spec, rows)[0][0]
    gatherer = Gatherer(study)
    fingerprint = gatherer.settle_fingerprint([row.arms[""] for row in rows], column)
    gathered = {row.key: gatherer.gather(row.key, column, fingerprint) for row in rows}
    values = {arm: item.values for arm, item in gathered.items() if item.values}
    if not values:
        raise UserError(f"study {study.name!r}: no finished run has a value of {name!r}")
    directions = [direction for item in gathered.values() for direction in item.directions]
    direction = column.direction or (directions[0] if directions else "none")
    unjudged = why_unjudged(study, name, values)
    aim = study.primary.name if study.primary is not None else None  # of which the warnings of every table speak
    reference = study.reference.name if study.reference is not None and not unjudged else None
    found = [
        compare(study, name, direction, row.key, reference, values, fingerprint=fingerprint, level=level)
        for row in rows
        if reference is not None and row.key in values and row.key != reference and row.kind != "baseline"
    ]
    by_arm = {item.arm: item for item in correct([item for item in found if item is not None])}
    alike = _alike(by_arm, within) if within is not None else {}
    units = [unit for item in gathered.values() for unit in item.units]
    factorial, about_factors = (None, ()) if unjudged else _factorial(study, rows, values)
    correlations, unlike = _correlations(study, rows, gatherer)
    return Overview(
        study=study.title,
        metric=name,
        label=metric_label(name),
        unit=units[0] if units else "",
        direction={"max": "higher", "min": "lower"}.get(direction, "neither"),
        reference=study.reference.label if study.reference is not None else "nothing (no reference arm)",
        level=level,
        within=within,
        lines=tuple(
            _line(row, values, by_arm.get(row.key), level, alike.get(row.key), len(by_arm))
            for row in rows
            if row.key in values
        ),
        factorial=factorial,
        about_factors=about_factors,
        correlations=correlations,
        warnings=(
            *([f"{metric_label(name)} compares nothing: {unjudged}."] if unjudged and name != aim else []),
            *([f"Rank correlations are without {', '.join(unlike)}: its runs share no one version."] if unlike else []),
            *warnings(study, rows, min(len(item) for item in values.values())),
        ),
    )


def _line(
    row: RowPlan,
    values: dict[str, dict[int, float]],
    comparison: Comparison | None,
    level: float,
    p_within: float | None,
    family: int,
) -> Line:
    differences = comparison.differences if comparison is not None else ()
    paired = len(differences) > 1
    varied = paired and len(set(differences)) > 1
    spread = float(np.std(differences, ddof=1)) if paired else 0.0
    return Line(
        arm=row.key,
        label=row.label,
        summary=summarise(values[row.key].values()),
        comparison=comparison,
        effect=effect_size(differences, level=level) if varied else None,
        detectable=minimum_detectable_effect(spread, len(differences), alpha=0.05 / family) if paired else None,
        p_within=p_within,
    )


def _alike(by_arm: Mapping[str, Comparison], within: float) -> dict[str, float]:
    """By arm of two seeds or more, the corrected p-value of "it differs by more than `within`": as claims of equivalence judge."""
    testable = {
        arm: item.interval for arm, item in by_arm.items() if item.test is not None and item.interval is not None
    }
    return dict(zip(testable, holm([interval.p_within(within)[0] for interval in testable.values()]), strict=True))


def _factorial(
    study: Study, rows: list[RowPlan], values: dict[str, dict[int, float]]
) -> tuple[Factorial | None, tuple[str, ...]]:
    """The analysis of variance, None where it cannot be had, and what to know of it: which runs it is of, what it cannot tell."""
    design = [arm for arm in study.manifest.arms if arm.levels]
    names = list(dict.fromkeys(name for arm in design for name in arm.levels))
    if len(names) < 2:
        return None, ()
    rules = [row.key for row in rows if row.kind == "baseline"]  # their seeds are repeats: no spread to judge by
    learned = [arm for arm in design if arm.name not in rules]
    data = pd.DataFrame(
        [
            {**arm.levels, "seed": seed, "value": value}
            for arm in learned
            for seed, value in values.get(arm.name, {}).items()
        ],
        columns=[*names, "seed", "value"],
    )
    planned = Counter(cell.arm for cell in study.manifest.cells)
    known = {arm.name: len(values.get(arm.name, {})) for arm in learned}
    about = [f"n = {len(data)} of the design's {sum(planned[arm.name] for arm in design)} runs"]
    if repeats := sum(planned[arm.name] for arm in design if arm.name in rules):
        about.append(f"{repeats} are of rules, which learn nothing")
    if lacking := {
        arm.label: planned[arm.name] - known[arm.name] for arm in learned if planned[arm.name] > known[arm.name]
    }:
        named = _some([f"{label}: {count}" for label, count in lacking.items()])
        about.append(f"{sum(lacking.values())} have no value of the metric ({named})")
    about = [f"{'; '.join(about)}."]
    for name in names:
        if others := [arm.label for arm in learned if name not in arm.levels and known[arm.name]]:
            about.append(f"{name} does not enter {_some(others)}: their runs tell of the other factors alone.")
    varied = [name for name in names if data[name].nunique() > 1]
    about += [
        f"Nothing is told of {name}: these runs have one level of it." for name in names if data[name].nunique() == 1
    ]
    if not varied:
        return None, (*about, "No analysis of variance: no factor varies among these runs.")
    try:
        found = analyse_factorial(data, varied)
    except ValueError as error:
        return None, (*about, f"No analysis of variance: {error}.")
    if found.left_out:
        alone = "These" if any(":" in item.term for item in found.tests) else "Main effects alone: these"
        lost = _some(list(found.left_out))
        about.append(f"{alone} runs cannot tell {lost}, and the effects shown hold only where there are none.")
    if found.residual_df <= 0:
        about.append("No test: these runs have as many effects as values; more seeds would give a spread to judge by.")
    return found, tuple(about)


def _some(labels: list[str], most: int = 4) -> str:
    return ", ".join(labels[:most]) + (f" and {len(labels) - most} more" if len(labels) > most else "")


def _correlations(study: Study, rows: list[RowPlan], gatherer: Gatherer) -> tuple[tuple[Correlation, ...], list[str]]:
    """Rank correlations of the plan's metrics over the runs of learned arms, by the values that tables have.

    A rule would count its one value once a seed. The second: metrics left out, as a table would refuse them.
    """
    arms = [arm.name for arm in study.manifest.arms]
    found: dict[str, dict[tuple[str, int], float]] = {}
    unlike = []
    for column in plan_columns(study, TableSpec(metrics=["study"]), rows)[0]:
        if column.kind != "metric" or why_unjudged(study, column.metric, arms):
            continue
        try:
            fingerprint = gatherer.settle_fingerprint([row.arms[""] for row in rows], column)
        except UserError:
            unlike.append(column.label)
            continue
        found[column.metric] = {
            (row.key, seed): value
            for row in rows
            if row.kind != "baseline"
            for seed, value in gatherer.gather(row.key, column, fingerprint).values.items()
        }
    wide = pd.DataFrame({name: pd.Series(values, dtype=float) for name, values in found.items()})
    return tuple(item for item in correlate_metrics(wide) if item.coefficient is not None), unlike
