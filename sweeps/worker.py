"""A worker: asks for trials, runs them, tells what came out, until the sweep has its trials. Any number may share a storage.

No end of a run stops the sweep: a failure or a NaN is told as a failed trial with its reason. Every trial is a run of the shared
store, so one that equals a finished run is not trained again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import Trial, TrialState

from pipeline.config import ResolvedRun, resolve
from pipeline.errors import UserError
from pipeline.launch.executor import Executor
from pipeline.launch.job import EXIT_BUSY, EXIT_FINISHED, TRAIN_ENTRY, Job, JobEnd
from pipeline.launch.stopping import Stopper
from pipeline.records.store import RunRecord, RunStore
from sweeps.leases import Leases, worker_name
from sweeps.outcome import values_of
from sweeps.report import describe
from sweeps.samplers import make_sampler
from sweeps.space import overrides, suggest
from sweeps.sweep import Sweep, all_overrides
from sweeps.trial import ENTRY

POLL_S = 0.25
LOOK_S = 1.0  # between two looks at the other workers' trials
BUSY_S = 1.0  # before a run that another process holds is tried again


@dataclass(frozen=True)
class Limits:
    """What bounds one worker."""

    trials: int  # of the sweep in all, over all workers and restarts
    max_seconds: float | None
    beat_s: float
    silence_s: float


@dataclass
class _Held:
    """A trial this worker holds."""

    trial_id: int
    number: int
    resolved: ResolvedRun
    kills: int = 0
    not_before: float = 0.0


@dataclass
class Worker:
    """One worker's state; `run` does it all."""

    sweep: Sweep
    study: optuna.Study
    url: str
    out: Path
    executor: Executor
    limits: Limits
    say: Callable[[str], None]
    entry: str = TRAIN_ENTRY  # what carries out a run
    running: dict[str, _Held] = field(default_factory=dict)  # run id -> trial
    waiting: list[_Held] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.storage = self.study._storage
        self.store = RunStore(self.out / "runs")
        self.leases = Leases(self.storage, worker_name(), self.limits.silence_s)
        self.stopper = Stopper(self.executor, self.limits.max_seconds, self.say, "trial")
        self._looked = self._beaten = 0.0
        self._enough = False

    def run(self) -> str:
        """Work until the sweep has its trials and none is running; returns why it stopped early, or ""."""
        with self.stopper.listening():
            while True:
                self.stopper.look(self.running)
                self._beat()
                if not self.stopper.why:
                    self._fill()
                for end in self.executor.poll(POLL_S):
                    self._ended(end)
                if not self.running and (
                    self.stopper.why or (not self.waiting and self._enough and not self._others_run())
                ):
                    break
        for held in self.waiting:
            self.leases.release(held.trial_id)
        return self.stopper.why

    # -- getting trials --------------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        while len(self.running) + len(self.waiting) < self.executor.slots:
            held = self._adopt() or self._ask()
            if held is None:
                break
            self.waiting.append(held)
        for held in list(self.waiting):
            if len(self.running) < self.executor.slots and time.monotonic() >= held.not_before:
                self.waiting.remove(held)
                self._start(held)

    def _adopt(self) -> _Held | None:
        """A running trial whose worker is gone."""
        if time.monotonic() - self._looked < LOOK_S:
            return None
        self._looked = time.monotonic()
        mine = {held.trial_id for held in (*self.running.values(), *self.waiting)}
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial._trial_id in mine or not self.leases.is_orphan(trial) or not self.leases.adopt(trial):
                continue
            self.say(f"trial {trial.number}: its worker is gone; continuing it")
            return self._hold(Trial(self.study, trial._trial_id))
        return None

    def _ask(self) -> _Held | None:
        """A new trial, unless the sweep has enough."""
        if self._enough:
            return None
        if self._count() >= self.limits.trials:
            self._enough = True
            return None
        trial = self.study.ask()
        if self._count(below=trial.number) >= self.limits.trials:  # other workers were quicker
            self._tell(trial._trial_id, trial.number, TrialState.FAIL, reason="surplus", attributes={"surplus": True})
            self._enough = True
            return None
        self.leases.take(trial._trial_id)
        return self._hold(trial)

    def _count(self, below: int | None = None) -> int:
        """Trials of the sweep proper (imported and surplus ones apart), those numbered under `below` where given."""
        return sum(
            "imported_from" not in trial.user_attrs
            and not trial.user_attrs.get("surplus")
            and (below is None or trial.number < below)
            for trial in self.study.get_trials(deepcopy=False)
        )

    def _hold(self, trial: Trial) -> _Held | None:
        """Let the sampler choose and resolve the run; a choice that cannot be resolved is a failed trial."""
        self.study.sampler = make_sampler(self.sweep.sampler, trial.number)
        chosen = overrides(suggest(trial, self.sweep.space))
        trial.set_user_attr("overrides", list(chosen))
        try:
            resolved = resolve(all_overrides(self.sweep, chosen))
        except UserError as error:
            self._tell(trial._trial_id, trial.number, TrialState.FAIL, reason=str(error))
            return None
        trial.set_user_attr("run_id", resolved.run_id)
        return _Held(trial._trial_id, trial.number, resolved)

    def _others_run(self) -> bool:
        """Whether another worker still has a trial; orphans among them are adopted by `_fill`."""
        return bool(self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))

    # -- running them ----------------------------------------------------------------------------------------------------

    def _start(self, held: _Held) -> None:
        record = self._record(held)
        if held.resolved.run_id in self.running:
            held.not_before = time.monotonic() + BUSY_S  # the same point twice: wait for the first
            self.waiting.append(held)
            return
        if held.resolved.is_complete(record):
            self._conclude(held, "reused")
            return
        if record.state == "pruned" and self.storage.get_trial(held.trial_id).intermediate_values:
            self._conclude(held, "finished")  # pruned by the trial itself, whose worker was killed before it could tell
            return
        twin = self._pruned_twin(held)
        if twin is not None:
            self._tell(held.trial_id, held.number, TrialState.PRUNED, reason=f"the same run as trial {twin}")
            return
        self.running[held.resolved.run_id] = held
        self.executor.submit(Job.of(held.resolved, self.out, entry=ENTRY, options=self._options(held)))

    def _options(self, held: _Held) -> dict[str, Any]:
        single = len(self.sweep.objectives) == 1
        resolved = held.resolved
        return {
            "storage": self.url,
            "study": self.study.study_name,
            "trial": held.trial_id,
            "metric": next(iter(self.sweep.objectives)) if single else None,
            "pruner": self.sweep.pruner.model_dump(),
            "iterations": resolved.images_seen() // resolved.config.train.batch_size,
            "entry": self.entry,
        }

    def _ended(self, end: JobEnd) -> None:
        held = self.running.pop(end.run_id)
        preempted = self.stopper.is_preempted(end)
        if end.status == EXIT_FINISHED:
            self._conclude(held, "finished")
        elif end.status == EXIT_BUSY or (preempted and not self.stopper.why):
            held.not_before = time.monotonic() + BUSY_S
            self.waiting.append(held)
        elif preempted:
            self.leases.release(held.trial_id)
        elif end.status < 0 and held.kills < self.sweep.retries:
            held.kills += 1
            self.say(f"trial {held.number}: {end.reason}; trying again")
            self.waiting.append(held)
        else:
            self._tell(held.trial_id, held.number, TrialState.FAIL, reason=end.reason)

    def _conclude(self, held: _Held, how: str) -> None:
        """Tell the values of a run that is finished or pruned."""
        record = self._record(held)
        if record.state == "pruned":
            self._tell(held.trial_id, held.number, TrialState.PRUNED, reason="stopped by the pruner")
            return
        values, reason = values_of(record, self.sweep)
        if values is None:
            self._tell(held.trial_id, held.number, TrialState.FAIL, reason=reason)
            return
        trial = Trial(self.study, held.trial_id)
        for name, bound in self.sweep.constraints.items():
            trial.set_constraint(name, values[name] - bound)
        told = [values[name] for name in self.sweep.objectives]
        self._tell(held.trial_id, held.number, TrialState.COMPLETE, values=told, attributes={"how": how})

    def _pruned_twin(self, held: _Held) -> int | None:
        """Number of a pruned trial of this study that was the same run."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.PRUNED,)):
            if trial.user_attrs.get("run_id") == held.resolved.run_id and trial.number != held.number:
                return trial.number
        return None

    def _tell(
        self,
        trial_id: int,
        number: int,
        state: TrialState,
        *,
        values: list[float] | None = None,
        reason: str = "",
        attributes: dict[str, Any] | None = None,
    ) -> None:
        try:
            for key, value in {"reason": reason, **(attributes or {})}.items():
                if value != "":
                    self.storage.set_trial_user_attr(trial_id, key, value)
            self.study.tell(number, values=values, state=state)
        except (UpdateFinishedTrialError, ValueError) as error:
            if not self.storage.get_trial(trial_id).state.is_finished():
                raise
            self.say(f"trial {number}: told by another worker already ({type(error).__name__})")
            return
        self.say(describe(self.storage.get_trial(trial_id), self.sweep))

    # -- housekeeping ----------------------------------------------------------------------------------------------------

    def _record(self, held: _Held) -> RunRecord:
        return self.store.record(held.resolved.run_id)

    def _beat(self) -> None:
        if time.monotonic() - self._beaten >= self.limits.beat_s:
            self._beaten = time.monotonic()
            self.leases.beat([held.trial_id for held in (*self.running.values(), *self.waiting)])
