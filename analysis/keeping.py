"""Writing what stays of a study when its runs do not; `kept` reads it again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from analysis import columns
from analysis.kept import CURVES, FRAME, PART, PLAN, RUNS, VALUES
from analysis.study import Study
from pipeline.errors import UserError
from pipeline.records import StudyManifest, atomic


def refuse_place(study: Study, folder: Path) -> None:
    """UserError where a study cannot be kept: among runs, in its own folder, over another study, or in no folder."""
    place, out = folder.resolve(), study.out.resolve()
    if place == study.folder.resolve() or place in (out, out / "runs") or (out / "runs") in place.parents:
        raise UserError(f"{folder} holds what the study itself is made of; keep it elsewhere")
    if any((part / name).exists() for part, name in ((folder, "runs"), (folder, "identity.json"))):
        raise UserError(f"{folder} holds runs; keep the study elsewhere")
    if (folder / PLAN).exists():
        try:
            other = StudyManifest.load(folder).name
        except UserError:
            other = study.name  # a plan that nobody can read is written again
        if other != study.name:
            raise UserError(f"{folder} holds another study: {other}")
    nearest = next(part for part in (place, *place.parents) if part.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise UserError(f"cannot write into {folder}: {nearest} is no folder that one may write into")


def keep(study: Study, folder: Path, more: Mapping[str, bytes]) -> list[Path]:
    """Write what is kept of a study, and `more` files by name, into `folder`; returns them in order.

    The plan goes first and comes last: a folder with a plan is whole.
    """
    frames = {FRAME: study.frame, RUNS: study.runs, VALUES: _values(study), CURVES: _curves(study)}
    files = {name: columns.encoded(frame, ".parquet") for name, frame in frames.items()}
    imported = sorted((study.folder / "imported").glob("*.json"))
    files |= {f"imported/{path.name}": path.read_bytes() for path in imported}
    part = {PART: f"{json.dumps({'only': study.only})}\n".encode()} if study.only else {}
    files |= {**more, **part, PLAN: (study.folder / PLAN).read_bytes()}
    try:
        (folder / PLAN).unlink(missing_ok=True)
        (folder / PART).unlink(missing_ok=True)
        for path in (folder / "imported").glob("*.json"):
            if f"imported/{path.name}" not in files:  # of an earlier call
                path.unlink()
        for name, content in files.items():
            atomic.write_bytes(folder / name, content)
    except OSError as error:
        raise UserError(f"cannot write into {folder}: {atomic.reason(error)}") from error
    return [folder / name for name in files]


def _values(study: Study) -> pd.DataFrame:
    """Per-image values on the study's split, of every finished run."""
    parts = [study.values_of(run_id).assign(run_id=run_id) for run_id in _finished(study)["run_id"].unique()]
    found = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(columns.VALUES))
    return columns.typed(found.loc[found["split"] == study.manifest.split, list(columns.VALUES)], columns.VALUES)


def _curves(study: Study) -> pd.DataFrame:
    """Validation values during training, of every finished run; a line that is none is passed over, as figures do."""
    rows = [
        (arm, seed, run_id, row["iteration"], metric, value)
        for arm, seed, run_id in _finished(study).itertuples(index=False, name=None)
        for row in study.store.record(run_id).history()
        if row.get("kind") == "val" and isinstance(row.get("iteration"), int)
        for metric, value in row.items()
        if metric not in ("kind", "iteration", "seconds") and isinstance(value, int | float)
    ]
    return columns.typed(pd.DataFrame(rows, columns=list(columns.CURVES)), columns.CURVES)


def _finished(study: Study) -> pd.DataFrame:
    return study.runs.loc[study.runs["run_state"] == "finished", ["arm", "seed", "run_id"]]
