"""What a trial is told: values from the right rows, failures with their reason, runs that were there before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from pipeline.config import resolve
from pipeline.launch.job import Job, JobEnd
from pipeline.launch.scheduler import Policy, Task, run_tasks
from pipeline.launch.watch import NoWatch
from pipeline.records import MetricRow, RunRecord, RunStore
from sweeps.outcome import cannot_rank, values_of
from sweeps.storage import open_storage, open_study
from sweeps.sweep import all_overrides
from sweeps.worker import Limits, Worker
from tests.sweeps.fakes import ENTRY, psnr_at, sweep

PSNR = MetricRow("psnr", 30.0, 8, "dB", "max", "val", "quick", "good")
SPEED = MetricRow("train_images_per_s", 5.0, 6, "images/s", "max", "", "quick", "clock")


def weights(*choices: float) -> dict[str, Any]:
    return {"loss.attention.weight": {"kind": "categorical", "choices": list(choices)}}


def record_of(tmp_path: Path, *rows: MetricRow) -> RunRecord:
    resolved = resolve(all_overrides(sweep(), ()))
    record = RunStore(tmp_path / "runs").record(resolved.run_id)
    with record.writing():
        record.create(resolved.identity, "")
        record.add_metrics(rows)
    return record


def test_only_the_trained_row_of_the_protocol_and_split_counts(tmp_path: Path) -> None:
    planted = [
        replace(PSNR, value=99.0, split="test", fingerprint="t"),
        replace(PSNR, value=98.0, split="train", fingerprint="s"),
        replace(PSNR, value=97.0, protocol="standard", fingerprint="p"),
        replace(PSNR, value=96.0, state="untrained"),
    ]
    assert values_of(record_of(tmp_path, PSNR, *planted), sweep()) == ({"psnr": 30.0}, "")
    reason = "no value of psnr under protocol quick: the run has no such row"
    assert values_of(record_of(tmp_path / "planted", *planted), sweep()) == (None, reason)


def test_an_objective_whose_segmenter_cannot_judge_says_so(tmp_path: Path) -> None:
    made = sweep(objectives={"seg_miou": "max", "psnr": "max"})
    seg = MetricRow("seg_miou", 0.05, 8, "", "max", "val", "quick", "m")
    low = replace(seg, name="seg_skill_low", value=0.01, direction="none")
    bounds = [replace(low, name="seg_miou_real", value=0.052), replace(low, name="seg_miou_floor", value=0.045), low]
    blind = record_of(tmp_path, PSNR, seg, *bounds)
    said = cannot_rank(blind, made)
    assert said.startswith(
        "nothing is best by seg_miou: the segmenter cannot judge these photos: mIoU 0.052 on the real"
    )
    assert cannot_rank(blind, sweep()) == "", "psnr rests on pixels"
    able = record_of(tmp_path / "able", PSNR, seg, *bounds[:2], replace(low, value=0.3))
    assert cannot_rank(able, made) == ""
    assert cannot_rank(record_of(tmp_path / "old", PSNR, seg, bounds[0]), made) == "", "nothing is known"


def test_what_training_cost_counts_whichever_protocol_it_was_trained_under(tmp_path: Path) -> None:
    made = sweep(objectives={"psnr": "max", "train_images_per_s": "max"}, constraints={"peak_mem_gib": 4.0})
    peak = MetricRow("peak_mem_gib", 2.0, 1, "GiB", "min", "", "standard", "peak")
    found = values_of(record_of(tmp_path, PSNR, replace(SPEED, protocol="standard"), peak), made)
    assert found == ({"psnr": 30.0, "train_images_per_s": 5.0, "peak_mem_gib": 2.0}, "")


def test_no_value_is_a_failed_trial_with_its_reason_and_stops_nothing(work: Any) -> None:
    made = sweep(base=["preset=tiny", "notes=unavailable"], space=weights(0.5, 1.0, 2.0), trials=9)
    study, _ = work(made)
    assert len(study.trials) == 9
    for trial in study.trials:
        lost = trial.params["loss.attention.weight"] == "2.0"
        assert trial.state == (TrialState.FAIL if lost else TrialState.COMPLETE)
        reason = "no value of psnr under protocol quick: no weights" if lost else None
        assert trial.user_attrs.get("reason") == reason
    assert {trial.state for trial in study.trials} == {TrialState.FAIL, TrialState.COMPLETE}


def test_a_run_of_a_study_is_not_trained_again(work: Any, executor: Any, tmp_path: Path) -> None:
    made = sweep(space=weights(0.5, 2.0), trials=4)
    task = Task("arm, seed 0", resolve(["preset=tiny", "protocol=quick", "loss.attention.weight=0.5", "seed=0"]))
    (outcome,) = run_tasks([task], tmp_path, executor, Policy.parse("continue"), NoWatch(),
                           entry="tests.sweeps.fakes:train")  # fmt: skip
    assert outcome.how == "finished"
    study, _ = work(made)
    same = [trial for trial in study.trials if trial.params["loss.attention.weight"] == "0.5"]
    assert same and all(trial.user_attrs["run_id"] == task.resolved.run_id for trial in same)
    assert {(trial.value, trial.user_attrs["how"]) for trial in same} == {(psnr_at(0.5), "reused")}
    trace = tmp_path / "runs" / task.resolved.run_id / "trained.txt"
    assert trace.read_text().split() == ["1", "2", "3", "4", "5", "6"], "trained once, by the study"
    assert len(list((tmp_path / "runs").iterdir())) == len({trial.user_attrs["run_id"] for trial in study.trials})


@pytest.mark.parametrize(("own", "trained"), [(True, []), (False, ["1", "2", "3", "4", "5", "6"])])
def test_a_trial_killed_between_pruning_and_telling(work: Any, tmp_path: Path, own: bool, trained: list[str]) -> None:
    """Its run is pruned and it has reported: it was pruned. Without a report, the pruned run is another sweep's."""
    made = sweep(trials=1)
    study = open_study(open_storage(f"journal:{tmp_path / 'journal.log'}"), made)
    trial = study.ask()
    weight = trial.suggest_float("loss.attention.weight", 0.01, 10.0, log=True)
    trial.set_user_attr("worker", "")
    if own:
        trial.report(1.0, 3)
    resolved = resolve(all_overrides(made, (f"loss.attention.weight={weight!r}",)))
    record = RunStore(tmp_path / "runs").record(resolved.run_id)
    with record.writing():
        record.create(resolved.identity, "")
        record.begin_attempt("trained")
        record.end_attempt("pruned", "stopped by the pruner")
    study, _ = work(made)
    (ended,) = study.trials
    assert ended.state == (TrialState.PRUNED if own else TrialState.COMPLETE)
    assert ended.user_attrs.get("reason") == ("stopped by the pruner" if own else None)
    trace = record.path / "trained.txt"
    assert (trace.read_text().split() if trace.exists() else []) == trained


