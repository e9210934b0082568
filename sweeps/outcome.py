"""What a trial's run came to: the values of objectives and constraints, read from its record."""

from __future__ import annotations

import math

from pipeline.records import MetricRow
from pipeline.records.judge import cannot_judge, rests_on_segmenter
from pipeline.records.metric_specs import OF_THE_TRAINING_PROCESS
from pipeline.records.store import RunRecord
from sweeps.sweep import Sweep


def values_of(record: RunRecord, sweep: Sweep) -> tuple[dict[str, float] | None, str]:
    """(name -> value, ""), or (None, why not): trained state, the sweep's protocol, never the test split."""
    rows = [row for row in record.metrics if _counts(row, sweep)]
    found = {row.name: row.value for row in rows if row.value is not None}
    for name in (*sweep.objectives, *sweep.constraints):
        if not math.isfinite(found.get(name, math.nan)):
            reasons = [row.reason for row in rows if row.name == name and row.reason]
            said = reasons[0] if reasons else "the run has no such row"
            return None, f"no value of {name} under protocol {sweep.protocol}: {said}"
    return found, ""


def cannot_rank(record: RunRecord, sweep: Sweep) -> str:
    """Which objectives rest on a segmenter that cannot judge, and why it cannot; "" where none does or nothing is known."""
    blind = [name for name in sweep.objectives if rests_on_segmenter(name)]
    rows = [row for row in record.metrics if _counts(row, sweep) and row.value is not None] if blind else []
    reason = cannot_judge({row.name: row.value for row in rows if row.value is not None})
    return f"nothing is best by {', '.join(blind)}: {reason}" if reason else ""


def _counts(row: MetricRow, sweep: Sweep) -> bool:
    if row.state != "trained":
        return False
    if row.name in OF_THE_TRAINING_PROCESS:
        return True  # a reused run may have been trained under another protocol; no evaluation measures these again
    return row.protocol == sweep.protocol and row.split in ("val", "")  # "": no images are involved
