"""Threads and GPU slots."""

from __future__ import annotations

from collections import Counter

import pytest

from pipeline.config import resolve
from pipeline.errors import UserError
from pipeline.launch import resources
from pipeline.launch.job import Job
from pipeline.launch.resources import Resources


def job(seed: int, tmp: str = "out") -> Job:
    return Job(f"{seed:064x}", {}, "", {}, tmp, 0, {}, "m:f", {})


@pytest.mark.parametrize(
    ("cpus", "jobs", "most", "count", "threads"),
    [(8, None, None, 1, 8), (8, 2, None, 2, 4), (8, 16, None, 16, 1), (64, 64, 7, 7, 9), (2, 2, 1, 1, 2)],
)
def test_threads_are_divided(
    monkeypatch: pytest.MonkeyPatch, cpus: int, jobs: int | None, most: int | None, count: int, threads: int
) -> None:
    monkeypatch.setattr(resources, "cpu_count", lambda: cpus)
    divided = Resources.divide(jobs, most=most, gpus=())
    assert (divided.jobs, divided.threads) == (count, threads)
    assert divided.assign(job(0)).threads == threads


def test_every_gpu_gets_its_share() -> None:
    divided = Resources.divide(None, per_gpu=2, gpus=("0", "3", "5"))
    assert divided.jobs == 6 and divided.limit == ""
    given = [divided.assign(job(seed)).env["CUDA_VISIBLE_DEVICES"] for seed in range(6)]
    assert Counter(given) == {"0": 2, "3": 2, "5": 2}
    divided.release(job(2).run_id)
    assert divided.assign(job(7)).env["CUDA_VISIBLE_DEVICES"] == given[2], "a freed slot is the next one used"


def test_more_jobs_than_gpu_slots_is_said() -> None:
    divided = Resources.divide(8, gpus=("0",))
    assert divided.jobs == 1 and "--per-gpu" in divided.limit


def test_visible_gpus_obey_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-ab")
    assert resources.visible_gpus() == ("2", "GPU-ab")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert resources.visible_gpus() == ()


@pytest.mark.parametrize(("jobs", "per_gpu"), [(0, 1), (-3, 1), (1, 0)])
def test_nonsense_is_refused(jobs: int, per_gpu: int) -> None:
    with pytest.raises(UserError, match="at least 1"):
        Resources.divide(jobs, per_gpu=per_gpu, gpus=())


def test_a_job_survives_its_json_and_keeps_the_run() -> None:
    from pathlib import Path

    run = resolve(["preset=tiny", "model=painter"])
    made = Job.of(run, Path("out"))
    assert Job.from_json(made.to_json()) == made
    again = made.resolved()
    assert (again.run_id, again.identity, again.config) == (run.run_id, run.identity, run.config)
