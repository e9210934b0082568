"""Numbers that no run record of ours holds: published in papers, or logged by other code. Kept apart in every table.

They lie as `OUT/<study>/imported/*.json`, one file an import, each row with its source. They are never ranked with or
tested against the study's own runs: their protocol is only as good as their source says.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from analysis import columns
from pipeline.errors import UserError
from pipeline.records.atomic import read_json, write_json

SCHEMA = 1


def load_imported(folder: Path) -> pd.DataFrame:
    """All imported rows of the study in `folder`, columns `columns.IMPORTED`, in order of file name and row."""
    rows: list[dict[str, Any]] = []
    for path in sorted((folder / "imported").glob("*.json")):
        document = read_json(path)
        if (
            not isinstance(document, dict)
            or document.get("schema") != SCHEMA
            or not isinstance(document.get("rows"), list)
            or not all(isinstance(row, dict) for row in document["rows"])
        ):
            raise UserError(f"{path} is not an import of this version: import it again")
        rows += document["rows"]
    try:  # a column that an older import does not have is empty
        return columns.typed(pd.DataFrame(rows, columns=list(columns.IMPORTED)), columns.IMPORTED)
    except (TypeError, ValueError) as error:
        raise UserError(f"{folder / 'imported'}: holds a value that is no number ({error}): import it again") from error


def load_document(folder: Path, name: str) -> dict[str, Any] | None:
    """One import as it was written, or None when there is none of this name (or of another version)."""
    path = folder / "imported" / f"{name}.json"
    document = read_json(path) if path.exists() else None
    return document if isinstance(document, dict) and document.get("schema") == SCHEMA else None


def save_imported(
    folder: Path, name: str, origin: str, rows: list[dict[str, Any]], *, request: dict[str, Any] | None = None
) -> Path:
    """Write one import; one of the same name is replaced. `request` is what was asked for. Returns the file."""
    path = folder / "imported" / f"{name}.json"
    write_json(path, {"schema": SCHEMA, "origin": origin, "request": request or {}, "rows": rows})
    return path
