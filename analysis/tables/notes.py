"""What stands below a table: protocol, data, n, code versions, legend, and whatever the reader must be warned of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.asked import data_settings
from analysis.judging import UNKNOWN_FLOOR, floor_unknown, why_unjudged
from analysis.labels import metric_label
from analysis.statistics.summary import FEW_SEEDS
from analysis.study import Study
from analysis.tables.layout import ColumnPlan, RowPlan
from analysis.tables.model import RANK_LEGEND, Column
from analysis.tables.numbers import number
from analysis.tables.spec import TableSpec

SHORT = 10  # characters of a digest that people are shown
DIGESTS = ("Code versions", "Training data")  # warnings whose values are digests
OF_LABELS = ("seg_miou", "seg_accuracy")  # whose floor is that of a trivial segmenter


@dataclass(frozen=True)
class TableFacts:
    """What a finished table knows about itself."""

    n: int  # seeds behind most cells
    images: tuple[int, ...]  # different numbers of test images behind the cells
    ranked: bool
    tied: bool
    untested: bool  # some ranked cell has no test against the best, in a column where some have several seeds
    spread: bool
    families: tuple[int, ...]  # comparisons corrected together, of each family
    tests: tuple[str, ...]
    by_image: Mapping[str, set[bool]]  # heading of a column -> whether its intervals are over images as well as seeds
    images_only: bool  # some interval is over images alone
    absent: tuple[str, ...]  # patterns and costs without any record
    gains: bool
    foreign: bool  # some column is of another protocol or split, as its heading says


def general(study: Study, spec: TableSpec, facts: TableFacts, rows: list[RowPlan]) -> list[str]:
    """Notes of every table: measurement, data, code, legend."""
    runs = _runs_of(study, rows)
    seeds = ", ".join(map(str, study.manifest.seeds))
    images = " or ".join(map(str, facts.images)) or "no"
    spread = "; mean ± standard deviation over seeds (ddof = 1)" if facts.spread and spec.show.std else ""
    others = " unless a heading names others" if facts.foreign else ""
    lines = [
        f"Protocol {study.manifest.protocol}, split {study.manifest.split}{others}, {images} images; "
        f"n = {facts.n} seed{'s' if facts.n != 1 else ''} a cell unless marked (seeds planned: {seeds or 'none'}){spread}."
    ]
    if study.only and study.whole is not None:
        lines.append(
            f"A part of the study: {', '.join(study.only)}, {len(study.manifest.arms)} of its {len(study.whole.arms)} arms."
        )
    lines += _data(runs)
    lines += _code(runs)
    if facts.ranked:
        tie = f"; ≈: not distinguishable from the best (paired test over seeds, p ≥ {spec.alpha:g}, uncorrected)"
        untested = "; not tested against the best: cells that share fewer than two seeds with it"
        lines.append(f"{RANK_LEGEND}{tie if facts.tied else ''}{untested if facts.untested else ''}.")
    lines += _differences(study, spec, facts, rows)
    if facts.gains:
        lines.append("Gain: value of the trained network minus that of the same network before its first step.")
    if study.manifest.budget != "equal":
        lines.append(f"Training budgets differ by design: {study.manifest.budget}.")
    if facts.absent:
        lines.append(f"Not recorded in this study, hence no column: {', '.join(facts.absent)}.")
    return lines


def _differences(study: Study, spec: TableSpec, facts: TableFacts, rows: list[RowPlan]) -> list[str]:
    reference = next((row.label for row in rows if row.reference), None)
    if reference is None or not (spec.show.delta or spec.show.interval or spec.show.stars):
        return []
    pairing, resampled = _resampled(facts) if spec.show.interval else ("seed", "")
    parts = [f"Δ: difference to {reference}, paired by {pairing}"]
    if resampled:
        parts.append(f"[ ]: {spec.level:.0%} interval {resampled}")
    if spec.show.stars and facts.tests:
        tests = " or ".join(facts.tests)
        family = _family(spec, facts)
        parts.append(f"*, **, ***: p < 0.05, 0.01, 0.001 ({tests} over seeds, Holm-corrected within {family})")
    lines = ["; ".join(parts) + "."]
    if facts.images_only:
        lines.append("Intervals from one seed cover the choice of test images only, not that of the training run.")
    return lines


def _resampled(facts: TableFacts) -> tuple[str, str]:
    """By what differences are paired, and over what intervals are; where columns differ, those of the smaller part are named."""
    of_columns = facts.by_image.items()
    images, seeds = ([name for name, found in of_columns if found == {kind}] for kind in (True, False))
    partly = [f"{name} in part" for name, found in of_columns if len(found) > 1]
    both, alone = "over seeds and images", "over seeds"
    if not images and not partly:
        return "seed", alone
    if not seeds and not partly:
        return "seed and test image", both
    pairing = "seed, and by test image where the interval is over images"
    if len(images) < len(seeds):
        return pairing, f"{alone} ({', '.join([*images, *partly])}: {both})"
    return pairing, f"{both} ({', '.join([*seeds, *partly])}: {alone} alone)"


def _family(spec: TableSpec, facts: TableFacts) -> str:
    """The family of Holm's correction, and how many comparisons it, or each of several, has."""
    least, most = min(facts.families), max(facts.families)
    count = f"{most} comparison{'s' if most > 1 else ''}" if least == most else f"{least} to {most} comparisons"
    return f"the table, {count}" if spec.family == "table" else f"each metric, {count} each"


