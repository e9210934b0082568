"""One metric of a study from every side: summaries, differences, effect sizes, power, equivalence, factors, correlations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.comparisons import Comparison, compare, correct
from analysis.frame import Study
from analysis.judging import why_unjudged
from analysis.labels import metric_label
from analysis.statistics import (
    Correlation,
    EffectSize,
    Equivalence,
    Factorial,
    Summary,
    analyse_factorial,
    correlate_metrics,
    effect_size,
    minimum_detectable_effect,
    summarise,
    tost,
)
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
    equivalence: Equivalence | None


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
    factorial: Factorial | None  # only where the study crosses at least two factors, without holes
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
    units = [unit for item in gathered.values() for unit in item.units]
    return Overview(
        study=study.name,
        metric=name,
        label=metric_label(name),
        unit=units[0] if units else "",
        direction={"max": "higher", "min": "lower"}.get(direction, "neither"),
        reference=study.reference.label if study.reference is not None else "nothing (no reference arm)",
        level=level,
        within=within,
        lines=tuple(
            _line(row, values, by_arm.get(row.key), level, within, len(by_arm)) for row in rows if row.key in values
        ),
        factorial=None if unjudged else _factorial(study, values),
        correlations=_correlations(study),
        warnings=(
            *([f"{metric_label(name)} compares nothing: {unjudged}."] if unjudged and name != aim else []),
            *warnings(study, rows, min(len(item) for item in values.values())),
        ),
    )


def _line(
    row: RowPlan,
    values: dict[str, dict[int, float]],
    comparison: Comparison | None,
    level: float,
    within: float | None,
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
        equivalence=tost(differences, -within, within) if paired and within is not None else None,
    )


def _factorial(study: Study, values: dict[str, dict[int, float]]) -> Factorial | None:
    """The analysis of variance, where at least two factors vary and no term is confounded."""
    rows = [
        {**arm.levels, "seed": seed, "value": value}
        for arm in study.manifest.arms
        for seed, value in values.get(arm.name, {}).items()
    ]
    data = pd.DataFrame(rows).dropna()
    factors = [name for name in data.columns if name not in ("seed", "value") and data[name].nunique() > 1]
    if len(factors) < 2:
        return None
    try:
        return analyse_factorial(data, factors)
    except ValueError:
        return None  # one factor at a time, or holes: interactions cannot be told


def _correlations(study: Study) -> tuple[Correlation, ...]:
    frame = study.frame
    names = [item.name for item in study.manifest.metrics]
    judged = [name for name in names if not why_unjudged(study, name, (arm.name for arm in study.manifest.arms))]
    home = frame[
        (frame["status"] == "ok")
        & (frame["state"] == "trained")
        & (frame["run_state"] == "finished")
        & (frame["protocol"] == study.manifest.protocol)
        & (frame["split"] == study.manifest.split)
        & frame["metric"].isin(judged)
    ]
    if home.duplicated(["run_id", "metric"]).any():
        return ()  # several versions of a metric: the table refuses them, and so does this
    wide = home.pivot(index="run_id", columns="metric", values="value")
    return tuple(item for item in correlate_metrics(wide) if item.coefficient is not None)
