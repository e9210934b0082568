"""From a loaded study to what its figures draw: the values its tables have, costs, mask-corruption rows, intervals."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from analysis.comparisons import Comparison, compare, correct
from analysis.figures.study_data import Estimate, MetricInfo, StudyData, estimate
from analysis.judging import why_unjudged
from analysis.labels import metric_label
from analysis.statistics.intervals import hierarchical_interval
from analysis.study import Study
from analysis.tables.gather import Gatherer
from analysis.tables.layout import ColumnPlan, plan_columns, plan_rows
from analysis.tables.spec import ColumnSpec, TableSpec
from pipeline.records import RunRecord
from pipeline.records.metric_specs import SPECS, find_spec

CORRUPTED = "robust_*"


@dataclass(frozen=True)
class _Measured:
    """One metric as the tables' gatherer finds it; arms without a value are absent."""

    unit: str
    direction: str  # as its rows say, "none" without any
    fingerprint: str
    values: dict[str, dict[int, float]]  # arm -> seed -> value


def figure_data(study: Study) -> StudyData:
    """Take what figures need out of a loaded study: the numbers its tables have, by the tables' own rules.

    Only finished runs count. Scores of two fingerprints are refused; of costs on several kinds of hardware the larger part
    stands. Raises UserError as tables do.
    """
    measured = _measure(study)
    outcomes = tuple(
        MetricInfo(
            item.name,
            metric_label(item.name),
            measured[item.name].unit if item.name in measured else "",
            item.direction,
            item.role,
        )
        for item in study.metrics
    )
    declared = {metric.name for metric in outcomes}
    paid = tuple(
        MetricInfo(name, metric_label(name), measured[name].unit, direction, "cost")
        for name in _costs(study)
        if name not in declared and name in measured
        if (direction := _cheaper(name, measured[name].direction)) != "none"
    )
    trivial = _trivial(study)
    estimates, comparisons = {}, {}
    reasons = {
        item.name: why_unjudged(study, item.name, (arm.name for arm in study.manifest.arms)) for item in outcomes
    }
    unjudged = {name: reason for name, reason in reasons.items() if reason}
    for metric in outcomes:
        item = measured.get(metric.name, _Measured("", "none", "", {}))
        estimates[metric.name] = {
            arm: _estimate(study, metric.name, item.fingerprint, arm, of_arm) for arm, of_arm in item.values.items()
        }
        comparisons[metric.name] = (
            {} if metric.name in unjudged else _comparisons(study, metric, item.fingerprint, item.values, trivial)
        )
    return StudyData(
        manifest=study.manifest,
        metrics=(*outcomes, *paid),
        values={name: item.values for name, item in measured.items()},
        runs=_records(study),
        trivial=trivial,
        estimates=estimates,
        comparisons=comparisons,
        unjudged=unjudged,
    )


def _measure(study: Study) -> dict[str, _Measured]:
    """The study's metrics, every cost, and rows under corrupted masks: of its own protocol where that has them."""
    declared = {metric.name for metric in study.metrics}
    spec = TableSpec(
        metrics=[
            "study",
            *(ColumnSpec(metric=name, cost=True) for name in _costs(study) if name not in declared),
            ColumnSpec(metric=CORRUPTED, protocol="*"),
        ]
    )
    columns, _ = plan_columns(study, spec, plan_rows(study, spec))
    gatherer = Gatherer(study)
    found: dict[str, _Measured] = {}
    for column in sorted(columns, key=lambda column: column.protocol not in ("", study.manifest.protocol)):
        if column.metric not in found and (item := _gather(gatherer, column)).values:
            found[column.metric] = item
    return found


def _gather(gatherer: Gatherer, column: ColumnPlan) -> _Measured:
    arms = [arm.name for arm in gatherer.study.manifest.arms]
    fingerprint = gatherer.settle_fingerprint(arms, column)
    cells = {arm: gatherer.gather(arm, column, fingerprint) for arm in arms}
    return _Measured(
        unit=_first(unit for cell in cells.values() for unit in cell.units),
        direction=_first(word for cell in cells.values() for word in cell.directions) or "none",
        fingerprint=fingerprint or "",
        values={arm: cell.values for arm, cell in cells.items() if cell.values},
    )


def _first(words: Iterable[str]) -> str:
    return next(iter(words), "")


def _costs(study: Study) -> list[str]:
    """Names of recorded rows of no split, in the order of the vocabulary, those of other code last."""
    recorded = {str(name) for name in study.frame.loc[study.frame["split"] == "", "metric"]}
    return [name for name in SPECS if name in recorded] + sorted(recorded - set(SPECS))


def _cheaper(name: str, said: str) -> str:
    spec = find_spec(name)
    return said if spec is None else spec.cheaper


def _estimate(study: Study, metric: str, fingerprint: str, arm: str, values: dict[int, float]) -> Estimate:
    """Over seeds and test images where the per-image values agree with the run values, else over seeds alone."""
    plain = estimate([values[seed] for seed in sorted(values)])
    table = study.per_image(metric, protocol_fingerprint=fingerprint, arms=(arm,))
    table = table[table["seed"].isin(list(values))]
    if table.empty or table.duplicated(["seed", "key"]).any():
        return plain
    wide = table.pivot(index="key", columns="seed", values="value").dropna().sort_index()
    if wide.shape[1] != len(values) or wide.shape[0] < 2:
        return plain
    matrix = wide[sorted(values)].to_numpy(dtype=np.float64).T
    if not np.allclose(matrix.mean(axis=1), [values[seed] for seed in sorted(values)], rtol=1e-4, atol=1e-6):
        return plain
    found = hierarchical_interval(matrix)
    return Estimate(plain.mean, found.lower, found.upper, found.seeds, found.images)


def _comparisons(
    study: Study, metric: MetricInfo, fingerprint: str, values: dict[str, dict[int, float]], trivial: frozenset[str]
) -> dict[str, Comparison]:
    """Every learned arm against the reference arm; Holm's family is the metric."""
    reference = study.reference
    if reference is None:
        return {}
    found = [
        comparison
        for arm in study.manifest.arms
        if not arm.reference
        and arm.name not in trivial
        and (
            comparison := compare(
                study, metric.name, metric.direction, arm.name, reference.name, values, fingerprint=fingerprint
            )
        )
        is not None
    ]
    return {comparison.arm: comparison for comparison in correct(found)}


def _records(study: Study) -> dict[str, dict[int, RunRecord]]:
    """Records of finished runs: curves and pictures of the runs that the numbers are of, and of no others."""
    runs: dict[str, dict[int, RunRecord]] = {}
    finished = study.runs[study.runs["run_state"] == "finished"]
    for arm, seed, run_id in finished[["arm", "seed", "run_id"]].itertuples(index=False, name=None):
        runs.setdefault(str(arm), {})[int(seed)] = study.store.record(str(run_id))
    return runs


def _trivial(study: Study) -> frozenset[str]:
    """The arms that tables show as baselines, whichever of their runs are here."""
    return frozenset(row.key for row in plan_rows(study, TableSpec()) if row.kind == "baseline")
