"""One run: it repeats bit for bit, its record holds what a reader needs, and every option does what it says."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.config import compose, resolve
from pipeline.errors import UserError
from pipeline.progress import Quiet
from pipeline.records import RunStore
from pipeline.runs import checkpoint
from pipeline.runs.run import execute
from tests.pipeline.tiny import (
    TINY,
    command,
    final_weights,
    run,
    same_weights,
    trainer,
    values,
)


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
