"""Where a number of a table comes from.

The runs behind a cell, their values, versions and the commands that made them.
"""

from __future__ import annotations

import hashlib
import shlex
from dataclasses import dataclass

import pandas as pd

from analysis.study import Study
from analysis.tables.model import Column, Row, Table, TableCell, heading
from pipeline.errors import UserError, nearest
from pipeline.records import RunRecord
from pipeline.records.external import EXTERNAL, import_command, origin


@dataclass(frozen=True)
class TracedRun:
    """One run behind a cell."""

    seed: int
    run_id: str
    state: str
    value: float | None
    reason: str  # why there is no value
    n: int  # images
    digest: str  # "intact", or what is wrong with the record's identity
    commit: str
    dirty: bool
    torch: str
    device: str
    finished: str
    origin: str  # of pictures that other code has made: folders and their digests; else ""
    command: str


@dataclass(frozen=True)
class Trace:
    """A cell with everything behind it."""

    row: Row
    column: Column
    cell: TableCell
    footnotes: tuple[str, ...]
    runs: tuple[TracedRun, ...]


def trace(study: Study, table: Table, row_name: str, column_name: str) -> Trace:
    """Trace one cell; rows and columns are named by key, label or metric.

    Raises UserError for names the table lacks.
    """
    row = _find_row(table, row_name)
    index = _find_column(table, column_name)
    column, cell = table.columns[index], row.cells[index]
    texts = dict(table.footnotes)
    marks = tuple(texts[mark] for mark in (*row.notes, *cell.notes))
    return Trace(row, column, cell, marks, tuple(_run(study, column, run_id) for run_id in cell.run_ids))


def _find_row(table: Table, name: str) -> Row:
    found = [row for row in table.rows if row.key == name] or [row for row in table.rows if row.label == name]
    if len(found) > 1:
        raise UserError(f"table {table.name!r} has {len(found)} rows {name!r}: {', '.join(row.key for row in found)}")
    if found:
        return found[0]
    known = [word for row in table.rows for word in dict.fromkeys((row.key, row.label))]
    raise UserError(
        f"table {table.name!r} has no row {name!r}{nearest(name, known)}; rows: {', '.join(r.key for r in table.rows)}"
    )


def _find_column(table: Table, name: str) -> int:
    numbered = list(enumerate(table.columns))
    found = [index for index, column in numbered if column.key == name] or [
        index for index, column in numbered if name in (column.label, column.metric, heading(column))
    ]
    if len(found) > 1:
        keys = ", ".join(table.columns[index].key for index in found)
        raise UserError(f"table {table.name!r} has {len(found)} columns {name!r}: {keys}")
    if found:
        return found[0]
    known = [column.key for column in table.columns]
    raise UserError(f"table {table.name!r} has no column {name!r}{nearest(name, known)}; columns: {', '.join(known)}")


def _run(study: Study, column: Column, run_id: str) -> TracedRun:
    facts = study.runs[study.runs["run_id"] == run_id].iloc[0]
    cell = next(cell for cell in study.manifest.cells if cell.run_id == run_id)
    rows = study.frame[(study.frame["run_id"] == run_id) & (study.frame["metric"] == column.metric)]
    rows = rows[rows["state"] == "trained"]
    of_column = rows[(rows["fingerprint"] == column.fingerprint) & (rows["status"] == "ok")]
    found = (of_column if len(of_column) else rows).head(1)
    value = found["value"].dropna()
    usable = facts["run_state"] == "finished" and len(of_column) > 0
    reason = (
        ""
        if usable
        else (str(facts["run_reason"]) or (str(found["reason"].iloc[0]) if len(found) else "no such metric"))
    )
    record = study.store.record(run_id)
    external = record.provenance.get("external", {}) if facts["kind"] == EXTERNAL else {}
    return TracedRun(
        seed=int(facts["seed"]),
        run_id=run_id,
        state=str(facts["run_state"]),
        value=float(value.iloc[0]) if usable else None,
        reason=reason,
        n=int(found["n"].iloc[0]) if len(found) else 0,
        digest=check_identity(record),
        commit=_text(facts["commit"]),
        dirty=bool(facts["dirty"]) if pd.notna(facts["dirty"]) else False,  # unknown where no record is at hand
        torch=_text(facts["torch"]),
        device=_text(facts["device"]),
        finished=_ended(record),
        origin=origin(external) if external else "",
        command=import_command(external) if external else "python -m pipeline train " + shlex.join(cell.overrides),
    )


def check_identity(record: RunRecord) -> str:
    """Whether the record's identity.json still has the digest that is its name: "intact", else what is wrong."""
    try:
        text = (record.path / "identity.json").read_bytes()
    except OSError:
        return "not here to check"
    return "intact" if hashlib.sha256(text).hexdigest() == record.id else "changed after the run"


def _ended(record: RunRecord) -> str:
    attempts = record.status.get("attempts") or []
    return str(attempts[-1].get("ended") or "") if attempts else ""


def _text(value: object) -> str:
    return str(value) if isinstance(value, str) else "unknown"


def describe(found: Trace) -> str:
    """The trace as lines for people."""
    fingerprint = found.column.fingerprint or "none (no value)"
    lines = [
        f"{found.row.label} / {heading(found.column)}: {found.cell.plain or 'empty'}",
        f"  mean of {found.cell.n} seed{'s' if found.cell.n != 1 else ''}, unrounded: "
        f"{found.cell.value!r}" + (f", std (ddof = 1): {found.cell.std!r}" if found.cell.std is not None else ""),
        f"  metric {found.column.metric}, protocol fingerprint {fingerprint}",
    ]
    lines += [f"  note: {text}" for text in found.footnotes]
    if not found.runs:
        lines.append("  no run of this study is behind it")
    for run in found.runs:
        value = f"{run.value!r} over {run.n} images" if run.value is not None else f"no value: {run.reason}"
        lines += [
            f"seed {run.seed}: {value}",
            f"  run     {run.run_id} ({run.state}{f', ended {run.finished}' if run.finished else ''}; identity {run.digest})",
            *([f"  origin  {run.origin}"] if run.origin else []),
            f"  code    {run.commit}{' with uncommitted changes' if run.dirty else ''}; torch {run.torch}; {run.device}",
            f"  command {run.command}",
        ]
    return "\n".join(lines) + "\n"
