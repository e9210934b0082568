"""The scheduler: carries out what is missing of a list of runs, and says how each one ended.

State is read from the run store, never from memory alone: a run that another driver has finished is reused, one that another
driver is running is waited for, one that a kill has left behind is resumed. Two schedulers on the same runs share the work.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from pipeline.config import ResolvedRun
from pipeline.errors import UserError
from pipeline.launch.executor import Executor
from pipeline.launch.job import EXIT_BUSY, EXIT_FINISHED, EXIT_USER_ERROR, TRAIN_ENTRY, Job, JobEnd
from pipeline.launch.stopping import Stopper
from pipeline.records.store import RunRecord, RunStore

POLL_S = 0.25
RESTARTS = 20  # of one run after preemptions from outside, in one call

How = Literal["reused", "finished", "failed", "diverged", "preempted", "left"]


@dataclass(frozen=True)
class Task:
    """One run to have."""

    name: str  # for people: arm and seed
    resolved: ResolvedRun


@dataclass(frozen=True)
class Outcome:
    """How one task ended in this call."""

    task: Task
    how: How  # left: not started (stopped before), preempted: started, stopped at a checkpoint
    reason: str
    seconds: float  # in this call, all attempts


@dataclass(frozen=True)
class Policy:
    """What to do when a run fails, and when to stop."""

    on_error: Literal["continue", "stop", "retry"]
    retries: int  # further attempts of a failed run when `on_error` is "retry"
    max_seconds: float | None  # then running runs are asked to stop at a checkpoint
    again: frozenset[str]  # states that are normally an end but are to be run again: "diverged"

    @classmethod
    def parse(cls, on_error: str, *, max_hours: float | None = None, again: Sequence[str] = ()) -> Policy:
        """Read the command line's `continue`, `stop` or `retry=K`."""
        kind, _, count = on_error.partition("=")
        if kind in ("continue", "stop") and not count:
            retries = 0
        elif kind == "retry" and count.isdigit() and int(count) > 0:
            retries = int(count)
        else:
            raise UserError(f"--on-error {on_error}: allowed are continue, stop and retry=K with K from 1")
        if max_hours is not None and max_hours <= 0:
            raise UserError(f"--max-hours {max_hours}: must be more than 0")
        return cls(kind, retries, None if max_hours is None else max_hours * 3600.0, frozenset(again))  # type: ignore[arg-type]


