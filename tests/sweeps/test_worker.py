"""Workers on a storage, with real processes and a trainer whose optimum is known."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from optuna.trial import TrialState

from pipeline.config import resolve
from pipeline.launch import stopping
from pipeline.launch.local import LocalExecutor
from pipeline.launch.resources import Resources
from sweeps import report
from sweeps.storage import open_storage, open_study
from sweeps.worker import Limits, Worker
from tests.sweeps.fakes import ENTRY, WEIGHT, sweep


def test_a_sweep_has_its_trials_and_continues_where_it_was(work: Any, tmp_path: Path) -> None:
    study, _ = work(sweep(), trials=3)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 3
    first = [trial.params for trial in study.trials]
    study, _ = work(sweep(), trials=6)
    assert len(study.trials) == 6
    chosen = [trial.params["loss.attention.weight"] for trial in study.trials]
    assert [trial.params for trial in study.trials][:3] == first and len(set(chosen)) == 6, (
        "the sampler is not replayed"
    )
    for trial in study.trials:
        run = resolve(["preset=tiny", "protocol=quick", "seed=0", *trial.user_attrs["overrides"]])
        assert run.run_id == trial.user_attrs["run_id"], "a trial is the run its overrides name"
        assert trial.value == pytest.approx(30.0 - math.log10(trial.params["loss.attention.weight"]) ** 2)
        assert list(trial.intermediate_values) == [1, 2, 3, 4, 5, 6]
    again, said = work(sweep(), trials=6)
    assert len(again.trials) == 6 and said == [], "a sweep that has its trials does nothing"


def test_failures_are_trials_with_a_reason(work: Any) -> None:
    space = {"loss.attention.weight": {"kind": "float", "low": 15.0, "high": 25.0}}
    study, _ = work(sweep(space=space, sampler={"kind": "qmc"}, trials=8))
    states = [trial.state for trial in study.trials]
    assert TrialState.FAIL in states and TrialState.COMPLETE in states and len(states) == 8
    for trial in study.trials:
        diverged = trial.params["loss.attention.weight"] > 20.0
        assert (trial.state == TrialState.FAIL) == diverged
        assert trial.user_attrs.get("reason", "") == ("loss is not finite" if diverged else "")


def test_equal_choices_are_one_run(work: Any, tmp_path: Path) -> None:
    space = {"loss.attention.weight": {"kind": "categorical", "choices": [0.1, 1.0]}}
    study, _ = work(sweep(space=space, trials=6))
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 6
    assert len({trial.user_attrs["run_id"] for trial in study.trials}) == len(list((tmp_path / "runs").iterdir())) == 2
    assert sum(trial.user_attrs["how"] == "reused" for trial in study.trials) == 4


def test_killed_runs_are_tried_again_and_resume(work: Any, tmp_path: Path) -> None:
    study, said = work(sweep(base=["preset=tiny", "notes=kill"], trials=2))
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2
    assert sum("SIGKILL; trying again" in line for line in said) == 2
    for trace in tmp_path.glob("runs/*/trained.txt"):
        assert trace.read_text().split() == ["1", "2", "3", "4", "5", "6"], "resumed, nothing trained twice"
    study, said = work(
        sweep(name="x", base=["preset=tiny", "notes=kill"], trials=1, retries=0, sampler={"kind": "random", "seed": 9})
    )
    assert study.trials[0].state == TrialState.FAIL and study.trials[0].user_attrs["reason"] == "killed by SIGKILL"


def test_the_median_pruner_stops_bad_trials(work: Any) -> None:
    space = {"loss.attention.weight": {"kind": "categorical", "choices": [1.0, 1.1, 1.2, 1.3, 0.001, 0.0001]}}
    pruner = {"kind": "median", "min_iterations": 2, "startup": 1}
    study, _ = work(sweep(space=space, pruner=pruner, trials=14, sampler={"kind": "random", "seed": 2}))
    pruned = [trial for trial in study.trials if trial.state == TrialState.PRUNED]
    assert pruned and all(len(trial.intermediate_values) in (0, 2, 3, 4, 5, 6) for trial in pruned)
    assert {trial.params["loss.attention.weight"] for trial in pruned} & {"0.001", "0.0001"}
    best = report.best_trials(study, sweep(space=space))[0]
    assert best.params["loss.attention.weight"] == "1.0"


def test_time_limit_releases_the_trial_and_the_next_worker_continues_it(work: Any, tmp_path: Path) -> None:
    made = sweep(base=["preset=tiny", "notes=pause"], trials=2)
    study, _ = work(made, max_seconds=0.2)
    running = [trial for trial in study.trials if trial.state == TrialState.RUNNING]
    assert [report.state_of(trial) for trial in running] == ["orphaned"] * len(running) and running
    study, said = work(made)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2, said
    for trace in tmp_path.glob("runs/*/trained.txt"):
        assert trace.read_text().split() == ["1", "2", "3", "4", "5", "6"]


def test_a_trial_that_does_not_stop_is_killed_and_continued_by_the_next_worker(
    work: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "GRACE_S", 0.3)
    made = sweep(base=["preset=tiny", "notes=deaf"], trials=1)

    def press() -> None:
        while [len(trace.read_text().split()) for trace in tmp_path.glob("runs/*/trained.txt")] != [2]:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    finger = threading.Thread(target=press, daemon=True)
    finger.start()
    study, said = work(made)
    assert not finger.is_alive()
    assert study.trials[0].state == TrialState.RUNNING and report.state_of(study.trials[0]) == "orphaned"
    assert said == ["interrupted: asking 1 running trial(s) to stop at a checkpoint",
                    "1 trial(s) had not stopped after 0.3 s: killed"]  # fmt: skip
    study, said = work(made)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE], said
    traces = [trace.read_text().split() for trace in tmp_path.glob("runs/*/trained.txt")]
    assert traces == [["1", "2", "3", "4", "5", "6"]], "resumed, nothing trained twice"


def test_constraints_and_two_objectives(work: Any) -> None:
    made = sweep(objectives={"psnr": "max", "params": "min"}, trials=8, sampler={"kind": "nsga2", "population": 4})
    study, _ = work(made)
    front = report.best_trials(study, made)
    numbers = [(trial.values[0], trial.values[1]) for trial in front]
    assert numbers == sorted(numbers, reverse=True), "quality and cost rise together along the front"
    assert all(trial.params["loss.attention.weight"] <= 1.1 for trial in front[1:])
    bound = sweep(name="c", constraints={"params": 2e6}, trials=8, sampler={"kind": "random", "seed": 4})
    study, _ = work(bound)
    assert any(not report.feasible(trial) for trial in study.trials)
    best = report.best_trials(study, bound)[0]
    assert best.params["loss.attention.weight"] <= 2.0


def test_a_memory_constraint(work: Any) -> None:
    """The fake's peak is its weight in GiB; the best PSNR, at weight 1, does not fit into half a GiB."""
    space = {"loss.attention.weight": {"kind": "categorical", "choices": [0.25, 0.5, 1.0]}}
    made = sweep(space=space, constraints={"peak_mem_gib": 0.5}, trials=9, sampler={"kind": "random", "seed": 1})
    study, _ = work(made)
    gaps = {(trial.params["loss.attention.weight"], trial.constraints["peak_mem_gib"]) for trial in study.trials}
    assert gaps == {("0.25", -0.25), ("0.5", 0.0), ("1.0", 0.5)}
    assert report.best_trials(study, made)[0].params["loss.attention.weight"] == "0.5"


