"""Unconditional training: its terms and their schedule, the average counted in images, the encoder's share, and resuming."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.config import compose
from pipeline.data import build_dataset
from pipeline.data.batch import Batch, collate
from pipeline.errors import UserError
from pipeline.models.build import build_generator
from pipeline.models.semanticstylegan.generator import SemanticStyleGan
from pipeline.runs import checkpoint
from pipeline.training.unconditional import UnconditionalTrainer
from tests.pipeline.tiny import TINY, killed_after, run, values

SSG = (
    "model=semanticstylegan", "model.code_width=8", "model.mapping_layers=2", "model.local_width=4", "model.feature_width=8",
    "model.max_width=8", "model.discriminator.max_width=8", "model.encoder.width=4", "model.encoder.share=0.25",
    "model.objective.r1_every=2", "model.objective.path_every=3", "protocol.inversion.steps=2", "train.deterministic=strict",
)  # fmt: skip


def made(*overrides: str) -> tuple[UnconditionalTrainer, Batch]:
    config = compose([*TINY, *SSG, *overrides])
    data = build_dataset(config.data, "train")
    torch.manual_seed(0)
    generator = build_generator(config.model, 19, config.data.hw)
    discriminator = generator.own_discriminator()
    assert discriminator is not None
    trainer = UnconditionalTrainer(config, generator, discriminator, iterations=8, device=torch.device("cpu"))
    return trainer, collate([data[i] for i in range(config.train.batch_size)], 19)


def test_regularisers_are_lazy_and_every_row_has_every_term() -> None:
    trainer, batch = made()
    rows = [trainer.step(batch) for _ in range(6)]
    names = {"d_fake", "d_real", "gan", "mask_regulariser", "r1_image", "r1_mask", "path"}
    assert all(set(row) == names for row in rows)
    changes = {
        name: [i for i in range(1, 6) if not torch.equal(rows[i][name], rows[i - 1][name])]
        for name in ("r1_image", "path")
    }
    assert changes == {"r1_image": [2, 4], "path": [3]}


def test_adam_makes_up_for_the_steps_of_regularisers() -> None:
    """Rate and betas of StyleGAN2's lazy regularisation: every / (every + 1), here 3/4 for the generator and 2/3."""
    trainer, batch = made("train.betas=[0.0,0.99]", "train.lr=0.01", "train.ttur=false")
    trainer.step(batch)
    for optimiser, ratio in ((trainer.optimiser_g, 3 / 4), (trainer.optimiser_d, 2 / 3)):
        (group,) = optimiser.param_groups
        assert group["lr"] == pytest.approx(0.01 * ratio)
        assert group["betas"] == pytest.approx((0.0, 0.99**ratio))
    plain, _ = made(
        "model.objective.path=0", "model.objective.r1_image=0", "model.objective.r1_mask=0", "train.lr=0.01"
    )
    assert plain.rates == (0.01, 0.01) and "path" in plain.step(batch)


def test_the_average_forgets_half_after_so_many_images() -> None:
    trainer, batch = made("train.ema_half_life_images=4")  # two updates of two images
    assert trainer.cfg.train.ema_step_decay == pytest.approx(0.5**0.5)
    first = next(trainer.generator.mapping.parameters()).detach().clone()
    trainer.step(batch)
    after = next(trainer.generator.mapping.parameters()).detach()
    assert trainer.averaged is not None and not torch.equal(first, after)
    expected = 0.5**0.5 * first + (1 - 0.5**0.5) * after
    assert isinstance(trainer.averaged, SemanticStyleGan)
    torch.testing.assert_close(next(trainer.averaged.mapping.parameters()), expected)


def test_the_last_share_of_the_budget_trains_the_encoder_alone() -> None:
    trainer, batch = made()  # a quarter of eight updates
    for _ in range(6):
        trainer.step(batch)
    averaged = trainer.evaluated
    before = {name: value.clone() for name, value in averaged.state_dict().items()}
    rows = [trainer.step(batch) for _ in range(2)]
    assert all(set(row) == {"code", "layout", "pixel"} for row in rows)
    moved = {name for name, value in trainer.evaluated.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and all(name.startswith("encoder.") for name in moved)


def test_encoder_updates_bring_the_picture_nearer_to_the_photo() -> None:
    trainer, batch = made("model.encoder.lr=0.01")
    rows = []
    for _ in range(30):
        trainer.iteration = trainer.drawing_ends  # the budget is shorter than this takes
        rows.append(trainer.step(batch))
    assert rows[-1]["pixel"] < 0.9 * rows[0]["pixel"]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "loss.feature_matching.weight=10",
            "loss.feature_matching.weight is not 0, but this family's training has no such",
        ),
        ("loss.gan.mode=hinge", "loss.gan.mode is hinge; this family trains with the logistic loss: bce"),
        ("train.accumulate=2", "train.accumulate and train.compile do not suit this family"),
    ],
)
def test_settings_that_this_training_would_not_read_are_refused(override: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        made(override)


def test_a_decay_a_step_and_one_in_images_are_not_both_given() -> None:
    with pytest.raises(UserError, match="give one of ema_decay and ema_half_life_images"):
        compose(["model=semanticstylegan", "train.ema_decay=0.9"])


@pytest.mark.slow
def test_a_killed_run_continues_bit_for_bit(tmp_path: Path) -> None:
    undisturbed = run(tmp_path / "whole", *SSG)
    killed_after(tmp_path / "killed", *SSG, lines=3)
    resumed = run(tmp_path / "killed", *SSG)
    assert resumed.id == undisturbed.id and len(resumed.status["attempts"]) == 2
    first, second = (checkpoint.load(record, checkpoint.FINAL)["generator"] for record in (undisturbed, resumed))
    assert all(torch.equal(first[name], second[name]) for name in first)
    clocks = ("inversion_s_per_image",)
    mine, other = (
        {key: value for key, value in values(record).items() if key[0] not in clocks}
        for record in (undisturbed, resumed)
    )
    assert mine == other
    for history in zip(undisturbed.history(), resumed.history(), strict=True):
        one, two = ({key: value for key, value in row.items() if key != "seconds"} for row in history)
        assert json.dumps(one) == json.dumps(two)
    assert np.isfinite([row["gan"] for row in undisturbed.history() if "gan" in row]).all()