class Observer(Protocol):
    """Watches the scheduler; see `pipeline.launch.watch`."""

    def begin(self, total: int) -> None:
        """`total` tasks are to be had."""

    def started(self, task: Task) -> None:
        """An attempt begins."""

    def ended(self, outcome: Outcome) -> None:
        """A task has its outcome."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def tick(self, running: Sequence[tuple[Task, RunRecord]]) -> None:
        """Called several times a second."""

    def close(self) -> None:
        """The end."""


def run_tasks(
    tasks: Sequence[Task],
    out: Path,
    executor: Executor,
    policy: Policy,
    observer: Observer,
    *,
    entry: str = TRAIN_ENTRY,
    options: dict[str, Any] | None = None,
) -> list[Outcome]:
    """Have all `tasks`; returns one outcome each, in their order. Ctrl-C or SIGTERM stops at checkpoints (twice: at once)."""
    unique = {task.resolved.run_id: task for task in tasks}
    if len(unique) != len(tasks):
        raise ValueError("tasks must have different run ids")
    work = _Work(list(tasks), RunStore(out / "runs"), out, executor, policy, observer, entry, options or {})
    observer.begin(len(tasks))
    try:
        with work.stopper.listening():
            work.go()
    finally:
        observer.close()
    return [work.outcomes[task.resolved.run_id] for task in tasks]


@dataclass
class _Work:
    """The state of one call of `run_tasks`."""

    tasks: list[Task]
    store: RunStore
    out: Path
    executor: Executor
    policy: Policy
    observer: Observer
    entry: str
    options: dict[str, Any]
    waiting: deque[Task] = field(default_factory=deque)
    running: dict[str, tuple[Task, float]] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    restarts: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    noted: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.stopper = Stopper(self.executor, self.policy.max_seconds, self.observer.note, "run")

    def go(self) -> None:
        for task in self.tasks:
            if not self._settled(task):
                self.waiting.append(task)
        while self.waiting or self.running:
            self.stopper.look(self.running)
            if self.stopper.why:
                self._leave_waiting()
            else:
                self._fill()
            for end in self.executor.poll(POLL_S) if self.waiting or self.running else []:
                self._ended(end)
            self.observer.tick([(task, self._record(task)) for task, _ in self.running.values()])

    def _record(self, task: Task) -> RunRecord:
        return self.store.record(task.resolved.run_id)

    def _settled(self, task: Task) -> bool:
        """Give a task its outcome if the store already has it."""
        record = self._record(task)
        if task.resolved.is_complete(record):
            self._conclude(task, "reused", "")
        elif record.state == "diverged" and "diverged" not in self.policy.again:
            self._conclude(
                task, "diverged", f"{record.status['reason']} (recorded; --again diverged runs it once more)"
            )
        else:
            return False
        return True

    def _fill(self) -> None:
        """Start waiting tasks in free slots; tasks that another process is running stay waiting."""
        for _ in range(len(self.waiting)):
            if len(self.running) >= self.executor.slots:
                return
            task = self.waiting.popleft()
            if self._record(task).is_live:
                self._note_once(f"{task.name}: run by another process, waiting for it")
                self.waiting.append(task)
            elif not self._settled(task):  # another driver may have ended it since the last look
                self._start(task)

    def _start(self, task: Task) -> None:
        run_id = task.resolved.run_id
        self.running[run_id] = (task, time.monotonic())
        self.attempts[run_id] = self.attempts.get(run_id, 0) + 1
        self.observer.started(task)
        self.executor.submit(Job.of(task.resolved, self.out, entry=self.entry, options=self.options))

    def _ended(self, end: JobEnd) -> None:
        task, began = self.running.pop(end.run_id)
        self.seconds[end.run_id] = self.seconds.get(end.run_id, 0.0) + time.monotonic() - began
        state = self._record(task).state
        preempted, stopping = self.stopper.is_preempted(end), bool(self.stopper.why)
        if end.status == EXIT_FINISHED:
            self._conclude(task, "finished", "")
        elif end.status == EXIT_BUSY:
            self._note_once(f"{task.name}: run by another process, waiting for it")
            self.waiting.append(task)
        elif preempted and stopping:
            self._conclude(task, "preempted", f"{self.stopper.reason(end)}; run again to continue")
        elif preempted and self.restarts.get(end.run_id, 0) < RESTARTS:
            self.restarts[end.run_id] = self.restarts.get(end.run_id, 0) + 1
            self.observer.note(f"{task.name}: {end.reason}; resuming")
            self.waiting.append(task)
        elif state == "diverged":
            self._conclude(task, "diverged", end.reason)
        elif self.attempts[end.run_id] <= self.policy.retries and end.status != EXIT_USER_ERROR and not stopping:
            self.observer.note(f"{task.name}: {end.reason}; attempt {self.attempts[end.run_id] + 1} follows")
            self.waiting.append(task)
        else:
            self._conclude(task, "failed", end.reason)

    def _conclude(self, task: Task, how: How, reason: str) -> None:
        run_id = task.resolved.run_id
        outcome = Outcome(task, how, reason, self.seconds.get(run_id, 0.0))
        self.outcomes[run_id] = outcome
        self.observer.ended(outcome)
        if how in ("failed", "diverged") and self.policy.on_error == "stop":
            self.stopper.start_no_more(f"stopped after {task.name} {how}")

    def _leave_waiting(self) -> None:
        while self.waiting:
            self._conclude(self.waiting.popleft(), "left", self.stopper.why)

    def _note_once(self, text: str) -> None:
        if text not in self.noted:
            self.noted.add(text)
            self.observer.note(text)
