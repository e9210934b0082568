"""From a loaded study to what its figures draw: the rows its tables use, costs, mask-corruption rows, intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.comparisons import Comparison, compare, correct, generator_for
from analysis.figures.study_data import Estimate, MetricInfo, StudyData, estimate
from analysis.frame import Study
from analysis.labels import metric_label
from analysis.statistics.bootstrap import hierarchical_interval
from pipeline.errors import UserError
from pipeline.records import RunRecord

# Costs whose rows declare no direction although less is cheaper.
CHEAPER_WHEN_SMALLER = frozenset({"params"})

Values = dict[str, dict[str, dict[int, float]]]


def figure_data(study: Study) -> StudyData:
    """Take what figures need out of a loaded study. Only finished runs count, as in tables.

    Raises UserError where one metric carries two fingerprints: such numbers may not share an axis.
    """
    manifest, frame = study.manifest, study.frame
    good = frame[
        (frame["status"] == "ok")
        & (frame["state"] == "trained")
        & (frame["run_state"] == "finished")
        & frame["value"].notna()
    ]
    scoped = good[(good["protocol"] == manifest.protocol) & (good["split"] == manifest.split)]
    declared = {metric.name for metric in manifest.metrics}
    costs = good[(good["split"] == "") & ~good["metric"].isin(list(declared))]
    corrupted = good[(good["split"] == manifest.split) & good["metric"].str.startswith("robust_")]
    values: Values = {}
    facts: dict[str, tuple[str, str, str]] = {}  # unit, direction, fingerprint
    for part in (corrupted, costs, scoped):  # the study's own protocol has the last word on a name
        for key, rows in part.groupby("metric", sort=True):
            name = str(key)
            refuse_mixed_fingerprints(name, rows)
            values[name] = _by_arm(rows)
            first = rows.iloc[0]
            direction = "min" if name in CHEAPER_WHEN_SMALLER else str(first["direction"])
            facts[name] = (str(first["unit"]), direction, str(first["fingerprint"]))
    outcomes = tuple(
        MetricInfo(item.name, metric_label(item.name), facts.get(item.name, ("", "", ""))[0], item.direction, item.role)
        for item in manifest.metrics
    )
    paid = tuple(
        MetricInfo(name, metric_label(name), facts[name][0], facts[name][1], "cost")
        for name in sorted(str(name) for name in set(costs["metric"]))
        if facts[name][1] in ("max", "min")
    )
    trivial = _trivial(study)
    estimates, comparisons = {}, {}
    for metric in outcomes:
        found = values.get(metric.name, {})
        fingerprint = facts[metric.name][2] if metric.name in facts else ""
        estimates[metric.name] = {arm: _estimate(study, metric.name, fingerprint, arm, found[arm]) for arm in found}
        comparisons[metric.name] = _comparisons(study, metric, fingerprint, found, trivial)
    return StudyData(
        manifest=manifest,
        metrics=(*outcomes, *paid),
        values=values,
        runs=_records(study),
        trivial=trivial,
        estimates=estimates,
        comparisons=comparisons,
    )


def refuse_mixed_fingerprints(metric: str, rows: pd.DataFrame) -> None:
    """Raise UserError when rows of one metric were measured in two ways, naming a run of each."""
    examples = rows.drop_duplicates("fingerprint")
    if len(examples) > 1:
        runs = ", ".join(str(run_id)[:10] for run_id in examples["run_id"])
        raise UserError(
            f"{metric} was measured in {len(examples)} ways (fingerprints differ, e.g. in runs {runs}): "
            "evaluate them again under one protocol before they share a figure"
        )


def _by_arm(rows: pd.DataFrame) -> dict[str, dict[int, float]]:
    by_arm: dict[str, dict[int, float]] = {}
    for arm, seed, value in rows[["arm", "seed", "value"]].itertuples(index=False, name=None):
        by_arm.setdefault(str(arm), {})[int(seed)] = float(value)
    return by_arm


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
    found = hierarchical_interval(matrix, generator_for(study.name, metric, arm))
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
    runs: dict[str, dict[int, RunRecord]] = {}
    for arm, seed, run_id in study.runs[["arm", "seed", "run_id"]].itertuples(index=False, name=None):
        record = study.store.record(str(run_id))
        if record.exists:
            runs.setdefault(str(arm), {})[int(seed)] = record
    return runs


def _trivial(study: Study) -> frozenset[str]:
    kinds: dict[str, set[str]] = {}
    for arm, kind in study.runs[["arm", "kind"]].itertuples(index=False, name=None):
        kinds.setdefault(str(arm), set()).add(str(kind))
    return frozenset(arm for arm, kind in kinds.items() if kind == {"rule"})
