"""One run: it repeats bit for bit, survives kills, stops when asked, refuses to go on with NaN, and is never trained twice."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.config import compose, resolve
from pipeline.data.batch import Batch
from pipeline.errors import RunFailed, UserError
from pipeline.progress import Quiet
from pipeline.records import RunRecord, RunStore, atomic
from pipeline.records.metric_specs import OF_THE_TRAINING_PROCESS
from pipeline.runs import checkpoint
from pipeline.runs import trained as training
from pipeline.runs.preemption import Preempted
from pipeline.runs.run import execute
from pipeline.training.trainer import Trainer
from tests.pipeline.tiny import TINY, command, environment, killed_after, run, trainer, values


def final_weights(record: object) -> dict[str, torch.Tensor]:
    return checkpoint.load(record, checkpoint.FINAL)["generator"]  # type: ignore[arg-type]


def same_weights(a: object, b: object) -> bool:
    first, second = final_weights(a), final_weights(b)
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_two_runs_of_one_config_and_seed_are_identical(tmp_path: Path) -> None:
    first, second = run(tmp_path / "a"), run(tmp_path / "b")
    assert first.id == second.id
    assert values(first) == values(second)
    assert same_weights(first, second)
    other = run(tmp_path / "a", "seed=1")
    assert other.id != first.id and not same_weights(first, other)


def test_runs_of_one_folder_share_their_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first run draws every face, each once; the next ones read the same memory-mapped files."""
    from pipeline.data.procfaces import dataset

    drawn: list[int] = []
    draw = dataset.label_map

    def counted(*arguments: object) -> object:
        drawn.append(1)
        return draw(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(dataset, "label_map", counted)
    first = run(tmp_path)
    assert (
        len(drawn) == 12 + 4 and len(list((first.cache / "mapped").glob("*.lock"))) == 2
    )  # train and val; quick reads val
    run(tmp_path, "seed=1")
    assert len(drawn) == 12 + 4
    assert values(run(tmp_path / "other", "data.cache=none")) == values(first)


def test_the_record_keeps_what_attention_learned_of_classes(tmp_path: Path) -> None:
    record = run(tmp_path, "model.attention.masking=access", "protocol.groups=[attention]")
    tables = record.access_tables()
    assert {level: table.shape for level, table in tables.items()} == {
        "4": (4, 19, 19),
        "8": (4, 19, 19),
        "16": (2, 19, 19),
    }
    assert all(table.dtype == np.float32 and table.any() for table in tables.values())
    weights = final_weights(record)["stages.0.transformer.layers.0.cross_attention.classes.table"]
    assert np.array_equal(tables["4"], 30.0 * weights.numpy())
    assert {"attention_miou_4", "attention_miou_16"} <= {row.name for row in record.metrics}  # the same names
    assert run(tmp_path / "released", "protocol.groups=[attention]").access_tables() == {}


def test_the_record_holds_what_a_reader_needs(tmp_path: Path) -> None:
    record = run(tmp_path)
    assert record.state == "finished" and [item["outcome"] for item in record.status["attempts"]] == ["finished"]
    kinds = [(row["iteration"], row["kind"]) for row in record.history()]
    assert kinds == [(2, "train"), (4, "train"), (4, "val"), (6, "train"), (8, "train"), (8, "val")]
    assert {"gan", "feature_matching", "attention", "pixel", "d_fake", "d_real"} <= set(record.history()[0])
    facts = record.provenance
    assert facts["images_seen"] == 16 and facts["iterations"] == 8 and facts["data"]["class_names"][13] == "hair"
    assert facts["losses"] == {"gan": 1.0, "feature_matching": 10.0, "attention": 1.0, "pixel": 100.0}
    names = {(row.name, row.state) for row in record.metrics}
    assert {("psnr", "trained"), ("psnr", "untrained"), ("train_images_per_s", "trained")} <= names
    psnr = next(row for row in record.metrics if row.name == "psnr" and row.state == "trained")
    per_image = record.per_image().query("metric == 'psnr'")
    assert psnr.n == len(per_image) == 4 and per_image["value"].mean() == pytest.approx(psnr.value, abs=1e-5)
    assert set(torch.load(record.path / "checkpoints" / "final.pt", weights_only=True)) == {
        "iteration", "generator", "discriminator",
    }  # fmt: skip


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    before = run(tmp_path).status
    assert run(tmp_path).status == before


def test_another_protocol_adds_rows_to_a_finished_run_without_training(tmp_path: Path) -> None:
    first = run(tmp_path)
    rows, attempts = first.metrics, first.status["attempts"]
    again = run(tmp_path, "protocol=standard", "protocol.groups=[reconstruction]")
    assert again.id == first.id and again.status["attempts"] == attempts
    assert {row.protocol for row in again.metrics} == {"quick", "standard"}
    assert all(row in again.metrics for row in rows)


def test_a_finished_run_is_measured_again_as_it_was_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`evaluate` and `edit` set threads and TF32 as the run did: torch's own default lets a GPU's convolutions round to TF32."""
    record = run(tmp_path)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    torch.backends.cuda.matmul.allow_tf32 = True  # its getter and setter are all it has: nothing to patch
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        checkpoint.finished_run(tmp_path, record.id[:10])
        assert torch.get_num_threads() == 1  # preset tiny's
    finally:
        torch.set_num_threads(before)
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32


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


def test_the_painter_is_a_rule_that_needs_no_training(tmp_path: Path) -> None:
    record = run(tmp_path, "model=painter", "train.iterations=0")
    assert record.status["kind"] == "rule" and record.history() == []
    assert record.provenance["images_seen"] == 0
    assert {row.state for row in record.metrics} == {"trained"}


def test_attention_loss_without_attention_maps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="loss.attention.kind=off"):
        run(tmp_path, "model.conditioning=spade")


def test_accumulation_sums_to_the_same_update() -> None:
    """Two micro-batches of 2 give the gradients of one batch of 4 (a family without batch statistics)."""
    after = []
    for parts in (1, 2):
        # A plain gradient: the spectral-norm estimate moves at every discriminator pass, so it is off here.
        taken, batch = trainer(
            "train.batch_size=4", f"train.accumulate={parts}", "discriminator.spectral_norm=false",
            "loss.attention.class_weights=none",
        )  # fmt: skip
        taken.step(batch)
        after.append(
            [parameter.grad.clone() for parameter in taken.generator.parameters() if parameter.grad is not None]
        )
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in zip(*after, strict=True))


def test_the_learning_rate_is_constant_then_falls_to_zero() -> None:
    taken, batch = trainer("train.lr=0.0002", "train.decay_fraction=0.5")
    rates = []
    for _ in range(8):
        taken.step(batch)
        rates.append((taken.optimiser_g.param_groups[0]["lr"], taken.optimiser_d.param_groups[0]["lr"]))
    factors = [1, 1, 1, 1, 1, 0.75, 0.5, 0.25]
    assert rates == [(pytest.approx(1e-4 * f), pytest.approx(4e-4 * f)) for f in factors]  # TTUR: half and double


def test_weight_decay_stands_apart_from_the_gradient_and_is_plain_adam_at_0() -> None:
    after: list[list[torch.Tensor]] = []
    before: list[torch.Tensor] = []
    for decay in (0.0, 0.5):
        taken, batch = trainer(f"train.weight_decay={decay}", "train.decay_fraction=0")
        before = [parameter.detach().clone() for parameter in taken.generator.parameters()]
        taken.step(batch)
        after.append([parameter.detach() for parameter in taken.generator.parameters()])
        if decay == 0.0:
            twins = [torch.nn.Parameter(parameter.clone()) for parameter in before]
            for twin, parameter in zip(twins, taken.generator.parameters(), strict=True):
                twin.grad = parameter.grad
            torch.optim.Adam(twins, lr=taken.rates[0], betas=taken.cfg.train.betas, fused=True).step()
            assert all(torch.equal(twin, parameter) for twin, parameter in zip(twins, after[0], strict=True))
    for start, plain, decayed in zip(before, *after, strict=True):
        torch.testing.assert_close(decayed, plain - taken.rates[0] * 0.5 * start, rtol=0, atol=1e-6)


def test_ema_follows_the_weights() -> None:
    taken, batch = trainer("train.ema_decay=0.75", "train.ema_every=1")
    before = [parameter.detach().clone() for parameter in taken.generator.parameters()]
    taken.step(batch)
    for old, new, mean in zip(before, taken.generator.parameters(), taken.evaluated.parameters(), strict=True):
        assert torch.allclose(mean, 0.75 * old + 0.25 * new, atol=1e-7)


def test_wandb_that_is_dead_or_missing_never_stops_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it now raises
    record = run(tmp_path, "tracking.mode=offline")
    assert record.state == "finished"
    assert "wandb" in record.provenance["tracking"]["problem"]


def test_progress_says_when_a_run_is_reused(tmp_path: Path) -> None:
    said: list[str] = []

    class Saying(Quiet):
        def say(self, text: str) -> None:
            said.append(text)

    run(tmp_path)
    execute(resolve(TINY), RunStore(tmp_path / "runs"), progress=Saying())
    assert said and "reused" in said[0]


def test_the_second_stage_trains_the_mapping_network_alone(tmp_path: Path) -> None:
    first = run(tmp_path)
    second = run(tmp_path, "train=mapping", f"init_from={first.id}")
    assert second.id != first.id and second.state == "finished"
    assert second.provenance["losses"] == {"gan": 1.0, "diversity": 1.0}
    assert {"gan", "diversity", "d_fake", "d_real"} <= set(second.history()[0])
    before, after = final_weights(first), final_weights(second)
    assert all(torch.equal(before[name], after[name]) for name in before)
    fresh = {name for name in after if name not in before}
    assert fresh and all(name.startswith("mapping.") for name in fresh)
    generator, config = checkpoint.load_generator(second, torch.device("cpu"))
    assert generator.capabilities.sampling
    mask = torch.zeros(1, 19, 16, 16)
    mask[:, 1] = 1
    noise = torch.randn(2, generator.capabilities.noise_width, generator=torch.Generator().manual_seed(0))
    images = [generator.synthesize(mask, generator.sample_style(mask, noise[i : i + 1])).image for i in (0, 1)]
    assert config.train.stage == "mapping" and not torch.equal(images[0], images[1])


def test_the_second_stage_needs_a_finished_run_of_the_same_network(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="init_from"):
        resolve([*TINY, "train=mapping"])
    first = run(tmp_path)
    with pytest.raises(UserError, match="init_from: run .* has other sizes|is another network"):
        run(tmp_path, "train=mapping", f"init_from={first.id}", "model.base_width=8")
    with pytest.raises(UserError, match="is planned, not finished"):
        run(tmp_path, "train=mapping", f"init_from={'0' * 64}")
    refused = command("pipeline", "train", "--out", str(tmp_path), *TINY, "train=mapping", "init_from=ffff")
    assert refused.returncode == 2 and "no run in" in refused.stderr


def test_the_norm_that_acts_is_recorded() -> None:
    from pipeline.models.build import build_generator
    from pipeline.training.devices import norms_in_effect
    from pipeline.training.distributed import World

    config = compose([*TINY, "model=spade", "model.norm=sync_batch"])
    generator = build_generator(config.model, 19, config.data.hw)
    alone, many = norms_in_effect(generator, World(0, 1)), norms_in_effect(generator, World(0, 2))
    assert alone["BatchNorm2d"] == many["SyncBatchNorm"] > 0 and "SyncBatchNorm" not in alone


def test_instance_maps_reach_the_families_that_take_them(tmp_path: Path) -> None:
    """One instance a class by default; with data.instances the same run is another run with other numbers."""
    small = ("model=inade", "train.iterations=2", "train.checkpoint_every=100")
    plain = run(tmp_path, *small)
    by_instance = run(tmp_path, *small, "data.instances=true")
    assert by_instance.id != plain.id and by_instance.state == "finished"
    assert values(by_instance) != values(plain)