def warnings(study: Study, rows: list[RowPlan], n: int, lone: Sequence[str] = ()) -> list[str]:
    """What makes the numbers weaker than they look; also said on the terminal. `lone`: rows ranked by one seed among more."""
    found = []
    if n == 1:
        found.append("One seed a cell (n = 1): no spread, no test; differences may be chance.")
    elif 0 < n < FEW_SEEDS:
        found.append(f"Fewer than {FEW_SEEDS} seeds (n = {n}): standard deviations and tests are rough.")
    if lone:
        found.append(f"Ranked by one seed (n = 1) beside cells of more: {', '.join(lone)}; these ranks may be chance.")
    runs = _runs_of(study, rows)
    found += _mixed(study, runs)
    found += budgets(study, rows)
    found += _upside_down(study)
    found += _unjudged(study, rows)
    twins = _same_runs(runs)
    if twins:
        found.append(f"Arms that are the same runs: {twins}.")
    return found


def _upside_down(study: Study) -> list[str]:
    """Metrics whose direction an old plan turned round: the metric's own holds."""
    return [
        f"The plan says {said.name}: {said.direction}; better is {meant.direction}, as the metric itself says."
        for said, meant in zip(study.manifest.metrics, study.metrics, strict=True)
        if {said.direction, meant.direction} == {"max", "min"}
    ]


def _unjudged(study: Study, rows: list[RowPlan]) -> list[str]:
    """Primary metrics that rest on a segmenter that cannot judge: the study has no answer by them."""
    arms = _arms(rows)
    return [
        f"The primary metric {metric_label(metric.name)} ranks nothing here: {reason}."
        for metric in study.metrics
        if metric.role == "primary" and (reason := why_unjudged(study, metric.name, arms))
    ]


def _mixed(study: Study, runs: pd.DataFrame) -> list[str]:
    found = []
    done = runs[runs["run_state"] == "finished"]
    of_asked = done.groupby(done["run_id"].map(data_settings(study)))["data_digest"].nunique()
    versions = {
        "Code versions": _code_versions(done),
        "Training data": done["data_digest"] if (of_asked > 1).any() else done["data_digest"].iloc[:0],
        "torch versions": done["torch"],
        "Devices": done["device"],
    }
    for words, values in versions.items():
        counts = Counter(map(str, values.dropna()))
        shown = SHORT if words in DIGESTS else None  # in print alone: what differs further on differs
        if len(counts) > 1:
            listed = ", ".join(
                f"{name[:shown]} ({count} run{'s' if count > 1 else ''})" for name, count in sorted(counts.items())
            )
            found.append(f"{words} are mixed: {listed}.")
    dirty = int(done["dirty"].fillna(False).sum())
    if dirty:
        found.append(f"{dirty} of {len(done)} runs were made with uncommitted changes.")
    return found


def _code_versions(done: pd.DataFrame) -> pd.Series:
    """What tells code versions apart: the commit; the sources' digest where one commit stands for several or none for any."""
    sources = done["code_digest"].fillna(done["commit"])
    if sources.nunique() <= 1:
        return sources  # commits that leave the code as it is are one version
    return done["commit"] if done["commit"].nunique() == sources.nunique() else sources


def defects_of_provenance(study: Study, rows: list[RowPlan]) -> list[str]:
    """What `--strict` refuses besides cells without a value: mixed code or data, and undeclared unequal budgets."""
    mixed = [line for line in _mixed(study, _runs_of(study, rows)) if line.startswith(DIGESTS)]
    return mixed + budgets(study, rows)


