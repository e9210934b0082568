"""The adversaries: closed forms of the segmentation losses, what a run with each of them trains, and none at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.bench.modes import naive_against_fast
from pipeline.bench.setup import configure, prepare
from pipeline.runs import checkpoint
from pipeline.schema.discriminator import DiscriminatorConfig
from pipeline.training.adversary import (
    SegmentationAdversary,
    class_weights,
    fake_cross_entropy,
    label_mix_loss,
    label_mix_mask,
)
from tests.pipeline.models.small_models import one_hot, random_inputs
from tests.pipeline.tiny import killed_after, run, values

SMALL = ("size=16", "train.batch_size=2", "discriminator.width=8", "discriminator.layers=2")
CFG = DiscriminatorConfig(
    kind="segmentation", scales=1, layers=2, width=4, spectral_norm=True, norm="none", init_gain=1.0
)


def rule(unknown: int | None = None, **changes: object) -> SegmentationAdversary:
    return SegmentationAdversary(CFG.model_copy(update=changes), unknown)


def test_weights_are_inverse_shares_of_the_classes_present() -> None:
    mask = one_hot(torch.tensor([[[0, 0, 0, 0], [0, 0, 1, 3]]]), 4)  # 6, 1, 0 and 1 pixels
    assert class_weights(mask, None).tolist() == pytest.approx([8 / (6 * 3), 8 / 3, 0, 8 / 3])
    assert class_weights(mask, 3).tolist() == pytest.approx([8 / (6 * 2), 8 / 2, 0, 0])
    only_unknown = one_hot(torch.zeros(1, 2, 2, dtype=torch.int64), 4)
    assert class_weights(only_unknown, 0).tolist() == [0, 0, 0, 0]


def test_every_present_class_weighs_the_same_in_the_loss() -> None:
    """With scores that are wrong for one class alone, the loss is that class's share of the classes, whatever its size."""
    mask = one_hot(torch.tensor([[[0, 0, 0, 0], [0, 0, 1, 2]]]), 3)
    for wrong in range(3):
        scores = 60.0 * F.one_hot(mask.argmax(1) + 1, 4).permute(0, 3, 1, 2).float()
        scores = torch.where(mask[:, wrong : wrong + 1] > 0, torch.zeros(()), scores)  # no opinion: log 4
        assert rule().real_term(scores, mask).item() == pytest.approx(torch.log(torch.tensor(4.0)).item() / 3, rel=1e-4)
        share = mask[:, wrong].mean().item()
        unbalanced = rule(class_balance=False).real_term(scores, mask).item()
        assert unbalanced == pytest.approx(torch.log(torch.tensor(4.0)).item() * share, rel=1e-4)


def test_pixels_of_no_class_and_of_the_unknown_one_weigh_nothing() -> None:
    torch.manual_seed(0)
    _, mask = random_inputs(4, (8, 8))
    scores, others = torch.randn(2, 5, 8, 8), torch.randn(2, 5, 8, 8)
    nobody = mask.clone()
    nobody[:, :, :2] = 0
    changed = torch.where(nobody.sum(1, keepdim=True) == 0, others, scores)
    for balance in (True, False):
        assert torch.equal(
            rule(class_balance=balance).real_term(scores, nobody),
            rule(class_balance=balance).real_term(changed, nobody),
        )
    unknown = torch.where(mask[:, 2:3] > 0, others, scores)
    assert torch.equal(rule(2).real_term(scores, mask), rule(2).real_term(unknown, mask))
    assert not torch.equal(fake_cross_entropy(scores), fake_cross_entropy(unknown)), "generated pixels all count"


