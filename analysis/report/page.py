"""The report's content as plain data: what the template prints, with nothing left to compute."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.figures.curves import learning_curves
from analysis.figures.model import FigureSet, LeftOut, Picture
from analysis.figures.samples import study_samples
from analysis.figures.study_data import MetricInfo, StudyData, interval_in_words
from analysis.figures.style import PALETTE, TRIVIAL_COLOUR, arrow, number
from analysis.report.images import Comparer, build_comparer, data_uri, jpeg_uri
from analysis.report.runs import MAX_RUNS, RunView, duration, paint_command, run_views, train_command
from analysis.report.verdict import Verdict, write_verdict
from analysis.study import Study
from analysis.tables.model import Table

# The figure palette on a dark page, lighter by as much as contrast needs (all at least 4.5:1 on #12161c).
DARK_COLOURS = ("#5CB3EC", "#FF8A4C", "#35C79A", "#E79AC8", "#E6B54A", "#8CCBF2", "#C3C8D0", "#C79BE4", "#98A3B3")
DARK = dict(zip((*PALETTE, TRIVIAL_COLOUR), DARK_COLOURS, strict=True))
# Grids of images above this become JPEG inside the report; the PNG and PDF files stay as they are.
GRID_BYTES = 1_500_000


@dataclass(frozen=True)
class DotRow:
    """One row of the opening chart; positions run from 0 to 1000."""

    arm: str
    label: str
    value: str
    reference: bool
    at: float
    low: float | None
    high: float | None
    seeds: tuple[float, ...]


@dataclass(frozen=True)
class Dots:
    """The opening chart: the primary metric of every arm."""

    heading: str
    rows: tuple[DotRow, ...]
    reference_at: float | None
    low: str  # printed ends of the axis
    high: str
    note: str


@dataclass(frozen=True)
class Fact:
    """One thing about the environment, with every value it had and in how many runs."""

    name: str
    values: tuple[tuple[str, int], ...]

    @property
    def mixed(self) -> bool:
        """Whether runs differ in it."""
        return len(self.values) > 1


@dataclass(frozen=True)
class Page:
    """Everything the template prints."""

    title: str
    question: str
    chips: tuple[tuple[str, str], ...]
    verdict: Verdict
    warnings: tuple[str, ...]
    dots: Dots | None
    arm_classes: dict[str, str]
    arm_colours: tuple[tuple[str, str, str], ...]  # (class, light, dark)
    labels: dict[str, str]
    table_html: str
    comparer: Comparer | None
    paint: str  # command that lets one paint with the arms, "" without a run to do it with
    curves: tuple[dict[str, Any], ...]
    pictures: tuple[tuple[Picture, str], ...]  # with its data URI
    left_out: tuple[LeftOut, ...]
    runs: tuple[RunView, ...]
    runs_total: int
    runs_shown: int
    score_heading: str
    failures: tuple[RunView, ...]
    environment: tuple[Fact, ...]
    costs: tuple[tuple[str, ...], ...]
    commands: tuple[tuple[str, str], ...]
    digest: str


def build_page(study: Study, data: StudyData, table: Table, table_html: str, figures: FigureSet, pick: str) -> Page:
    """Gather the page of a study."""
    classes = {arm: f"a{index}" for index, arm in enumerate(data.arms)}
    runs = run_views(study)
    states = study.runs["run_state"]
    finished = int((states == "finished").sum())
    manifest = study.manifest
    primary = data.primary
    return Page(
        title=study.title,
        question=manifest.question,
        chips=(
            ("arms", str(len(manifest.arms))),
            ("seeds", ", ".join(str(seed) for seed in manifest.seeds)),
            ("runs finished", f"{finished} of {len(study.runs)}"),
            ("protocol", f"{manifest.protocol}, split {manifest.split}"),
            ("design", manifest.design.replace("_", " ")),
            ("budget", manifest.budget),
            ("plan", f"revision {manifest.revision}"),
        ),
        verdict=write_verdict(data),
        warnings=table.warnings,
        dots=_dots(data, primary) if primary is not None else None,
        arm_classes=classes,
        arm_colours=tuple((classes[arm], data.looks[arm].colour, DARK[data.looks[arm].colour]) for arm in data.arms),
        labels=data.labels,
        table_html=table_html,
        comparer=build_comparer(data, study_samples(data), pick),
        paint=paint_command(study),
        curves=_curves(data),
        pictures=tuple((picture, _uri(picture)) for picture in figures.pictures),
        left_out=figures.left_out,
        runs=tuple(runs),
        runs_total=len(study.runs),
        runs_shown=min(len(study.runs), MAX_RUNS),
        score_heading=primary.label if primary is not None else "",
        failures=tuple(run for run in runs if run.state != "finished"),
        environment=_environment(study.runs),
        costs=_costs(study, data),
        commands=_commands(study),
        digest=(study.whole or manifest).digest,
    )


def _uri(picture: Picture) -> str:
    """Vector where that is smaller: sharp at any zoom; the raster image else."""
    if picture.svg is not None and len(picture.svg) < 2 * len(picture.png):
        return data_uri(picture.svg, "image/svg+xml")
    if picture.svg is None and len(picture.png) > GRID_BYTES:
        return jpeg_uri(picture.png)
    return data_uri(picture.png, "image/png")


def _dots(data: StudyData, metric: MetricInfo) -> Dots | None:
    found = data.estimates[metric.name]
    if not found:
        return None
    values = data.by_arm(metric.name)
    numbers = [value for arm in values for value in values[arm]]
    numbers += [end for item in found.values() for end in (item.low, item.high) if end is not None]
    low, high = min(numbers), max(numbers)
    span = (high - low) or abs(high) or 1.0
    low, high = low - 0.04 * span, high + 0.04 * span

    def at(value: float) -> float:
        return round(1000 * (value - low) / (high - low), 1)

    sign = -1 if metric.direction == "max" else 1
    order = sorted(found, key=lambda arm: sign * found[arm].mean) if metric.direction != "none" else list(found)
    rows = tuple(
        DotRow(
            arm=arm,
            label=data.labels[arm],
            value=number(found[arm].mean),
            reference=arm == data.reference,
            at=at(found[arm].mean),
            low=None if found[arm].low is None else at(found[arm].low or 0.0),
            high=None if found[arm].high is None else at(found[arm].high or 0.0),
            seeds=tuple(at(value) for value in values[arm]) if found[arm].seeds > 1 else (),
        )
        for arm in order
    )
    reference = found.get(data.reference or "")
    unit = f" [{metric.unit}]" if metric.unit else ""
    return Dots(
        heading=f"{metric.label}{unit}{arrow(metric.direction)}",
        rows=rows,
        reference_at=None if reference is None else at(reference.mean),
        low=number(low, 3),
        high=number(high, 3),
        note=interval_in_words([(data.labels[arm], found[arm]) for arm in order]),
    )


def _curves(data: StudyData) -> tuple[dict[str, Any], ...]:
    """Learning curves as JSON data, one entry a metric; lines of arms with band (mean ± standard deviation)."""
    charts = []
    for metric in data.outcomes:
        curves = learning_curves(data, metric.name)
        if not curves or max(len(curve.iterations) for curve in curves.values()) < 2:
            continue
        charts.append(
            {
                "metric": metric.label,
                "unit": metric.unit,
                "arrow": arrow(metric.direction).strip(),
                "direction": metric.direction,
                "lines": [
                    {
                        "arm": arm,
                        "x": curve.iterations,
                        "y": [_digits(value) for value in curve.mean],
                        "sd": [None if value is None else _digits(value) for value in curve.std],
                        "n": curve.n,
                    }
                    for arm, curve in curves.items()
                ],
                "levels": [
                    {"arm": arm, "y": _digits(level)}
                    for arm in data.arms
                    if arm in data.trivial and (level := data.mean(metric.name, arm)) is not None
                ],
            }
        )
    return tuple(charts)


def _digits(value: float) -> float:
    return float(f"{value:.6g}")


def _environment(runs: pd.DataFrame) -> tuple[Fact, ...]:
    started = runs[runs["run_state"] != "missing"]
    names = (("code", "commit"), ("uncommitted changes", "dirty"), ("torch", "torch"), ("device", "device"),
             ("data", "data_description"), ("data digest", "data_digest"))  # fmt: skip
    facts = []
    for label, column in names:
        counts = started[column].dropna().astype(str).replace({"True": "yes", "False": "no"}).value_counts()
        values = tuple(
            (str(value), int(counts[value])) for value in sorted(counts.index, key=lambda v: (-counts[v], v))
        )
        if values:
            facts.append(Fact(label, values))
    return tuple(facts)


def _costs(study: Study, data: StudyData) -> tuple[tuple[str, ...], ...]:
    """One row an arm: label, runs, wall time and device time over its runs, images seen a run, peak memory; then the sum."""
    rows = []
    for arm in data.arms:
        of_arm = study.runs[study.runs["arm"] == arm]
        rows.append((arm, data.labels[arm], *_cost_cells(of_arm)))
    return (*rows, ("", "all runs", *_cost_cells(study.runs)))


def _cost_cells(runs: pd.DataFrame) -> Sequence[str]:
    measured = runs[runs["wall_seconds"].notna()]
    peak = runs["peak_mem_gib"].dropna()
    seen = runs["images_seen"].dropna()
    return (
        str(len(measured)),
        duration(measured["wall_seconds"].sum()) if len(measured) else "–",
        duration(runs["device_seconds"].dropna().sum()) if runs["device_seconds"].notna().any() else "–",
        f"{float(seen.sum()):,.0f}".replace(",", " ") if len(seen) else "–",
        f"{number(float(peak.max()), 3)} GiB" if len(peak) else "–",
    )


def _commands(study: Study) -> tuple[tuple[str, str], ...]:
    part = "".join(f" --only {shlex.quote(word)}" for word in study.only)
    commits = sorted(study.runs["commit"].dropna().unique())
    lines = []
    if len(commits) == 1:
        lines.append(("the code these runs were made with", f"git checkout {commits[0]}"))
    lines += [
        ("every run of the study; finished ones are reused", f"python -m ablations run {study.name}{part}"),
        ("tables, figures and this page again", f"python -m analysis report {study.name}{part}"),
        ("which runs made a number of the table", f"python -m analysis trace {study.name} ROW COLUMN{part}"),
    ]
    first = next((cell for cell in study.manifest.cells if study.reference and cell.arm == study.reference.name), None)
    if first is not None:
        lines.append(("the reference run by itself", train_command(first.overrides)))
    return tuple(lines)