class Refusing:
    """An executor whose jobs all fail at once; keeps what it was given."""

    slots = 1

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.ended: list[JobEnd] = []

    def submit(self, job: Job) -> None:
        self.jobs.append(job)
        self.ended.append(JobEnd(job.run_id, 1, "refused"))

    def poll(self, timeout_s: float) -> list[JobEnd]:
        ended, self.ended = self.ended, []
        return ended

    def stop(self, run_id: str) -> None: ...

    def kill(self, run_id: str) -> None: ...

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("budget", "iterations"),
    [
        (["train.iterations=70"], 70),
        (["train.iterations=null", "train.epochs=3", "train.batch_size=8"], 3 * (100 // 8)),
    ],
)
def test_the_pruner_is_told_the_length_of_a_run(tmp_path: Path, budget: list[str], iterations: int) -> None:
    made = sweep(base=["preset=tiny", "data=procfaces", "data.train_images=100", *budget], trials=1)
    url = f"journal:{tmp_path / 'journal.log'}"
    study, executor = open_study(open_storage(url), made), Refusing()
    Worker(made, study, url, tmp_path, executor, Limits(1, None, 0.5, 3.0), lambda text: None, ENTRY).run()
    assert [job.options["iterations"] for job in executor.jobs] == [iterations]
    assert study.trials[0].user_attrs["reason"] == "refused"
