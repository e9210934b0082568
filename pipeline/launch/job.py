"""A job: everything a fresh process needs to carry out one resolved run, and what its exit status means.

A job carries the *resolved* config, not overrides: what was planned is what runs, whatever happened to files in between. Where to
resume from is never part of it; the run's folder says that (a requeued job sends the same job again).
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import ResolvedRun
from pipeline.errors import UserError
from pipeline.records.store import RunRecord, RunStore
from pipeline.runs.preemption import EXIT_PREEMPTED as EXIT_PREEMPTED
from pipeline.runs.preemption import PREEMPTION

EXIT_FINISHED = 0
EXIT_FAILED = 1
EXIT_USER_ERROR = 2
EXIT_BUSY = 76  # another process holds the run

TRAIN_ENTRY = "pipeline.runs.run:execute"


@dataclass(frozen=True)
class Job:
    """One run to carry out in a process of its own."""

    run_id: str
    config: dict[str, Any]  # the resolved config as plain values
    identity: str  # canonical text whose sha256 is `run_id`
    data: dict[str, Any]  # data fingerprint
    out: str  # output folder; records lie in OUT/runs
    threads: int  # CPU threads of the process
    env: dict[str, str]  # set before the run starts, for instance CUDA_VISIBLE_DEVICES
    entry: str  # "module:function", see `load_entry`
    options: dict[str, Any]  # JSON values, keywords of the entry, not part of the run's identity

    @classmethod
    def of(
        cls,
        resolved: ResolvedRun,
        out: Path,
        *,
        entry: str = TRAIN_ENTRY,
        options: dict[str, Any] | None = None,
    ) -> Job:
        """The job of a resolved run; threads and environment are filled in by the executor."""
        return cls(
            run_id=resolved.run_id,
            config=resolved.config.model_dump(mode="json"),
            identity=resolved.identity,
            data=resolved.data,
            out=str(out.resolve()),
            threads=0,
            env={},
            entry=entry,
            options=options or {},
        )

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Job:
        return cls(**json.loads(text))

    @property
    def record(self) -> RunRecord:
        return RunStore(Path(self.out) / "runs").record(self.run_id)

    def resolved(self) -> ResolvedRun:
        """The run, validated again; `threads` of the config is filled in where it left the choice open."""
        from pipeline.schema.run import validate

        values = dict(self.config)
        if self.threads and values["threads"] == 0:
            values["threads"] = self.threads
        return ResolvedRun(validate(values), self.run_id, self.identity, self.data)


@dataclass(frozen=True)
class JobEnd:
    """How a job's process ended."""

    run_id: str
    status: int  # exit status, or minus the number of the signal that killed it
    message: str  # one line from the process, "" when it had no chance to say anything

    @property
    def preempted(self) -> bool:
        """Whether the run stopped because it was asked to, at a checkpoint or before it had its handlers: it can go on."""
        return self.status == EXIT_PREEMPTED or -self.status in PREEMPTION

    @property
    def reason(self) -> str:
        """One line for people."""
        if self.message:
            return self.message
        if self.status < 0:
            return f"killed by {signal.Signals(-self.status).name}"
        return f"exit status {self.status}"


def load_entry(entry: str) -> Callable[..., RunRecord]:
    """Import "module:function", which carries out a run: training, a trial of a sweep around it, or a plug-in.

    It is called as `function(resolved, store, progress=..., on_validation=..., **options)` and returns the run's record; a run that
    did not end well it raises, as `pipeline.runs.run.execute` does. `on_validation` (see there) is left out where nobody listens,
    `options` are the job's. Raises UserError when there is no such function, or it does not take these arguments.
    """
    module, _, name = entry.partition(":")
    try:
        function = vars(importlib.import_module(module)).get(name)
    except ImportError as error:
        raise UserError(f"entry {entry!r} cannot be imported: {error}") from error
    if not callable(function):
        raise UserError(f"entry {entry!r}: {module} has no function {name!r}")
    try:
        inspect.signature(function).bind_partial(None, None, progress=None, on_validation=None)
    except TypeError as error:
        takes = "(resolved, store, *, progress, on_validation=None, **options)"
        raise UserError(f"entry {entry!r}: must take {takes}: {error}") from error
    return function
