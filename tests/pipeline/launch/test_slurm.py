"""The Slurm executor: submitit's local stand-in always, a real one-node Slurm under `make test-slurm`."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UserError
from pipeline.launch import slurm
from pipeline.launch.job import Job
from pipeline.launch.scheduler import Policy, run_tasks
from pipeline.launch.slurm import SlurmExecutor, SlurmTask, checkpoint_seconds, stop_file
from pipeline.launch.watch import NoWatch
from pipeline.records import RunStore, atomic
from tests.pipeline.launch.test_scheduler import CONTINUE, ENTRY, tasks, trained

SMALL = ["cpus_per_task=1", "mem_gb=0.2", "timeout_min=5"]


def run(
    executor: SlurmExecutor,
    out: Path,
    seeds: list[int],
    policy: Policy = CONTINUE,
    observer: Any = None,
    **options: Any,
) -> list[str]:
    outcomes = run_tasks(tasks(*seeds), out, executor, policy, observer or NoWatch(), entry=ENTRY, options=options)
    return [f"{outcome.how}{': ' if outcome.reason else ''}{outcome.reason}" for outcome in outcomes]


def local(tmp_path: Path) -> SlurmExecutor:
    pytest.importorskip("submitit", reason="needs the package submitit")
    return SlurmExecutor.from_settings([*SMALL, "cluster=local"], folder=tmp_path / "slurm", jobs=None)


def test_local_stand_in_runs_and_fails_like_any_executor(tmp_path: Path) -> None:
    assert run(local(tmp_path), tmp_path, [0, 1], plan={"1": "fail"}) == ["finished", "failed: it went wrong"]
    assert trained(tmp_path, 0) == [1, 2, 3]
    record = RunStore(tmp_path / "runs").record(tasks(0)[0].resolved.run_id)
    assert record.provenance["threads"] == "1"


def test_checkpoint_stops_the_child_and_asks_for_the_same_job_again(tmp_path: Path) -> None:
    submitit = pytest.importorskip("submitit", reason="needs the package submitit")
    task = SlurmTask(tmp_path / "job.json", 5.0)
    task._child = subprocess.Popen(["sleep", "60"], text=True)
    delayed = task.checkpoint()
    assert task._child.poll() is not None
    assert isinstance(delayed, submitit.helpers.DelayedSubmission)
    assert delayed.function.job_file == task.job_file and delayed.function._child is None
    assert delayed.function.checkpoint_s == 5.0
    assert stop_file(task.job_file) == tmp_path / "job.stop"


def test_a_checkpoint_may_take_what_the_signal_leaves_and_no_longer(tmp_path: Path) -> None:
    assert (checkpoint_seconds(120), checkpoint_seconds(30)) == (90, 15)
    pytest.importorskip("submitit", reason="needs the package submitit")
    task = SlurmTask(tmp_path / "job.json", 0.5)
    task._child = subprocess.Popen(["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"],
                                   stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert task._child.stdout is not None and task._child.stdout.readline() == "ready\n"
    task.checkpoint()
    assert task._child.wait() == -9, "it ignores the request, so the job would be lost at the limit"
    task._child.stdout.close()


def test_several_gpus_for_one_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gpus_per_node=2: .*torchrun --nproc_per_node=N -m pipeline train"):
        SlurmExecutor.from_settings(["gpus_per_node=2"], folder=tmp_path, jobs=None)


def test_a_controller_that_does_not_answer_decides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither is a submitted run given up, nor one that an earlier driver may have submitted submitted again."""
    executor = local(tmp_path)
    executor._cluster = "slurm"
    calls: list[str] = []

    def silent(command: list[str], **settings: Any) -> None:
        calls.append(command[0])
        raise subprocess.TimeoutExpired(command, settings["timeout"])

    monkeypatch.setattr(slurm.subprocess, "run", silent)
    monkeypatch.setattr(slurm, "LOOK_S", 0.0)
    job = Job.of(tasks(0)[0].resolved, tmp_path)
    atomic.write_json(tmp_path / "slurm" / "submitted.json", {job.run_id: "17"})
    executor.submit(job)
    for _ in range(5):
        assert executor.poll(0.0) == []
    assert set(calls) == {"squeue"} and [item.run_id for item in executor._pending] == [job.run_id]
    assert executor._state("17") == ""