def test_label_mix_draws_a_class_at_a_time() -> None:
    mask = one_hot(torch.tensor([[[0, 1], [2, 2]], [[1, 1], [0, 3]]]), 4)
    for draws in ([1, 0, 1, 0], [0, 1, 1, 1], [1, 1, 0, 0]):
        mixing = label_mix_mask(mask, torch.tensor(draws, dtype=torch.float32), as_released=False)[:, 0]
        assert torch.equal(mixing, torch.tensor(draws, dtype=torch.float32)[mask.argmax(1)])
    released = label_mix_mask(mask, torch.tensor([1.0, 0.0, 1.0, 0.0]), as_released=True)[:, 0]
    assert released.tolist() == [[[0, 0], [1, 1]], [[0, 0], [0, 0]]], "class 0 took the draw of class 1"
    alone = one_hot(torch.tensor([[[0, 2], [2, 2]]]), 4)
    assert label_mix_mask(alone, torch.tensor([1.0, 0.0, 0.0, 0.0]), as_released=True)[0, 0, 0, 0] == 1


def test_a_discriminator_that_judges_pixels_alone_is_consistent() -> None:
    """Scores of a mixed image are then mixed scores: the loss is 0; and all three passes carry gradients."""
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(3, 5, 1)
    real, mask = random_inputs(4, (8, 8))
    fake = real.flip(3)
    mixing = label_mix_mask(mask, torch.tensor([1.0, 0.0, 1.0, 0.0]), as_released=False)
    mixed = mixing * real + (1 - mixing) * fake
    assert label_mix_loss(conv(mixed), conv(real), conv(fake), mixing).item() < 1e-10
    three = [torch.randn(2, 5, 8, 8, requires_grad=True) for _ in range(3)]
    label_mix_loss(three[0], three[1], three[2], mixing).backward()  # type: ignore[no-untyped-call]
    assert all(scores.grad is not None and scores.grad.abs().sum() > 0 for scores in three)


@pytest.mark.parametrize("override", ["discriminator.class_balance=false", "discriminator.label_mix=0",
                                      "discriminator.label_mix_draws=as_released"])  # fmt: skip
def test_switches_change_the_update_of_the_discriminator(override: str) -> None:
    losses: list[dict[str, Tensor]] = []
    for overrides in ((), (override,)):
        cfg, device = configure([*SMALL, "model=oasis", "seed=3", "train.batch_size=4", *overrides])
        trainer, batch = prepare(cfg, device)
        losses.append([trainer.step(batch) for _ in range(3)][-1])
    assert losses[0].keys() != losses[1].keys() or any(losses[0][name] != losses[1][name] for name in losses[0])


def test_naive_and_fast_steps_of_oasis_have_equal_losses() -> None:
    result = naive_against_fast([*SMALL, "model=oasis"], pairs=2, memory=False)
    assert set(result["loss_differences"]) == {"gan", "d_fake", "d_real", "d_label_mix"}
    assert result["max_loss_difference"] < 1e-4


def test_a_killed_run_of_oasis_resumes_bit_for_bit(tmp_path: Path) -> None:
    """LabelMix's draws and the noise are functions of seed and update."""
    small = ("model=oasis", "discriminator.layers=2", "discriminator.width=8", "model.base_width=8")
    whole = run(tmp_path / "whole", *small)
    killed_after(tmp_path / "killed", *small, lines=3)
    resumed = run(tmp_path / "killed", *small)
    assert resumed.id == whole.id and values(resumed) == values(whole)
    assert {"gan", "d_fake", "d_real", "d_label_mix"} <= set(whole.history()[0])


@pytest.mark.parametrize("adversary", ["segmentation", "none"])
def test_ca2sis_trains_under_either_adversary_or_none(adversary: str, tmp_path: Path) -> None:
    overrides = {
        "segmentation": ("discriminator.kind=segmentation",),
        "none": ("loss.gan.weight=0", "loss.feature_matching.weight=0"),
    }
    record = run(tmp_path, *overrides[adversary])
    assert record.state == "finished"
    terms = set(record.history()[0])
    if adversary == "none":
        assert not terms & {"gan", "feature_matching", "d_fake", "d_real"}, "neither run nor trained"
    else:
        assert {"gan", "feature_matching", "d_fake", "d_real", "d_label_mix"} <= terms
        saved = checkpoint.load(record, checkpoint.FINAL)["discriminator"]
        assert saved["score.weight"].shape[0] == 20
