"""What differs between two runs: config, provenance, metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.records import RunRecord
from pipeline.schema.base import differing, flat
from pipeline.schema.run import completed

# Provenance that differs between any two runs and says nothing.
PASSING = frozenset({"started", "ended", "host", "threads"})


@dataclass(frozen=True)
class Difference:
    """One key with its two values, as text."""

    part: str  # "config", "provenance" or "metric"
    key: str
    first: str
    second: str


def diff_runs(first: RunRecord, second: RunRecord) -> list[Difference]:
    """All differences of two records. Raises UserError for a damaged record."""
    found = [
        Difference("config", key, before, after)
        for key, before, after in differing(config_of(first), config_of(second))
    ]
    provenance = [
        {key: value for key, value in flat(record.provenance).items() if key.split(".")[0] not in PASSING}
        for record in (first, second)
    ]
    found += [Difference("provenance", key, before, after) for key, before, after in differing(*provenance)]
    metrics = [
        {
            f"{row.name} ({', '.join(filter(None, (row.protocol, row.split, row.state, row.fingerprint[:10])))})": (
                row.value if row.status == "ok" else row.status
            )
            for row in record.metrics
        }
        for record in (first, second)
    ]
    found += [Difference("metric", key, before, after) for key, before, after in differing(*metrics)]
    return found


def config_of(record: RunRecord) -> dict[str, Any]:
    """The identity-relevant config of a run, flat: {"model.family": "ca2sis", ...}."""
    return flat(completed(record.identity["config"]))
