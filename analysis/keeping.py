"""Writing what stays of a study when its runs do not; `kept` reads it again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd

from analysis import columns
from analysis.frame import Study
from analysis.kept import CURVES, FRAME, PLAN, RUNS, VALUES
from pipeline.errors import UserError
from pipeline.records import StudyManifest, atomic


def keep(study: Study, folder: Path) -> list[Path]:
    """Write what is kept of a study into `folder`; returns the files, in order. UserError where another study is kept there."""
    refuse_other(study, folder)
    plan = folder / PLAN
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(study.folder / PLAN, plan)
    frames = {FRAME: study.frame, RUNS: study.runs, VALUES: _values(study), CURVES: _curves(study)}
    for name, frame in frames.items():
        atomic.write_bytes(folder / name, columns.encoded(frame, ".parquet"))
    return [plan, *(folder / name for name in frames)]


def refuse_other(study: Study, folder: Path) -> None:
    """UserError where `folder` holds another study's plan."""
    if (folder / PLAN).exists() and (other := StudyManifest.load(folder).name) != study.name:
        raise UserError(f"{folder} holds another study: {other}")


def _values(study: Study) -> pd.DataFrame:
    """Per-image values on the study's split, of every finished run."""
    parts = [study.values_of(run_id).assign(run_id=run_id) for run_id in _finished(study)["run_id"].unique()]
    found = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(columns.VALUES))
    found = found.loc[found["split"] == study.manifest.split, list(columns.VALUES)]
    return columns.typed(found, columns.VALUES)


def _curves(study: Study) -> pd.DataFrame:
    """Validation values during training, of every finished run."""
    rows = [
        (arm, seed, run_id, row["iteration"], metric, value)
        for arm, seed, run_id in _finished(study).itertuples(index=False, name=None)
        for row in study.store.record(run_id).history()
        if row.get("kind") == "val"
        for metric, value in row.items()
        if metric not in ("kind", "iteration", "seconds") and isinstance(value, int | float)
    ]
    return columns.typed(pd.DataFrame(rows, columns=list(columns.CURVES)), columns.CURVES)


def _finished(study: Study) -> pd.DataFrame:
    return study.runs.loc[study.runs["run_state"] == "finished", ["arm", "seed", "run_id"]]
