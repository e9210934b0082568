"""From run records to one tidy frame: one row per (study, arm, seed, metric), every number with what it means.

`load_study` reads a study's plan and the records of its cells. Nothing is left out: a cell whose run is missing,
failed or damaged, and a metric that a run lacks, have a row without a value and with a reason.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import columns
from analysis.imported import load_imported
from analysis.kept import kept_frames
from analysis.study import Study
from pipeline.errors import UserError
from pipeline.records import StudyManifest
from pipeline.records.bulk import RawRecord, read_raw
from pipeline.records.metric_specs import direction_of
from pipeline.schema.evaluation import PROTOCOLS
from pipeline.schema.measures import left_out

USUAL = "standard"  # the protocol that `python -m pipeline evaluate` takes by itself
VALUE_FIELDS = (
    "name",
    "value",
    "n",
    "unit",
    "direction",
    "split",
    "protocol",
    "fingerprint",
    "state",
    "status",
    "reason",
)


def load_study(out: Path, study: str) -> Study:
    """Read the study `study` below the folder `out` (`OUT/<study>/plan.json`, `OUT/runs/`; where there are no runs, kept frames).

    Raises UserError when there is no such study, its plan is damaged, or an arm has two runs at one seed.
    """
    manifest = _labels_apart(StudyManifest.load(out / study))
    _refuse_duplicates(manifest)
    kept = None if (out / "runs").is_dir() else kept_frames(out / study, manifest)
    if kept is not None:
        frame, runs, values = kept
        return Study(out, manifest, frame, runs, load_imported(out / study), True, values, out / study)
    raw = {cell.run_id: read_raw(out / "runs", cell.run_id) for cell in manifest.cells}
    runs = _runs_frame(manifest, raw)
    frame = _metric_frame(manifest, raw, runs)
    return Study(out, manifest, frame, runs, load_imported(out / study))


def _labels_apart(manifest: StudyManifest) -> StudyManifest:
    """The manifest with arms of one label (an older plan's) told apart by their names."""
    counts = Counter(arm.label for arm in manifest.arms)
    if max(counts.values(), default=1) == 1:
        return manifest
    arms = (
        dataclasses.replace(arm, label=f"{arm.label} ({arm.name})") if counts[arm.label] > 1 else arm
        for arm in manifest.arms
    )
    return dataclasses.replace(manifest, arms=tuple(arms))


def _refuse_duplicates(manifest: StudyManifest) -> None:
    seen: dict[tuple[str, int], str] = {}
    for cell in manifest.cells:
        key = (cell.arm, cell.seed)
        if key in seen:
            raise UserError(
                f"study {manifest.name!r}: arm {cell.arm!r} has two runs at seed {cell.seed} "
                f"({seen[key][:10]}, {cell.run_id[:10]}); a seed counts once"
            )
        seen[key] = cell.run_id
    unknown = sorted({cell.arm for cell in manifest.cells} - {arm.name for arm in manifest.arms})
    if unknown:
        raise UserError(f"study {manifest.name!r}: cells of an arm that the plan does not name: {', '.join(unknown)}")


def _runs_frame(manifest: StudyManifest, raw: dict[str, RawRecord]) -> pd.DataFrame:
    arms = {arm.name: arm for arm in manifest.arms}
    rows = []
    for cell in manifest.cells:
        record, arm = raw[cell.run_id], arms[cell.arm]
        provenance = record.provenance
        versions = provenance.get("versions")
        data = provenance.get("data")
        rows.append(
            {
                "study": manifest.name,
                "arm": cell.arm,
                "arm_label": arm.label,
                "reference": arm.reference,
                "seed": cell.seed,
                "run_id": cell.run_id,
                "run_state": "damaged" if record.damage else record.state,
                "run_reason": "; ".join(record.damage) or str(record.status.get("reason") or ""),
                "kind": str(record.status.get("kind") or ""),
                "attempts": len(record.status.get("attempts") or []),
                "budget_images": cell.images_seen,
                "commit": provenance.get("commit"),
                "dirty": provenance.get("dirty"),
                "code_digest": provenance.get("code_digest"),
                "torch": versions.get("torch") if isinstance(versions, dict) else None,
                "device": provenance.get("device"),
                "data_digest": data.get("digest") if isinstance(data, dict) else None,
                "data_description": data.get("summary") if isinstance(data, dict) else None,
                **{name: _number(provenance.get(name)) for name in columns.PROVENANCE_NUMBERS},
            }
        )
    return columns.typed(pd.DataFrame(rows, columns=list(columns.RUNS)), columns.RUNS)


def _metric_frame(manifest: StudyManifest, raw: dict[str, RawRecord], runs: pd.DataFrame) -> pd.DataFrame:
    """Rows of the records, then a row without value for each declared metric that a planned run lacks."""
    intern, better = sys.intern, functools.cache(direction_of)
    columns_of: dict[str, list[Any]] = {field: [] for field in VALUE_FIELDS}
    position: list[int] = []  # row of `runs` each metric row belongs to
    states, reasons = runs["run_state"].tolist(), runs["run_reason"].tolist()
    # Costs belong to no split; a run that lacks one (a rule is not trained) must not turn the column into one of a split.
    of_no_split = {row["name"] for record in raw.values() for row in record.metrics if row.get("split") == ""}
    for index, cell in enumerate(manifest.cells):
        rows = raw[cell.run_id].metrics if states[index] != "damaged" else []
        present = set()
        for row in rows:
            value, status, reason = _checked(row)
            columns_of["value"].append(value)
            columns_of["n"].append(row.get("n", 0))
            columns_of["status"].append(status)
            columns_of["reason"].append(reason)
            for field in ("name", "unit", "split", "protocol", "fingerprint"):
                columns_of[field].append(intern(str(row.get(field, ""))))
            columns_of["direction"].append(better(str(row["name"]), str(row.get("direction", ""))))
            columns_of["state"].append(intern(str(row.get("state", "trained"))))
            position.append(index)
            at_home = (row.get("split"), row.get("protocol")) == (manifest.split, manifest.protocol)
            if row.get("state", "trained") == "trained" and (at_home or row.get("split") == ""):
                present.add(row["name"])
        for metric in manifest.metrics:
            if metric.name not in present:
                reason = _absence(raw[cell.run_id], reasons[index], manifest, metric.name)
                split = "" if metric.name in of_no_split else manifest.split
                direction = better(metric.name, metric.direction)
                filler = (metric.name, None, 0, "", direction, split, manifest.protocol, "", "trained")
                for field, item in zip(VALUE_FIELDS, (*filler, "missing", reason), strict=True):
                    columns_of[field].append(item)
                position.append(index)
    frame = pd.DataFrame(columns_of).rename(columns={"name": "metric"})
    cells = runs[["study", "arm", "arm_label", "reference", "seed", "run_id", "run_state", "kind"]]
    frame = pd.concat([cells.iloc[position].reset_index(drop=True), frame], axis=1)
    frame.insert(0, "schema", columns.FRAME_SCHEMA)
    frame = columns.typed(frame[list(columns.FRAME)], columns.FRAME)
    levels = {arm.name: arm.levels for arm in manifest.arms}
    for factor in sorted({factor for arm in manifest.arms for factor in arm.levels}):
        by_arm = {arm: level.get(factor) for arm, level in levels.items()}
        frame[f"factor:{factor}"] = frame["arm"].map(by_arm).astype("string")
    return frame


def _checked(row: dict[str, Any]) -> tuple[float | None, str, str]:
    """Value, status and reason of a stored row; a value that is no finite number never passes as one."""
    status, reason = str(row.get("status", "ok")), str(row.get("reason") or "")
    value = row.get("value")
    if status != "ok":
        return None, status, reason or "no reason recorded"
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None, "invalid", f"the recorded value {value!r} is not a finite number"
    return float(value), status, reason


def _absence(record: RawRecord, reason: str, manifest: StudyManifest, metric: str) -> str:
    """Why a run has no row of a metric of the plan, and what would give it one."""
    if record.state != "finished" or record.damage:
        state = "damaged" if record.damage else record.state
        return f"the run is {state}: {reason}" if reason else f"the run is {state}"
    return f"the run has no such metric {_advice(metric, manifest.protocol, manifest.split)}"


@functools.lru_cache(maxsize=1024)
def _advice(metric: str, protocol: str, split: str) -> str:
    """Where a metric is missing although the run is finished: never evaluated so, or before the metric was there."""
    where = f"under protocol {protocol} on split {split}"
    shipped = {name: PROTOCOLS.load(name) for name in PROTOCOLS.names()}
    why = left_out(metric, shipped[protocol], split) if protocol in shipped else ""
    if not why:
        return f"{where} (python -m pipeline evaluate RUN --protocol {protocol})"
    others = [
        (name, other.split)
        for name, other in shipped.items()
        if name != protocol and not left_out(metric, other, other.split)
    ]
    others.sort(key=lambda item: (item[1] != split, item[0] != USUAL))
    if not others:
        return f"{where} ({why})"
    name, on = others[0]
    return (
        f"{where}: {why} (python -m pipeline evaluate RUN --protocol {name}, and in a table's specification "
        f"{{metric: {metric}, protocol: {name}, split: {on}}})"
    )


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
