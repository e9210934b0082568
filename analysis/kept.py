"""A study without its records: the frames kept of it, from which its tables are made as from the runs themselves.

`python -m analysis keep STUDY --to FOLDER` keeps a study: its plan, its frames, the values of every image and the validation
curves. What needs more (pictures, configs, weights) is not there. Of the files the plan and `frame.parquet` are needed, the
others may be missing: without `per_image.parquet` intervals cover seeds alone.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from analysis import columns
from pipeline.errors import UserError
from pipeline.records import StudyManifest
from pipeline.records.atomic import read_json

PLAN, FRAME, RUNS, VALUES, CURVES = "plan.json", "frame.parquet", "runs.parquet", "per_image.parquet", "curves.parquet"
PART = "part.json"  # {"only": [...]}: which arms of the plan were kept, where not all


def kept_frames(folder: Path, manifest: StudyManifest) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame | None] | None:
    """(metric frame, runs, per-image values) kept beside the plan in `folder`; None where there is no frame.

    Without `runs.parquet` the runs are known by what the frame says of them. Raises UserError for a frame that cannot be read,
    is of another version, or is not of this plan.
    """
    path = folder / FRAME
    if not path.is_file():
        return None
    frame = _read(path, columns.FRAME)
    planned = {(cell.arm, cell.seed, cell.run_id) for cell in manifest.cells}
    found = frame[["arm", "seed", "run_id"]].drop_duplicates()
    strange = [key[2] for key in found.itertuples(index=False, name=None) if key not in planned]
    _refuse_strange(path, strange)
    runs = _runs(folder / RUNS, frame)
    values = _read(folder / VALUES, columns.VALUES) if (folder / VALUES).is_file() else None
    ids = {cell.run_id for cell in manifest.cells}
    for name, other in ((RUNS, runs), (VALUES, values)):
        _refuse_strange(folder / name, [] if other is None else sorted(set(other["run_id"].dropna()) - ids))
    return frame, runs, values


def kept_part(folder: Path) -> list[str]:
    """The words that chose what is kept of the study in `folder`; none where all of it is. Raises UserError for a damaged file."""
    path = folder / PART
    if not path.exists():
        return []
    document = read_json(path)
    only = document.get("only") if isinstance(document, dict) else None
    if not isinstance(only, list) or not all(isinstance(word, str) for word in only):
        raise UserError(f"{path} names no part of a study: write it again with `analysis keep --only`")
    return only


def _refuse_strange(path: Path, strange: list[str]) -> None:
    if strange:
        raise UserError(f"{path} is not of the plan beside it: run {strange[0][:10]} is not planned")


def _runs(path: Path, frame: pd.DataFrame) -> pd.DataFrame:
    if path.is_file():
        return _read(path, columns.RUNS).reset_index(drop=True)
    known = [name for name in columns.RUNS if name in columns.FRAME]
    runs = frame[known].drop_duplicates("run_id").reindex(columns=list(columns.RUNS))
    runs["run_reason"] = ""
    return columns.typed(runs.reset_index(drop=True), columns.RUNS)


def _read(path: Path, documented: dict[str, tuple[str, str]]) -> pd.DataFrame:
    """A kept frame with the documented columns and types, and those of the study's factors."""
    try:
        frame = pd.read_parquet(path)
        lacking = [name for name in documented if name not in frame.columns]
        versions = set(frame["schema"]) - {columns.FRAME_SCHEMA} if "schema" in frame.columns else set()
        if lacking or versions:
            what = f"it has no column {lacking[0]}" if lacking else f"its schema is {versions.pop()}"
            raise UserError(f"{path} is of another version ({what}; wanted: {columns.FRAME_SCHEMA})")
        factors = [name for name in frame.columns if name.startswith("factor:")]
        return columns.typed(frame[[*documented, *factors]], documented)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{path} cannot be read ({type(error).__name__}): write it again with `analysis keep`"
        ) from error
