"""Reading many run records at once: plain values, no objects a row, damage reported instead of raised.

Tables over thousands of runs must show a damaged record as a damaged cell, not die of it; `RunRecord` is for one run
at a time.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.records.atomic import is_locked
from pipeline.records.metric_specs import as_written_today
from pipeline.records.store import rows_of


@dataclass(frozen=True)
class RawRecord:
    """What a record's files hold, unvalidated. `damage` lists, in words, what could not be read."""

    run_id: str
    exists: bool
    state: str  # one of RUN_STATES, "missing" (no record) or "damaged" (status unreadable)
    status: dict[str, Any]
    provenance: dict[str, Any]
    metrics: list[dict[str, Any]]  # rows as `MetricRow.to_json` writes them
    damage: tuple[str, ...]


def read_raw(root: Path | str, run_id: str) -> RawRecord:
    """Read the status, provenance and metric rows of `root/run_id`; never raises for what the files hold.

    A record without any file reads as state "missing"; one that has been planned only as "planned".
    """
    folder = Path(root) / run_id
    damage: list[str] = []
    status = _read(folder / "status.json", damage)
    provenance = _read(folder / "provenance.json", damage) or {}
    document = _read(folder / "metrics.json", damage)
    if status is None and not damage:
        exists = (folder / "identity.json").exists()
        return RawRecord(run_id, exists, "planned" if exists else "missing", {}, provenance, [], ())
    status = status or {}
    state = status.get("state", "damaged")
    if state == "running" and not is_locked(folder / "run.lock"):
        state = "preempted"
    rows = [as_written_today(row, provenance) for row in _rows(document, damage)]
    return RawRecord(run_id, True, str(state), status, provenance, rows, tuple(damage))


def _read(path: Path, damage: list[str]) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        damage.append(f"{path.name} cannot be read: {(error.strerror or str(error)).lower()}")
        return None
    except ValueError:
        damage.append(f"{path.name} is cut off or not JSON")
        return None
    if not isinstance(value, dict):
        damage.append(f"{path.name} does not hold an object")
        return None
    return value


def _rows(document: dict[str, Any] | None, damage: list[str]) -> list[dict[str, Any]]:
    if document is None:
        return []
    try:
        return rows_of(document)
    except ValueError as error:
        damage.append(f"metrics.json: {error}; move it away and evaluate the run again")
        return []
