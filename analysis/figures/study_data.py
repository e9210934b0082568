"""What figures draw from: a study's arms, their looks and labels, and values by metric, arm and seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from analysis.figures.style import ArmLook, arm_looks
from pipeline.errors import UserError
from pipeline.records import RunRecord, StudyManifest

if TYPE_CHECKING:
    import pandas as pd

    from analysis.frame import Study


@dataclass(frozen=True)
class MetricInfo:
    """A metric as axes name it."""

    name: str
    unit: str
    direction: str  # "max" | "min" | "none"
    role: str  # "primary" | "secondary" | "cost"


@dataclass(frozen=True)
class StudyData:
    """A study as figures see it. `values[metric][arm][seed]` holds finite numbers only; what is missing is absent."""

    manifest: StudyManifest
    metrics: tuple[MetricInfo, ...]
    values: Mapping[str, Mapping[str, Mapping[int, float]]]
    runs: Mapping[str, Mapping[int, RunRecord]]  # existing records by arm and seed
    trivial: frozenset[str]  # arms that follow a rule and learn nothing

    @cached_property
    def arms(self) -> tuple[str, ...]:
        """Arm names in the order of the study file."""
        return tuple(arm.name for arm in self.manifest.arms)

    @cached_property
    def labels(self) -> dict[str, str]:
        """Arm name -> what readers see."""
        return {arm.name: arm.label for arm in self.manifest.arms}

    @cached_property
    def reference(self) -> str | None:
        """Name of the reference arm, if the study has one."""
        return next((arm.name for arm in self.manifest.arms if arm.reference), None)

    @cached_property
    def looks(self) -> dict[str, ArmLook]:
        """Colour, marker and dash of each arm, the same in all figures."""
        return arm_looks(self.arms, reference=self.reference, trivial=[arm for arm in self.arms if arm in self.trivial])

    @cached_property
    def primary(self) -> MetricInfo | None:
        """The first primary metric."""
        return next((metric for metric in self.metrics if metric.role == "primary"), None)

    @cached_property
    def outcomes(self) -> tuple[MetricInfo, ...]:
        """Primary and secondary metrics, costs left out."""
        return tuple(metric for metric in self.metrics if metric.role != "cost")

    @cached_property
    def costs(self) -> tuple[MetricInfo, ...]:
        """Cost columns: parameters, FLOPs, throughput, device time."""
        return tuple(metric for metric in self.metrics if metric.role == "cost")

    def metric(self, name: str) -> MetricInfo:
        """The metric with this name; KeyError when the study has none."""
        for metric in self.metrics:
            if metric.name == name:
                return metric
        raise KeyError(name)

    def by_arm(self, metric: str) -> dict[str, list[float]]:
        """Values of a metric per arm in seed order; arms without any value are absent."""
        found = self.values.get(metric, {})
        return {arm: [found[arm][seed] for seed in sorted(found[arm])] for arm in self.arms if found.get(arm)}

    def mean(self, metric: str, arm: str) -> float | None:
        """Mean over seeds, or None without values."""
        values = self.by_arm(metric).get(arm)
        return math.fsum(values) / len(values) if values else None


@dataclass(frozen=True)
class Interval:
    """A mean with the 95 % interval of the mean over seeds; `low` and `high` are None below two values."""

    mean: float
    low: float | None
    high: float | None
    n: int


def interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Student's t interval of the mean (sound for the two to five seeds of usual studies, where percentile bootstraps
    are far too narrow). Values must be finite; one value gives no interval, none raises ValueError.
    """
    if not values:
        raise ValueError("an interval needs at least one value")
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return Interval(mean, None, None, 1)
    from scipy import stats

    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))  # ddof = 1
    half = float(stats.t.ppf(0.5 + level / 2, n - 1)) * spread / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def paired_differences(values: Mapping[int, float], reference: Mapping[int, float]) -> list[float]:
    """Differences to the reference arm at the seeds both have, in seed order."""
    return [values[seed] - reference[seed] for seed in sorted(values) if seed in reference]


def seeds_in_words(counts: Sequence[int]) -> str:
    """Say how many seeds stand behind numbers: "n = 3 seeds" or "n = 2 to 3 seeds"."""
    low, high = min(counts), max(counts)
    if low == high:
        return f"n = {low} seed" + ("s" if low != 1 else "")
    return f"n = {low} to {high} seeds"


def from_study(study: Study) -> StudyData:
    """Take what figures need out of a loaded study: the rows its tables use, its costs, and mask-corruption rows.

    Raises UserError where one metric carries two fingerprints: such numbers may not share an axis.
    """
    manifest, frame = study.manifest, study.frame
    good = frame[(frame["status"] == "ok") & (frame["state"] == "trained") & frame["value"].notna()]
    scoped = good[(good["protocol"] == manifest.protocol) & (good["split"] == manifest.split)]
    corrupted = good[(good["split"] == manifest.split) & good["metric"].str.contains("@", regex=False)]
    costs = good[(good["split"] == "") & good["direction"].isin(["max", "min"])]
    values: dict[str, dict[str, dict[int, float]]] = {}
    facts: dict[str, tuple[str, str]] = {}
    for part in (corrupted, costs, scoped):  # the study's own protocol has the last word on a name
        for metric, rows in part.groupby("metric", sort=True):
            name = str(metric)
            refuse_mixed_fingerprints(name, rows)
            by_arm: dict[str, dict[int, float]] = {}
            for arm, seed, value in rows[["arm", "seed", "value"]].itertuples(index=False, name=None):
                by_arm.setdefault(str(arm), {})[int(seed)] = float(value)
            values[name] = by_arm
            facts[name] = (str(rows["unit"].iloc[0]), str(rows["direction"].iloc[0]))
    declared = [
        MetricInfo(metric.name, facts.get(metric.name, ("", ""))[0], metric.direction, metric.role)
        for metric in manifest.metrics
    ]
    names = {metric.name for metric in declared}
    paid = [MetricInfo(str(name), *facts[str(name)], "cost") for name in sorted(set(costs["metric"]) - names)]
    runs: dict[str, dict[int, RunRecord]] = {}
    for arm, seed, run_id in study.runs[["arm", "seed", "run_id"]].itertuples(index=False, name=None):
        record = study.store.record(str(run_id))
        if record.exists:
            runs.setdefault(str(arm), {})[int(seed)] = record
    kinds: dict[str, set[str]] = {}
    for arm, kind in study.runs[["arm", "kind"]].itertuples(index=False, name=None):
        kinds.setdefault(str(arm), set()).add(str(kind))
    trivial = frozenset(arm for arm, kind in kinds.items() if kind == {"rule"})
    return StudyData(manifest, (*declared, *paid), values, runs, trivial)


def refuse_mixed_fingerprints(metric: str, rows: pd.DataFrame) -> None:
    """Raise UserError when rows of one metric were measured in two ways, naming a run of each."""
    examples = rows.drop_duplicates("fingerprint")
    if len(examples) > 1:
        runs = ", ".join(str(run_id)[:10] for run_id in examples["run_id"])
        raise UserError(
            f"{metric} was measured in {len(examples)} ways (fingerprints differ, e.g. in runs {runs}): evaluate them again "
            "under one protocol before they share a figure"
        )