def budgets(study: Study, rows: list[RowPlan]) -> list[str]:
    """Training budgets that differ between trained arms without the plan saying so."""
    if study.manifest.budget != "equal":
        return []
    trained = {arm for row in rows if row.kind == "arm" for arm in row.arms.values()}
    runs = study.runs[
        study.runs["arm"].isin(trained) & (study.runs["budget_images"] != 0)
    ]  # a rule that has not run yet
    counts = runs.groupby("budget_images")["arm_label"].agg(lambda labels: ", ".join(dict.fromkeys(labels)))
    if len(counts) < 2:
        return []
    listed = "; ".join(f"{count} images: {labels}" for count, labels in counts.items())
    return [f"Training budgets are unequal: {listed}."]


def budget_note(study: Study, arms: Iterable[str]) -> str:
    """Footnote for a row whose runs saw another number of images than the plan grants, or ""."""
    runs = study.runs[study.runs["arm"].isin(list(arms)) & (study.runs["run_state"] == "finished")]
    known = runs.dropna(subset=["images_seen", "budget_images"])
    off = known[known["images_seen"] != known["budget_images"]]
    if off.empty:
        return ""
    seen = ", ".join(f"{count:.0f}" for count in sorted(set(off["images_seen"])))
    return f"trained on {seen} images, planned {off['budget_images'].iloc[0]}"


def _data(runs: pd.DataFrame) -> list[str]:
    known = runs.dropna(subset=["data_digest"]).drop_duplicates("data_digest").fillna({"data_description": "data"})
    pairs = known[["data_description", "data_digest"]].itertuples(index=False, name=None)
    parts = [f"{description} ({digest[:SHORT]})" for description, digest in pairs]
    return [f"Data: {'; '.join(parts)}."] if parts else []


def bounds(study: Study, columns: Sequence[tuple[Column, ColumnPlan]], rows: list[RowPlan]) -> list[str]:
    """Floors and ceilings of the columns' metrics, where runs recorded them, and where a floor is wanted and unknown.

    Each column has those of its own protocol and split; with a pivot, those of its own arms.
    """
    frame = study.frame
    names = [f"{column.metric}_{suffix}" for column, _ in columns for suffix in ("floor", "real")]
    measured = frame[
        frame["metric"].isin(names)
        & (frame["status"] == "ok")
        & (frame["state"] == "trained")
        & (frame["run_state"] == "finished")
    ]
    parts: list[str] = []
    unknown: list[str] = []
    for column, plan in columns:
        level = plan.level
        of_level = [row.arms[level] for row in rows if level in row.arms]
        of_column = measured[(measured["protocol"] == plan.protocol) & (measured["split"] == plan.split)]
        of_column = of_column[of_column["arm"].isin(of_level)] if level else of_column
        label = f"{level}, {column.label}" if level else column.label
        floor = "maps of one class everywhere" if column.metric in OF_LABELS else "two halves of the real images"
        for suffix, words in (("floor", floor), ("real", "the real images themselves")):
            values = of_column[of_column["metric"] == f"{column.metric}_{suffix}"]["value"]
            if column.kind == "metric" and len(values):
                decimals = max(column.decimals, 2)
                ends = sorted({number(float(value) / column.scale, decimals) for value in (values.min(), values.max())})
                parts.append(f"{label}: {words} score {' to '.join(ends)}")
        of_rows = of_level if level else _arms(rows)
        if floor_unknown(study, column.metric, of_rows, protocol=plan.protocol, split=plan.split):
            unknown.append(label)
    if unknown:
        parts.append(f"{', '.join(dict.fromkeys(unknown))}: {UNKNOWN_FLOOR}")
    return [f"{'; '.join(dict.fromkeys(parts))}."] if parts else []


def _code(runs: pd.DataFrame) -> list[str]:
    parts = []
    for column, word in (("commit", "code"), ("torch", "torch"), ("device", "device")):
        values = sorted({str(value)[:SHORT] if column == "commit" else str(value) for value in runs[column].dropna()})
        if values:
            parts.append(f"{word} {', '.join(values)}")
    text = "; ".join(parts)
    return [text[0].upper() + text[1:] + "."] if text else []


def _same_runs(runs: pd.DataFrame) -> str:
    labels: dict[str, list[str]] = {}
    for run_id, label in runs[["run_id", "arm_label"]].itertuples(index=False, name=None):
        labels.setdefault(run_id, []).append(label)
    groups = (" and ".join(dict.fromkeys(names)) for names in labels.values() if len(set(names)) > 1)
    return "; ".join(sorted(set(groups)))


def _runs_of(study: Study, rows: list[RowPlan]) -> pd.DataFrame:
    return study.runs[study.runs["arm"].isin(_arms(rows))]


def _arms(rows: list[RowPlan]) -> set[str]:
    return {arm for row in rows for arm in row.arms.values()}