@pytest.mark.parametrize("setting", ["partition=gpu", "timeout_min", "cpus=3"])
def test_unknown_settings_are_refused(tmp_path: Path, setting: str) -> None:
    with pytest.raises(UserError, match="unknown setting"):
        SlurmExecutor.from_settings([setting], folder=tmp_path, jobs=None)


def test_no_slurm_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit", reason="needs the package submitit")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="--executor slurm"):
        SlurmExecutor.from_settings([], folder=tmp_path, jobs=None)


# -- a real Slurm ------------------------------------------------------------------------------------------------------


def real(tmp_path: Path) -> SlurmExecutor:
    if shutil.which("sbatch") is None or subprocess.run(["sinfo"], capture_output=True).returncode:
        pytest.skip("needs a running Slurm: make test-slurm")
    return SlurmExecutor.from_settings([*SMALL, "slurm_signal_delay_s=30"], folder=tmp_path / "slurm", jobs=2)


def queue() -> list[str]:
    listed = subprocess.run(
        ["squeue", "--me", "--array", "--noheader", "--format=%i %T"], capture_output=True, text=True
    )
    return listed.stdout.splitlines()


@pytest.mark.slurm
def test_a_study_on_slurm_with_a_failure(tmp_path: Path) -> None:
    ends = run(real(tmp_path), tmp_path, [0, 1, 2], plan={"1": "fail"})
    assert ends == ["finished", "failed: it went wrong", "finished"]
    assert run(real(tmp_path), tmp_path, [0, 2]) == ["reused", "reused"]


class Once(NoWatch):
    """Does something to the jobs as soon as one has trained a little."""

    def __init__(self, command: list[str]) -> None:
        self.command = command
        self.done = ""

    def tick(self, running: Any) -> None:
        for _, record in running:
            if not self.done and (record.status["progress"] or {}).get("iteration", 0) >= 3:
                self.done = next(row.split()[0] for row in queue() if "RUNNING" in row)
                subprocess.run([*self.command, self.done], check=True)


@pytest.mark.slurm
@pytest.mark.parametrize(
    "command", [["scontrol", "requeue"], ["scancel", "--signal=USR2"]], ids=["preempted by Slurm", "time limit"]
)
def test_requeued_runs_continue_from_their_checkpoint(tmp_path: Path, command: list[str]) -> None:
    observer = Once(command)
    ends = run(real(tmp_path), tmp_path, [0], observer=observer, iterations=100, pause=0.1)
    assert observer.done and ends == ["finished"]
    assert trained(tmp_path, 0) == list(range(1, 101)), "nothing trained twice, nothing lost"
    attempts = RunStore(tmp_path / "runs").record(tasks(0)[0].resolved.run_id).status["attempts"]
    assert [attempt["outcome"] for attempt in attempts] == ["preempted", "finished"]


@pytest.mark.slurm
def test_time_limit_of_the_driver_stops_without_requeue(tmp_path: Path) -> None:
    ends = run(real(tmp_path), tmp_path, [0], Policy("continue", 0, 12.0, frozenset()), iterations=2000, pause=0.1)
    assert len(ends) == 1 and ends[0].startswith("preempted")
    deadline = time.monotonic() + 30
    while queue():
        assert time.monotonic() < deadline, queue()
        time.sleep(0.5)
    done = len(trained(tmp_path, 0))
    assert run(real(tmp_path), tmp_path, [0], iterations=done + 3) == ["finished"]
    assert trained(tmp_path, 0) == list(range(1, done + 4))
