"""A study as its tables, figures and claims see it: plan, tidy frame, runs, values of single images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from pipeline.errors import UserError
from pipeline.records import Arm, RunStore, StudyManifest, StudyMetric
from pipeline.records.metric_specs import direction_of
from pipeline.records.store import PER_IMAGE_COLUMNS


@dataclass(frozen=True)
class Study:
    """A study as its tables see it. `frame` and `runs` have the columns that `analysis.columns` documents."""

    out: Path
    manifest: StudyManifest
    frame: pd.DataFrame  # one row per (arm, seed, metric, split, protocol, state)
    runs: pd.DataFrame  # one row per planned run
    imported: pd.DataFrame  # published or imported numbers, columns `analysis.columns.IMPORTED`
    kept: bool = False  # its records are not here: frames alone, as `analysis keep` writes them
    kept_values: pd.DataFrame | None = None  # per-image values of a kept study, where it has any
    place: Path | None = None  # its folder, where that is not called like the study
    only: tuple[str, ...] = ()  # of a part (`analysis.part`): the words that chose its arms
    whole: StudyManifest | None = None  # of a part: the plan that it is a part of

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def title(self) -> str:
        """Its name, and of what it is a part: "photos, data=faces"."""
        return ", ".join((self.manifest.name, *self.only))

    @property
    def folder(self) -> Path:
        """Where its plan lies."""
        return self.place or self.out / self.manifest.name

    @property
    def made(self) -> Path:
        """Where its tables and figures go: its folder, in which a part has one of its own."""
        return self.folder / re.sub(r"[^\w=.,+-]+", "_", "+".join(self.only))

    @property
    def store(self) -> RunStore:
        return RunStore(self.out / "runs")

    @property
    def reference(self) -> Arm | None:
        """The arm that others are compared with, if the plan declares one."""
        return next((arm for arm in self.manifest.arms if arm.reference), None)

    @cached_property
    def metrics(self) -> tuple[StudyMetric, ...]:
        """What the plan is about. Which way is better says the metric itself: an old plan may have it upside down."""
        return tuple(
            replace(metric, direction=direction_of(metric.name, metric.direction)) for metric in self.manifest.metrics
        )

    @property
    def primary(self) -> StudyMetric | None:
        """The first primary metric, which ranks arms and picks images."""
        return next((metric for metric in self.metrics if metric.role == "primary"), None)

    @cached_property
    def _per_image_of_run(self) -> dict[str, pd.DataFrame]:
        return {}

    def per_image(
        self, metric: str, *, protocol_fingerprint: str | None = None, arms: Sequence[str] | None = None
    ) -> pd.DataFrame:
        """Per-image values of a metric on the study's split: columns arm, seed, key, value.

        Only finished runs (of `arms`, if given); `protocol_fingerprint` restricts to one version of the metric. Empty
        where nothing was recorded; raises UserError naming a damaged file.
        """
        parts = []
        finished = self.runs[self.runs["run_state"] == "finished"]
        if arms is not None:
            finished = finished[finished["arm"].isin(list(arms))]
        for arm, seed, run_id in finished[["arm", "seed", "run_id"]].itertuples(index=False, name=None):
            values = self.values_of(str(run_id))
            chosen = values[(values["metric"] == metric) & (values["split"] == self.manifest.split)]
            if protocol_fingerprint is not None:
                chosen = chosen[chosen["fingerprint"] == protocol_fingerprint]
            parts.append(chosen[["key", "value"]].assign(arm=arm, seed=seed))
        empty = pd.DataFrame({"arm": [], "seed": [], "key": [], "value": []})
        return pd.concat(parts, ignore_index=True)[["arm", "seed", "key", "value"]] if parts else empty

    def values_of(self, run_id: str) -> pd.DataFrame:
        """Every per-image value of a run: key, metric, value, split, fingerprint. UserError naming a damaged file."""
        if self.kept_values is not None:
            return self.kept_values[self.kept_values["run_id"] == run_id]
        if run_id not in self._per_image_of_run:
            path = self.store.record(run_id).path / "per_image.parquet"
            try:
                values = self.store.record(run_id).per_image()
                self._per_image_of_run[run_id] = values[list(PER_IMAGE_COLUMNS)].astype({"value": "float64"})
            except (OSError, ValueError, TypeError, KeyError) as error:
                raise UserError(f"{path} is damaged ({type(error).__name__}): evaluate the run again") from error
        return self._per_image_of_run[run_id]
