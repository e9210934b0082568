"""Entries that stand in for training: they use the real record and its lock, and cost nothing."""

from __future__ import annotations

import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

from pipeline.config import ResolvedRun, to_yaml
from pipeline.errors import RunFailed, UserError
from pipeline.records import MetricRow, RunRecord, RunStore
from pipeline.schema.families import family_of


def psnr(value: float, protocol: str) -> MetricRow:
    return MetricRow("psnr", value, 1, "dB", "max", "test", protocol, "fake-1")


class Stopped(RunFailed):
    exit_status = 75


def train(resolved: ResolvedRun, store: RunStore, **options: Any) -> RunRecord:
    """Count to `options["iterations"]`, one file line an iteration, with checkpoints; obey `options["plan"]` by seed.

    `plan`: {"<seed>": "fail" | "user_error" | "crash" | "kill" | "diverge" | "fail_once" | "full_once" | "deaf" | "orphan"}. Every
    iteration appends its number to `trained.txt`, so tests see what was done twice.
    """
    record = store.record(resolved.run_id)
    if record.state == "finished":
        return record
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stop.append(number))
    what = options.get("plan", {}).get(str(resolved.config.seed), "")
    with record.writing():
        record.create(resolved.identity, to_yaml(resolved.config))
        first = len(record.status["attempts"]) == 0
        record.begin_attempt("trained")
        if what == "user_error":
            record.end_attempt("failed", "no data here")
            raise UserError("no data here")
        if what == "fail" or (what == "fail_once" and first):
            record.end_attempt("failed", "it went wrong")
            raise RunFailed("it went wrong")
        if what == "full_once" and first:  # every file of this process ends at 100 bytes, like on a full disk
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        if what == "crash":
            record.end_attempt("failed", "ZeroDivisionError")
            raise ZeroDivisionError("a bug")
        if what == "diverge":
            record.end_attempt("diverged", "loss is not finite")
            raise RunFailed("loss is not finite")
        if what == "orphan":  # dies without a word and leaves a process behind that holds what it held open
            if os.fork() == 0:
                time.sleep(1.0)
                os._exit(0)
            os.kill(os.getpid(), signal.SIGKILL)
        total = int(options.get("iterations", 3))
        trace = record.path / "trained.txt"
        done = len(trace.read_text().split()) if trace.exists() else 0
        for iteration in range(done + 1, total + 1):
            if what == "kill" and first and iteration == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(float(options.get("pause", 0.0)))
            with Path(trace).open("a") as file:
                file.write(f"{iteration}\n")
            record.beat(iteration, total)
            if stop and what != "deaf":
                record.end_attempt("preempted", "stopped by SIGTERM")
                raise Stopped("stopped by SIGTERM")
        record.update_provenance(
            wall_seconds=1.0, images_seen=total, threads=os.environ.get("OMP_NUM_THREADS"), pid=os.getpid(),
            gpu=os.environ.get("CUDA_VISIBLE_DEVICES"),
        )  # fmt: skip
        record.add_metrics([psnr(20.0 + resolved.config.seed, resolved.config.protocol.name)])
        record.end_attempt("finished")
    return record


def misbehave(resolved: ResolvedRun, store: RunStore, **options: Any) -> RunRecord:
    """`train`, where the painter fails and SPADE diverges: for commands, which hand over no options."""
    what = {"painter": "fail", "spade": "diverge"}.get(family_of(resolved.config.model), "")
    return train(resolved, store, **{**options, "plan": {str(resolved.config.seed): what}})


def slowly(resolved: ResolvedRun, store: RunStore, **options: Any) -> RunRecord:
    """`train`, for half a minute."""
    return train(resolved, store, **{**options, "iterations": 1500, "pause": 0.02})
