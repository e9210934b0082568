"""A run that trains nothing, for `ablations run --entry pipeline.bench.nothing:train`: what is left is the cost of starting it."""

from __future__ import annotations

from typing import Any

import pipeline.launch.preload  # noqa: F401 - what the server forks is then as large as it is for training
from pipeline.config import ResolvedRun, to_yaml
from pipeline.records import MetricRow, RunRecord, RunStore


def train(resolved: ResolvedRun, store: RunStore, **_: Any) -> RunRecord:
    """Write the finished record of a run whose only number is made up."""
    record = store.record(resolved.run_id)
    with record.writing():
        record.create(resolved.identity, to_yaml(resolved.config))
        record.begin_attempt("trained")
        protocol = resolved.config.protocol
        record.add_metrics([MetricRow("psnr", 20.0, 1, "dB", "max", protocol.split, protocol.name, "nothing")])
        record.end_attempt("finished")
    return record
