"""The Slurm executor: runs as job arrays through submitit, requeued when they are preempted or reach their time limit.

Inside a job, submitit's small process starts the run as a child and listens for signals: before the time limit (SIGUSR2) it has
the child save a checkpoint and requeues the job; when Slurm preempts (SIGTERM reaches the child too) it waits for the checkpoint.
A requeued job starts the same run again, which finds its newest sound checkpoint in its own folder. States are read from result
files and `squeue`, so no accounting database is needed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import UserError, nearest
from pipeline.launch.job import EXIT_FAILED, EXIT_PREEMPTED, Job, JobEnd
from pipeline.records import atomic
from pipeline.schema.yaml12 import read_yaml, scalar

DEFAULTS = Path(__file__).with_name("slurm.yaml")
LOOK_S = 3.0  # between two calls of squeue
REQUEUE_MARGIN_S = 30.0  # of the time before the limit: for the requeue, after the checkpoint
REQUEUE_S = 60.0  # for Slurm to take a preempted job away, before it is requeued from inside
SQUEUE_S = 60.0  # for squeue's answer
GONE_LOOKS = 3  # in a row without the job in the queue and without a result, before it is given up
MAX_TIMEOUTS = 1000  # requeues after the time limit


class SlurmTask:
    """What submitit pickles and calls in the job. Holds no state of the run: that is in the run's folder."""

    def __init__(self, job_file: Path, checkpoint_s: float) -> None:
        self.job_file = job_file
        self.checkpoint_s = checkpoint_s  # for the child's checkpoint before the time limit; then it is killed
        self._child: subprocess.Popen[str] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_child": None}

    def __call__(self) -> dict[str, Any]:
        """Run the job in a child; returns {"status", "message"}. A preempted run is requeued, unless it was asked to stop."""
        status, message = self._run()
        preempted = JobEnd("", status, message).preempted
        if preempted and not stop_file(self.job_file).exists() and "SLURM_JOB_ID" in os.environ:
            time.sleep(REQUEUE_S)  # Slurm preempts: it takes this job away now
            subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=False)
            time.sleep(REQUEUE_S)
        return {"status": EXIT_PREEMPTED if preempted else status, "message": message}

    def _run(self) -> tuple[int, str]:
        self._child = subprocess.Popen(
            [sys.executable, "-m", "pipeline.launch.entry", str(self.job_file)], stderr=subprocess.PIPE, text=True
        )
        assert self._child.stderr is not None, "stderr is a pipe"
        last = ""
        for line in self._child.stderr:  # the last line is the entry's explanation, the rest its log
            sys.stderr.write(line)
            last = line.strip() or last
        status = self._child.wait()
        return status, last if status else ""

    def checkpoint(self) -> Any:
        """submitit calls this before the time limit: stop the child at a checkpoint, then the job is requeued."""
        from submitit.helpers import DelayedSubmission

        if self._child is not None and self._child.poll() is None:
            self._child.terminate()
            try:
                self._child.wait(timeout=self.checkpoint_s)
            except subprocess.TimeoutExpired:
                self._child.kill()
        return DelayedSubmission(SlurmTask(self.job_file, self.checkpoint_s))


def checkpoint_seconds(signal_delay_s: float) -> float:
    """How long a checkpoint may take when the signal comes `signal_delay_s` before the time limit."""
    return max(signal_delay_s - REQUEUE_MARGIN_S, signal_delay_s / 2)


def stop_file(job_file: Path) -> Path:
    """Its presence says that the driver wants the run stopped, not requeued."""
    return job_file.with_suffix(".stop")


@dataclasses.dataclass
class _Submitted:
    job: Any  # submitit.Job
    job_file: Path
    missing: int = 0  # looks in a row without sign of it


