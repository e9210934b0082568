"""Who works on which trial: leases that a killed worker cannot keep.

A worker writes its name and a beat into the trials it runs. A trial whose worker is gone (dead on this machine, or silent for
long) is adopted by another one: it stays the same trial and the same run, which resumes from its checkpoint.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

SETTLE_S = 1.0  # between taking an orphan and looking whether another worker took it too


def worker_name() -> str:
    """`host:pid:start`: the start time tells a process from a later one with its number."""
    return f"{socket.gethostname()}:{os.getpid()}:{_start_of(os.getpid())}"


def is_gone(name: str) -> bool:
    """Whether a worker of this machine has certainly ended; False where that cannot be known."""
    host, pid, start = name.rsplit(":", 2)
    if host != socket.gethostname():
        return False
    return _start_of(int(pid)) != start


def _start_of(pid: int) -> str:
    """Start time of a process in clock ticks, "" when there is none."""
    if sys.platform != "linux":
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return ""
        except PermissionError:
            pass
        return "alive"
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]  # 22nd field of proc(5); a zombie has ended


@dataclass
class Leases:
    """This worker's view of who is alive."""

    storage: BaseStorage
    name: str
    silence_s: float  # without a beat for so long, a worker elsewhere is given up
    seen: dict[int, tuple[str, float]] = field(default_factory=dict)  # trial id -> (worker and beat, when it changed)
    beats: int = 0

    def beat(self, trial_ids: list[int]) -> None:
        """Say that this worker lives and holds these trials."""
        self.beats += 1
        for trial_id in trial_ids:
            self.storage.set_trial_user_attr(trial_id, "beat", self.beats)

    def take(self, trial_id: int) -> None:
        self.storage.set_trial_user_attr(trial_id, "worker", self.name)

    def release(self, trial_id: int) -> None:
        """Let any worker adopt the trial at once."""
        self.storage.set_trial_user_attr(trial_id, "worker", "")

    def is_orphan(self, trial: FrozenTrial) -> bool:
        """Whether a running trial has no living worker. Uses this machine's clock alone, so clocks need not agree."""
        worker = trial.user_attrs.get("worker")
        if worker == "":
            return True
        if worker is not None and worker != self.name and is_gone(worker):
            return True
        pulse = f"{worker}/{trial.user_attrs.get('beat')}"
        last, since = self.seen.get(trial._trial_id, ("", 0.0))
        if pulse != last:
            self.seen[trial._trial_id] = (pulse, time.monotonic())
            return False
        return time.monotonic() - since > self.silence_s

    def adopt(self, trial: FrozenTrial) -> bool:
        """Take an orphan; True when, after a moment, the lease still stands."""
        self.take(trial._trial_id)
        time.sleep(SETTLE_S)
        held: str | None = self.storage.get_trial(trial._trial_id).user_attrs.get("worker")
        return held == self.name
