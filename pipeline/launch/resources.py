"""What a machine has and how it is divided: CPU threads among jobs, GPU slots one job each (or several, when asked)."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
from dataclasses import dataclass

from pipeline.errors import UserError
from pipeline.launch.job import Job
from pipeline.provenance import cpu_count


def visible_gpus() -> tuple[str, ...]:
    """CUDA devices by the names `CUDA_VISIBLE_DEVICES` takes, found without starting CUDA."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return tuple(name.strip() for name in chosen.split(",") if name.strip() not in ("", "-1"))
    if shutil.which("nvidia-smi") is None:
        return ()
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line.strip() for line in listed.stdout.splitlines() if line.strip().isdigit())


@dataclass
class Resources:
    """Slots of one machine: how many jobs at once, with how many threads, on which GPU."""

    jobs: int
    threads: int  # a job
    gpus: tuple[str, ...]  # empty: jobs run without assigned GPU
    per_gpu: int  # jobs that share one GPU
    limit: str  # what to tell the user when fewer jobs run than asked for, "" otherwise

    def __post_init__(self) -> None:
        self._taken: dict[str, str] = {}  # run id -> gpu

    @classmethod
    def divide(
        cls, jobs: int | None, *, most: int | None = None, per_gpu: int = 1, gpus: tuple[str, ...] | None = None
    ) -> Resources:
        """Divide this machine among `jobs` jobs (None: one a GPU slot, or one where there is no GPU).

        Not more than `most` (there is no more to do), nor than the GPU slots, are run at once; `limit` says so.
        """
        if jobs is not None and jobs < 1:
            raise UserError(f"--jobs {jobs}: must be at least 1")
        if per_gpu < 1:
            raise UserError(f"--per-gpu {per_gpu}: must be at least 1")
        found = visible_gpus() if gpus is None else gpus
        slots = len(found) * per_gpu
        count = min(jobs or slots or 1, most or jobs or slots or 1)
        limit = ""
        if found and count > slots:
            limit = f"{len(found)} GPU(s) with --per-gpu {per_gpu} take {slots} run(s) at once, not {count}; --per-gpu raises it"
            count = slots
        return cls(count, max(1, cpu_count() // count), found, per_gpu, limit)

    def assign(self, job: Job) -> Job:
        """`job` with its threads and, where there are GPUs, the least used one."""
        env = dict(job.env)
        if self.gpus:
            taken = list(self._taken.values())
            gpu = min(self.gpus, key=lambda name: (taken.count(name), self.gpus.index(name)))
            self._taken[job.run_id] = gpu
            env["CUDA_VISIBLE_DEVICES"] = gpu
        return dataclasses.replace(job, threads=self.threads, env=env)

    def release(self, run_id: str) -> None:
        self._taken.pop(run_id, None)