@pytest.mark.parametrize("kind", ["tpe", "cmaes", "qmc", "random"])
def test_every_sampler_and_its_seed(work: Any, kind: str) -> None:
    space = {**WEIGHT, "train.batch_size": {"kind": "int", "low": 2, "high": 4}}
    made = sweep(space=space, trials=3, sampler={"kind": kind, "startup": 2})
    study, _ = work(made)
    points = {tuple(trial.params.values()) for trial in study.trials}
    assert len(points) == 3 and all(trial.state == TrialState.COMPLETE for trial in study.trials)


def test_one_worker_is_reproducible(tmp_path: Path) -> None:
    from sweeps.samplers import make_sampler
    from sweeps.space import suggest

    made = sweep(sampler={"kind": "tpe", "startup": 3, "seed": 5})

    def points() -> list[Any]:
        study = optuna.create_study(direction="maximize")
        for _ in range(8):
            trial = study.ask()
            study.sampler = make_sampler(made.sampler, trial.number)
            value = suggest(trial, made.space)["loss.attention.weight"]
            study.tell(trial, -abs(float(value) - 1.0))
        return [trial.params for trial in study.trials]

    assert points() == points()


def test_workers_share_a_sweep_exactly(tmp_path: Path) -> None:
    """Two workers at once: as many trials as asked for, no point twice, none surplus in sight."""
    made = sweep(base=["preset=tiny", "notes=pause"], trials=7)
    url = f"journal:{tmp_path / 'journal.log'}"
    open_study(open_storage(url), made)

    def one() -> None:
        executor = LocalExecutor(Resources(2, 1, (), 1, ""), preload=("optuna", "sweeps.trial", "tests.sweeps.fakes"))
        try:
            study = open_study(open_storage(url), made)
            Worker(made, study, url, tmp_path, executor, Limits(7, None, 0.5, 10.0), lambda text: None, ENTRY).run()
        finally:
            executor.close()

    workers = [threading.Thread(target=one) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
    study = open_study(open_storage(url), made)
    trials = report.proper(study)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 7
    assert len({trial.user_attrs["run_id"] for trial in trials}) == 7


def test_killed_worker(tmp_path: Path) -> None:
    """kill -9 of the whole worker in mid-trial: the next one continues the trial itself, at its checkpoint."""
    out = str(tmp_path)
    file = tmp_path / "w.yaml"
    file.write_text(yaml.safe_dump({
        "name": "w", "question": "?", "base": ["preset=tiny", "notes=pause"], "space": WEIGHT, "objectives": {"psnr": "max"},
        "trials": 3, "sampler": {"kind": "random"},
    }))  # fmt: skip
    command = [
        sys.executable,
        "-m",
        "sweeps",
        "run",
        str(file),
        "--out",
        out,
        "--entry",
        ENTRY,
        "--beat",
        "0.5",
        "--silence",
        "5",
    ]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("runs/*/trained.txt")):
        assert time.monotonic() < deadline and worker.poll() is None, worker.communicate()
        time.sleep(0.02)
    os.kill(worker.pid, 9)
    worker.communicate()
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "its worker is gone; continuing it" in done.stdout and "3 finished" in done.stdout
    traces = [trace.read_text().split() for trace in tmp_path.glob("runs/*/trained.txt")]
    assert traces == [["1", "2", "3", "4", "5", "6"]] * 3, "no trial lost, none doubled, nothing trained twice"
