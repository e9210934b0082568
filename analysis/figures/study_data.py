"""What figures draw from: a study's arms, their looks and labels, and values by metric, arm and seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from analysis.figures.style import ArmLook, arm_looks, shorten_apart
from pipeline.records import RunRecord, StudyManifest

if TYPE_CHECKING:
    from analysis.comparisons import Comparison


@dataclass(frozen=True)
class MetricInfo:
    """A metric as axes name it."""

    name: str
    label: str  # what readers see, e.g. "PSNR"
    unit: str
    direction: str  # "max" | "min" | "none"
    role: str  # "primary" | "secondary" | "cost"


@dataclass(frozen=True)
class StudyData:
    """A study as figures see it. `values[metric][arm][seed]` holds finite numbers only; what is missing is absent."""

    manifest: StudyManifest
    metrics: tuple[MetricInfo, ...]
    values: Mapping[str, Mapping[str, Mapping[int, float]]]
    runs: Mapping[str, Mapping[int, RunRecord]]  # records of finished runs, by arm and seed
    trivial: frozenset[str]  # arms that follow a rule and learn nothing
    estimates: Mapping[str, Mapping[str, Estimate]]  # metric -> arm, for outcomes
    comparisons: Mapping[str, Mapping[str, Comparison]]  # metric -> arm, against the reference arm, for outcomes
    unjudged: Mapping[str, str]  # outcome -> why nothing is concluded from it; those without a reason are absent

    @cached_property
    def arms(self) -> tuple[str, ...]:
        """Arm names in the order of the study file."""
        return tuple(arm.name for arm in self.manifest.arms)

    @cached_property
    def labels(self) -> dict[str, str]:
        """Arm name -> what readers see."""
        return {arm.name: arm.label for arm in self.manifest.arms}

    def short_label(self, arm: str, width: int = 34) -> str:
        """An arm's label in at most `width` characters, different from every other arm's."""
        return dict(zip(self.labels, shorten_apart(list(self.labels.values()), width), strict=True))[arm]

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
        """Costs the study is not about, in the order of the vocabulary: at use first, then of training."""
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
class Estimate:
    """A mean over seeds (and test images) with its 95 % interval; `low` and `high` are None where nothing can be said."""

    mean: float
    low: float | None
    high: float | None
    seeds: int
    images: int  # test images resampled with the seeds; 1 where only run values are known


def estimate(values: Sequence[float]) -> Estimate:
    """Student's t interval of the mean of run values; one value gives no interval, none raises ValueError.

    Sound for the two to five seeds of usual studies, where percentile bootstraps are far too narrow.
    """
    n = len(values)
    if n == 0:
        raise ValueError("an estimate needs at least one value")
    mean = math.fsum(values) / n
    if n == 1:
        return Estimate(mean, None, None, 1, 1)
    from scipy import stats

    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))  # ddof = 1
    half = float(stats.t.ppf(0.975, n - 1)) * spread / math.sqrt(n)
    return Estimate(mean, mean - half, mean + half, n, 1)


def interval_in_words(marks: Sequence[tuple[str, Estimate]]) -> str:
    """Say what the intervals of a figure's marks, each with its label, cover; what covers less than the others is named."""
    drawn = [(label, item) for label, item in marks if item.low is not None]
    if not drawn:
        return "One seed and no values by image: no interval can be drawn."
    bare = _named("One seed and no values by image, hence no bar", [label for label, item in marks if item.low is None])
    counts = [item.images for _, item in drawn if item.images > 1]
    images = f"{_range(counts)} test images" if counts else ""
    one = [label for label, item in drawn if item.seeds == 1]
    if len(one) == len(drawn):
        return f"Bars: 95 % intervals over {images}. One seed: they do not cover training noise.{bare}"
    alone = [label for label, item in drawn if item.images == 1]
    if len(one) + len(alone) == len(drawn):
        over, alone = "over seeds (Student's t)", []
    else:
        over = f"over seeds and {images}"
    less = _named("No values by image, hence over seeds alone", alone)
    narrow = _named("Of one seed, hence over test images alone (narrower: training noise is not in them)", one)
    return f"Bars: 95 % intervals, {over}.{less}{narrow}{bare}"


def bandless_in_words(seeds: Mapping[str, int]) -> str:
    """Name the lines, by label with their seeds, that have no band among others that have one."""
    return _named("One seed, hence no band", [label for label, count in seeds.items() if count == 1])


def _named(words: str, labels: Sequence[str]) -> str:
    """A sentence more for those it names, "" for none."""
    return f" {words}: {', '.join(labels)}." if labels else ""


def _range(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


def seeds_in_words(counts: Sequence[int]) -> str:
    """Say how many seeds stand behind numbers: "n = 3 seeds" or "n = 2 to 3 seeds"."""
    return f"n = {_range(counts)} seed{'s' if max(counts) != 1 else ''}"
