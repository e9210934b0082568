"""A run that is killed, stopped, damaged, pruned or held: the next start goes on, and nothing is trained twice."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from pipeline.config import compose, resolve
from pipeline.data.batch import Batch
from pipeline.errors import RunFailed
from pipeline.progress import Quiet
from pipeline.records import RunRecord, RunStore, atomic
from pipeline.records.metric_specs import OF_THE_TRAINING_PROCESS
from pipeline.runs import checkpoint
from pipeline.runs import trained as training
from pipeline.runs.preemption import Preempted
from pipeline.runs.run import execute
from pipeline.training.trainer import Trainer
from tests.pipeline.tiny import (
    TINY,
    command,
    environment,
    killed_after,
    run,
    same_weights,
    values,
)


@pytest.mark.parametrize(("lines", "overrides"), [(1, ()), (4, ()), (2, ("model=scam",))])  # scam: noise, two gradients
def test_kill_9_and_again_gives_the_undisturbed_result(tmp_path: Path, lines: int, overrides: tuple[str, ...]) -> None:
    undisturbed = run(tmp_path / "a", *overrides)
    killed_after(tmp_path / "b", *overrides, lines=lines)
    resumed = run(tmp_path / "b", *overrides)
    assert resumed.status["attempts"][0]["outcome"] == "preempted"
    assert values(resumed) == values(undisturbed) and same_weights(resumed, undisturbed)
    strip = [{k: v for k, v in row.items() if k != "seconds"} for row in resumed.history()]
    assert strip == [{k: v for k, v in row.items() if k != "seconds"} for row in undisturbed.history()]


def test_sigterm_checkpoints_and_the_next_start_continues(tmp_path: Path) -> None:
    overrides = [*TINY, "train.iterations=100000", "train.checkpoint_every=100000", "train.validate_every=100000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "train", "--out", str(tmp_path), *overrides],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("runs/*/history.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    assert "stopped by SIGTERM" in errors.splitlines()[-1] and "Traceback" not in errors
    (record,) = [RunStore(tmp_path / "runs").record(run_id) for run_id in RunStore(tmp_path / "runs").ids()]
    assert record.state == "preempted"
    state = checkpoint.newest(record, print)
    assert state is not None and state["iteration"] > 0


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry an update, whatever run takes it."""
    taken: list[int] = []
    step = Trainer.step

    def counted(self: Trainer, batch: Batch) -> dict[str, torch.Tensor]:
        taken.append(self.iteration)
        return step(self, batch)

    monkeypatch.setattr(Trainer, "step", counted)
    return taken


