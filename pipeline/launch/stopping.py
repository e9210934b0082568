"""Stopping what runs in other processes: asked once for a checkpoint, killed when the grace period is over.

One rule for studies and sweeps, here and on Slurm: Ctrl-C, SIGTERM or the time limit ask every running job, and nothing more is
started; a second Ctrl-C is `KeyboardInterrupt`.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from pipeline.launch.executor import Executor
from pipeline.launch.job import JobEnd
from pipeline.runs.preemption import StopRequest, stop_signals

GRACE_S = 300.0  # for a checkpoint after a request to stop; then the process is killed


class Stopper:
    """Decides when the jobs of `executor` are to stop, and sees to it that they do."""

    def __init__(self, executor: Executor, max_seconds: float | None, say: Callable[[str], None], what: str) -> None:
        self.why = ""  # why nothing more is started; "" as long as all goes on
        self._executor, self._max_seconds, self._say, self._what = executor, max_seconds, say, what
        self._began = time.monotonic()
        self._asked_at: float | None = None
        self._killed: set[str] = set()
        self._request = StopRequest()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the first Ctrl-C or SIGTERM as a request to stop while the block runs."""
        with stop_signals((signal.SIGINT, signal.SIGTERM), impatient=True) as self._request:
            yield

    def start_no_more(self, why: str) -> None:
        """Let what runs come to its end, and start nothing else."""
        self.why = self.why or why

    def look(self, running: Collection[str]) -> None:
        """Ask the running jobs to stop once it is time to, and kill those that do not; call it several times a second."""
        if self._asked_at is None:
            limit = self._max_seconds
            if self._request.asked:
                self._ask("interrupted", running)
            elif limit is not None and time.monotonic() - self._began > limit:
                self._ask(f"time limit of {limit / 3600:g} h reached", running)
        elif time.monotonic() - self._asked_at > GRACE_S:
            self._kill(running)

    def is_preempted(self, end: JobEnd) -> bool:
        """Whether a job was stopped, by us or from outside, and is to be started again; one that we killed is, too."""
        return end.preempted or self._is_late(end)

    def reason(self, end: JobEnd) -> str:
        """Why a job that is preempted was stopped."""
        late = f"; killed, as it had not stopped after {GRACE_S:g} s" if self._is_late(end) else ""
        return f"{self.why}{late}"

    def _is_late(self, end: JobEnd) -> bool:
        return end.run_id in self._killed and end.status == -signal.SIGKILL

    def _ask(self, why: str, running: Collection[str]) -> None:
        self.why, self._asked_at = why, time.monotonic()
        self._say(f"{why}: asking {len(running)} running {self._what}(s) to stop at a checkpoint")
        for run_id in running:
            self._executor.stop(run_id)

    def _kill(self, running: Collection[str]) -> None:
        deaf = [run_id for run_id in running if run_id not in self._killed]
        if deaf:
            self._say(f"{len(deaf)} {self._what}(s) had not stopped after {GRACE_S:g} s: killed")
        for run_id in deaf:
            self._killed.add(run_id)
            self._executor.kill(run_id)
