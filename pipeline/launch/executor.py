"""What the scheduler needs of a place where jobs run."""

from __future__ import annotations

from typing import Protocol

from pipeline.launch.job import Job, JobEnd


class Executor(Protocol):
    """Runs jobs in processes of their own, here or elsewhere."""

    slots: int  # jobs that may be handed over at once

    def submit(self, job: Job) -> None:
        """Start `job`, or queue it where the executor has a queue; returns at once."""

    def poll(self, timeout_s: float) -> list[JobEnd]:
        """Jobs that ended since the last call; waits up to `timeout_s` for the first."""

    def stop(self, run_id: str) -> None:
        """Ask a job to save a checkpoint and end; it is reported by `poll` like any other end."""

    def kill(self, run_id: str) -> None:
        """End a job without asking."""

    def close(self) -> None:
        """Release what the executor holds; running jobs are asked to stop."""