def test_a_stop_while_evaluating_repeats_no_training(
    tmp_path: Path, steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = run(tmp_path / "a")
    train = training.TrainedAttempt._train

    def stopped(self: training.TrainedAttempt) -> bool:
        pruned = train(self)
        self.stop(signal.SIGTERM, None)
        return pruned

    steps.clear()
    with monkeypatch.context() as patched, pytest.raises(Preempted, match="SIGTERM while evaluating"):
        patched.setattr(training.TrainedAttempt, "_train", stopped)
        run(tmp_path / "b")
    record = RunStore(tmp_path / "b" / "runs").record(undisturbed.id)
    assert record.state == "preempted" and len(steps) == 8
    assert values(run(tmp_path / "b")) == values(undisturbed) and len(steps) == 8


@pytest.mark.parametrize("moment", ["before the record says finished", "before tidying"])
def test_a_kill_at_the_very_end_repeats_no_training(
    tmp_path: Path, steps: list[int], monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    undisturbed = run(tmp_path / "a")
    steps.clear()

    def dead(*_: object) -> None:
        raise SystemExit(9)

    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        if moment == "before tidying":
            patched.setattr(checkpoint, "tidy", dead)
            patched.setattr("pipeline.runs.run._ending", dead)
        else:
            patched.setattr(RunRecord, "end_attempt", dead)
        run(tmp_path / "b")
    record = RunStore(tmp_path / "b" / "runs").record(undisturbed.id)
    assert len(steps) == 8 and record.state == ("finished" if moment == "before tidying" else "preempted")
    again = run(tmp_path / "b")
    assert len(steps) == 8 and values(again) == values(undisturbed) and same_weights(again, undisturbed)


def test_a_pruned_run_goes_on_when_somebody_wants_it(tmp_path: Path, steps: list[int]) -> None:
    undisturbed = run(tmp_path / "a")
    steps.clear()
    resolved = resolve(TINY)
    store = RunStore(tmp_path / "b" / "runs")
    record = execute(resolved, store, progress=Quiet(), on_validation=lambda iteration, _: iteration == 4)
    assert record.state == "pruned" and len(steps) == 4
    assert run(tmp_path / "b").state == "finished" and len(steps) == 8
    assert values(record) == values(undisturbed) and same_weights(record, undisturbed)
    whole = execute(resolved, RunStore(tmp_path / "c" / "runs"), progress=Quiet(), on_validation=lambda i, _: i == 8)
    assert whole.state == "finished", "at the end of its budget there is nothing left to save"


def test_protocols_do_not_take_each_others_rows(tmp_path: Path) -> None:
    """A second protocol adds rows, also of numbers both have; a changed one replaces its own."""
    record = run(tmp_path)
    config = compose(TINY)
    other = config.protocol.model_copy(update={"name": "other", "groups": ("reconstruction",)})
    changed = other.model_copy(update={"images": 2})
    for protocol, n in ((other, 4), (changed, 2)):
        measured = config.model_copy(update={"protocol": protocol})
        execute(dataclasses.replace(resolve(TINY), config=measured), RunStore(tmp_path / "runs"), progress=Quiet())
        counts = [(row.protocol, row.n) for row in record.metrics if row.name == "psnr" and row.state == "trained"]
        assert sorted(counts) == [("other", n), ("quick", 4)]
    changed_quick = config.protocol.model_copy(update={"images": 3})
    trained = {row.name: row.value for row in record.metrics if row.name in OF_THE_TRAINING_PROCESS}
    execute(
        dataclasses.replace(resolve(TINY), config=config.model_copy(update={"protocol": changed_quick})),
        RunStore(tmp_path / "runs"), progress=Quiet(),
    )  # fmt: skip
    assert {row.name: row.value for row in record.metrics if row.name in OF_THE_TRAINING_PROCESS} == trained
    assert len(trained) >= 2 and [row.n for row in record.metrics if row.key[:2] == ("psnr", "quick")] == [3, 4]


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(tmp_path: Path) -> None:
    undisturbed = run(tmp_path / "a")
    killed_after(tmp_path / "b", lines=6)  # checkpoints at 3 and 6 exist; the run may even have ended
    store = RunStore(tmp_path / "b" / "runs")
    record = store.record(undisturbed.id)
    if record.state == "finished":
        pytest.fail("the run ended before it could be killed: make it longer")
    newest = sorted((record.path / "checkpoints").glob("0*.pt"))[-1]
    newest.write_bytes(newest.read_bytes()[:-100])
    said: list[str] = []
    state = checkpoint.newest(record, said.append)
    assert state is not None and state["iteration"] == 3
    assert said and newest.name in said[0] and "damaged" in said[0]
    assert same_weights(run(tmp_path / "b"), undisturbed)


def test_divergence_is_a_state_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    run_id = resolve([*TINY, "train.lr=1e18"]).run_id
    with pytest.raises(RunFailed, match="diverged at iteration .* is not finite"):
        run(tmp_path, "train.lr=1e18")
    record = RunStore(tmp_path / "runs").record(run_id)
    assert record.state == "diverged" and "not finite" in record.status["reason"]
    state = checkpoint.newest(record, print)
    if state is not None:
        assert all(torch.isfinite(value).all() for value in state["generator"].values())


def test_two_processes_on_one_run_do_not_disturb_each_other(tmp_path: Path) -> None:
    done = [None, None]

    def start(which: int) -> None:
        done[which] = command("pipeline", "train", "--out", str(tmp_path), *TINY, "train.iterations=40")  # type: ignore[call-overload]

    threads = [threading.Thread(target=start, args=(which,)) for which in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    statuses = sorted(process.returncode for process in done)  # type: ignore[attr-defined]
    (run_id,) = RunStore(tmp_path / "runs").ids()
    record = RunStore(tmp_path / "runs").record(run_id)
    assert record.state == "finished" and len(record.status["attempts"]) == 1
    assert statuses in ([0, 0], [0, 2])  # one ran; the other found it finished, or was refused
    if statuses == [0, 2]:
        refused = next(process for process in done if process.returncode == 2)  # type: ignore[attr-defined]
        assert "another process" in refused.stderr


def test_a_held_run_is_refused_at_once(tmp_path: Path) -> None:
    record = RunStore(tmp_path / "runs").record(resolve(TINY).run_id)
    with record.writing(), pytest.raises(atomic.Locked, match="another process"):
        run(tmp_path)
