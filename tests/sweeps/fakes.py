"""A trainer with a known objective: PSNR is best at attention weight 1, and the record is a real one. And small sweeps on it."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.config import ResolvedRun, to_yaml
from pipeline.errors import RunFailed
from pipeline.progress import Progress
from pipeline.records import MetricRow, RunRecord, RunStore
from sweeps.sweep import Sweep, parse_sweep

ITERATIONS = 6
ENTRY = "tests.sweeps.fakes:train"
WEIGHT = {"loss.attention.weight": {"kind": "float", "low": 0.01, "high": 10.0, "log": True}}


def sweep(**more: Any) -> Sweep:
    """A sweep over the attention weight, with `more` of a sweep file's keys."""
    base = {"name": "w", "question": "?", "base": ["preset=tiny"], "space": WEIGHT, "objectives": {"psnr": "max"},
            "trials": 5, "sampler": {"kind": "random"}}  # fmt: skip
    return parse_sweep({**base, **more}, "test")


class Stopped(RunFailed):
    exit_status = 75


def psnr_at(weight: float) -> float:
    return 30.0 - math.log10(weight) ** 2


def train(
    resolved: ResolvedRun,
    store: RunStore,
    *,
    progress: Progress,
    on_validation: Callable[[int, dict[str, float]], bool] | None = None,
) -> RunRecord:
    """Six iterations with a validation each; weights above 20 diverge, `notes` says what else to do.

    notes: "pause" makes an iteration take 0.05 s, "kill" kills each run once at its third iteration,
    "deaf" works on its third iteration for a minute and never stops when asked,
    "unavailable" leaves PSNR without a value where the weight is above 1.
    """
    record = store.record(resolved.run_id)
    if record.state == "finished":
        return record
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stop.append(number))
    weight = resolved.config.model_dump()["loss"]["attention"]["weight"]
    notes = resolved.config.notes
    with record.writing():
        record.create(resolved.identity, to_yaml(resolved.config))
        first = not record.status["attempts"]
        record.begin_attempt("trained")
        if weight > 20.0:
            record.end_attempt("diverged", "loss is not finite")
            raise RunFailed("loss is not finite")
        trace = record.path / "trained.txt"
        done = len(trace.read_text().split()) if trace.exists() else 0
        for iteration in range(done + 1, ITERATIONS + 1):
            if "pause" in notes:
                time.sleep(0.05)
            if "deaf" in notes and first and iteration == 3:
                time.sleep(60.0)  # a signal's handler runs and the sleep goes on
            if "kill" in notes and first and iteration == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            with Path(trace).open("a") as file:
                file.write(f"{iteration}\n")
            record.beat(iteration, ITERATIONS)
            value = psnr_at(weight) * iteration / ITERATIONS
            if on_validation is not None and on_validation(iteration, {"psnr": value}):
                record.end_attempt("pruned", "stopped by the pruner")
                return record
            if stop and "deaf" not in notes:
                record.end_attempt("preempted", "stopped")
                raise Stopped("stopped")
        rows = [MetricRow("psnr", psnr_at(weight), 1, "dB", "max", "val", "quick", "fake"),
                MetricRow("params", 1e6 * weight, 1, "", "none", "", "quick", "fake"),
                MetricRow("peak_mem_gib", weight, 1, "GiB", "min", "", "quick", "fake")]  # fmt: skip
        if "unavailable" in notes and weight > 1.0:
            rows[0] = MetricRow(
                "psnr", None, 0, "dB", "max", "val", "quick", "fake", "trained", "unavailable", "no weights"
            )
        record.add_metrics(rows)
        record.end_attempt("finished")
    return record