class SlurmExecutor:
    """Hands over any number of runs; Slurm decides when they start."""

    def __init__(self, folder: Path, settings: dict[str, Any], *, jobs: int | None) -> None:
        self.slots = 1_000_000
        self._folder = folder.resolve()
        self._settings = settings
        self._cluster = settings["cluster"]
        self._checkpoint_s = checkpoint_seconds(settings["slurm_signal_delay_s"])
        if jobs is not None:
            settings["slurm_array_parallelism"] = jobs
        self._pending: list[Job] = []
        self._submitted: dict[str, _Submitted] = {}
        self._looked = 0.0
        self._executor = self._make_executor()

    @classmethod
    def from_settings(cls, items: Sequence[str], *, folder: Path, jobs: int | None) -> SlurmExecutor:
        """`items` are `KEY=VALUE` changes of `slurm.yaml`; further `slurm_*` keys go to sbatch."""
        settings: dict[str, Any] = read_yaml(DEFAULTS, "settings").values
        for item in items:
            key, equals, value = item.partition("=")
            if not equals or (key not in settings and not key.startswith("slurm_")):
                raise UserError(
                    f"--slurm {item}: unknown setting{nearest(key, list(settings))}; there are: {', '.join(settings)}"
                )
            settings[key] = scalar(value)
        gpus = settings["gpus_per_node"]
        if isinstance(gpus, int) and gpus > 1:  # a job starts one process, which uses one GPU: the others would idle
            raise UserError(
                f"--slurm gpus_per_node={gpus}: a run of a study has one GPU; one run on several is "
                "torchrun --nproc_per_node=N -m pipeline train ..."
            )
        return cls(folder, settings, jobs=jobs)

    def _make_executor(self) -> Any:
        try:
            import submitit
        except ImportError as error:
            raise UserError("--executor slurm needs the package submitit: pip install 'ca2sis-lab[slurm]'") from error
        values = {key: value for key, value in self._settings.items() if value is not None}
        delay = values.pop("slurm_signal_delay_s")
        cluster = values.pop("cluster")
        if cluster != "slurm":
            values = {key: value for key, value in values.items() if not key.startswith("slurm_")}
        else:
            values["slurm_signal_delay_s"] = delay
        try:
            executor = submitit.AutoExecutor(self._folder / "logs", cluster=cluster, slurm_max_num_timeout=MAX_TIMEOUTS)
            executor.update_parameters(name=self._folder.name, **values)
        except (RuntimeError, ValueError, TypeError, NameError, AssertionError) as error:
            raise UserError(f"--executor slurm: {' '.join(str(error).split())}") from error
        return executor

    def submit(self, job: Job) -> None:
        """Take the run; all runs taken before the next `poll` become one job array."""
        self._pending.append(dataclasses.replace(job, threads=int(self._settings["cpus_per_task"])))

    def poll(self, timeout_s: float) -> list[JobEnd]:
        self._flush()
        time.sleep(timeout_s)
        if time.monotonic() - self._looked < LOOK_S and self._cluster == "slurm":
            return []
        self._looked = time.monotonic()
        queued = self._queued() if self._submitted else set()
        if queued is None:
            return []
        ended = []
        for run_id, item in list(self._submitted.items()):
            end = self._end_of(run_id, item, queued)
            if end is not None:
                del self._submitted[run_id]
                ended.append(end)
        return ended

    def stop(self, run_id: str) -> None:
        """Ask for a checkpoint without requeue; a job that has not started is cancelled."""
        self._pending = [job for job in self._pending if job.run_id != run_id]
        item = self._submitted.get(run_id)
        if item is None:
            return
        with contextlib.suppress(UserError):
            atomic.write_text(stop_file(item.job_file), "")
        if self._cluster != "slurm":
            os.kill(int(item.job.job_id), signal.SIGTERM)
        elif self._state(item.job.job_id) in ("PENDING", "REQUEUED"):
            subprocess.run(["scancel", item.job.job_id], check=False)
        else:
            subprocess.run(["scancel", "--full", "--signal=TERM", item.job.job_id], check=False)

    def kill(self, run_id: str) -> None:
        item = self._submitted.get(run_id)
        if item is not None:
            item.job.cancel()

    def close(self) -> None:
        """Jobs outlive their driver: they stay queued, and the next driver finds them."""

    # -- inside ------------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        pending, self._pending = self._pending, []
        known = self._known()
        fresh: list[tuple[Job, Path]] = []
        queued = self._queued() if any(job.run_id in known for job in pending) else set()
        for job in pending:
            job_file = self._folder / "jobs" / f"{job.run_id}.json"
            stop_file(job_file).unlink(missing_ok=True)
            old = known.get(job.run_id)
            if old is not None and queued is None:  # perhaps submitted already: asked again at the next poll
                self._pending.append(job)
                continue
            if (
                old is not None and queued is not None and old in queued
            ):  # an earlier driver has submitted it, and it is still there
                self._submitted[job.run_id] = _Submitted(self._job(old), job_file)
                continue
            atomic.write_text(job_file, job.to_json())
            fresh.append((job, job_file))
        if not fresh:
            return
        with self._executor.batch():
            made = [self._executor.submit(SlurmTask(job_file, self._checkpoint_s)) for _, job_file in fresh]
        for (job, job_file), submitted in zip(fresh, made, strict=True):
            self._submitted[job.run_id] = _Submitted(submitted, job_file)
            known[job.run_id] = submitted.job_id
        atomic.write_json(self._folder / "submitted.json", known)

    def _known(self) -> dict[str, str]:
        path = self._folder / "submitted.json"
        known: dict[str, str] = atomic.read_json(path) if path.exists() else {}
        return known

    def _job(self, job_id: str) -> Any:
        import submitit

        return submitit.SlurmJob(folder=self._folder / "logs", job_id=job_id, tasks=[0])

    def _end_of(self, run_id: str, item: _Submitted, queued: set[str]) -> JobEnd | None:
        if item.job.paths.result_pickle.exists():
            error = item.job.exception()
            if error is not None:
                return JobEnd(run_id, EXIT_FAILED, f"Slurm job {item.job.job_id}: {' '.join(str(error).split())[:500]}")
            result = item.job.result()
            return JobEnd(run_id, result["status"], result["message"])
        present = item.job.job_id in queued if self._cluster == "slurm" else not item.job.done()
        item.missing = 0 if present else item.missing + 1
        if item.missing < GONE_LOOKS:
            return None
        if stop_file(item.job_file).exists():
            return JobEnd(run_id, EXIT_PREEMPTED, "cancelled before it ended")
        log = self._folder / "logs" / f"{item.job.job_id}_0_log.err"
        return JobEnd(
            run_id, EXIT_FAILED, f"Slurm job {item.job.job_id} left the queue without a result (killed?); see {log}"
        )

    def _queued(self) -> set[str] | None:
        """Ids of this user's jobs that Slurm still holds; None: the controller does not answer, so nothing is known."""
        if self._cluster != "slurm":
            return set()
        listed = _squeue("--me", "--array", "--format=%i %T")
        if listed is None:
            return None
        rows = [line.split() for line in listed.splitlines()]
        ended = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL", "BOOT_FAIL", "DEADLINE")
        return {row[0] for row in rows if len(row) == 2 and row[1] not in ended}

    def _state(self, job_id: str) -> str:
        return (_squeue("--format=%T", "--jobs", job_id) or "").strip()


def _squeue(*arguments: str) -> str | None:
    """What squeue lists; None when it fails or does not answer in time."""
    try:
        listed = subprocess.run(
            ["squeue", "--noheader", *arguments], capture_output=True, text=True, timeout=SQUEUE_S, check=True
        )
    except subprocess.SubprocessError:
        return None
    return listed.stdout
