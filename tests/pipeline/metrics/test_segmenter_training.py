"""The segmenter's training: what it learns from and watches, when it stops, what its loss weighs, what augmentation keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pipeline.metrics import segmenter_training
from pipeline.metrics.segmenter import trained_segmenter
from pipeline.metrics.segmenter_training import (
    Watch,
    augmented,
    balanced_loss,
    class_weights,
    held_back,
    train_segmenter,
)
from pipeline.progress import Quiet
from pipeline.schema.evaluation import AugmentationConfig, SegmenterConfig, StoppingConfig
from tests.pipeline.metrics.doubles import faces, protocol

CPU = torch.device("cpu")


def config(**changes: object) -> SegmenterConfig:
    small = {"width": 4, "depth": 1, "iterations": 12, "batch_size": 2, "train_images": 8}
    stopping = StoppingConfig(held_back=0.25, every=2, patience=2, gain=0.0, average=0.0)
    return protocol().segmenter.model_copy(update={**small, "stopping": stopping, **changes})


# -- what it learns from and watches -----------------------------------------------------------------------------------


def test_images_are_held_back_at_the_ends_of_four_stretches_of_neighbours() -> None:
    learnt, held = held_back(80, 0.1)
    assert held.tolist() == [18, 19, 38, 39, 58, 59, 78, 79]
    assert sorted([*learnt, *held]) == list(range(80))


@pytest.mark.parametrize(
    ("total", "share", "count"), [(2, 0.1, 1), (3, 0.9, 2), (5, 0.5, 2), (9, 0.1, 1), (512, 0.1, 51)]
)
def test_something_is_watched_and_something_learnt_from_whatever_the_number(
    total: int, share: float, count: int
) -> None:
    learnt, held = held_back(total, share)
    assert len(held) == count and len(learnt) == total - count
    assert set(learnt).isdisjoint(held)


def test_a_single_image_is_both() -> None:
    learnt, held = held_back(1, 0.1)
    assert learnt.tolist() == held.tolist() == [0]


def test_images_held_back_are_never_learnt_from(monkeypatch: pytest.MonkeyPatch) -> None:
    data = faces(8, 24, "train")
    _, held = held_back(8, 0.25)
    taken: list[set[str]] = []
    loss = segmenter_training.balanced_loss

    def watching(logits: torch.Tensor, label: torch.Tensor, *rest: object) -> torch.Tensor:
        taken.append({map_.numpy().tobytes() for map_ in label} | {map_.flip(-1).numpy().tobytes() for map_ in label})
        return loss(logits, label, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(segmenter_training, "balanced_loss", watching)
    train_segmenter(config(augmentation=None), data, 8, CPU, Quiet())
    mirror = torch.tensor(data.label_space.mirror_permutation)
    for index in held:
        label = torch.from_numpy(data[int(index)].label).long()
        assert {label.numpy().tobytes(), mirror[label].flip(-1).numpy().tobytes()}.isdisjoint(set().union(*taken))


# -- when it stops -----------------------------------------------------------------------------------------------------


def test_a_scripted_curve_stops_after_the_patience_with_the_best_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    curve = iter([0.1, 0.5, 0.4, 0.3, 0.9])
    seen: list[torch.Tensor] = []

    def scripted(network: torch.nn.Module, *rest: object) -> float:
        seen.append(network.get_parameter("head.bias").detach().clone())
        return next(curve)

    monkeypatch.setattr(segmenter_training, "_score", scripted)
    found = train_segmenter(config(), faces(8, 24, "train"), 8, CPU, Quiet())
    assert found["record"]["held_back_miou"] == [[2, 0.1], [4, 0.5], [6, 0.4], [8, 0.3]]
    assert (found["record"]["updates"], found["record"]["best_at"], found["record"]["held_back"]) == (8, 4, 2)
    assert torch.equal(found["state"]["head.bias"], seen[1]) and not torch.equal(seen[1], seen[3])


def test_the_bound_of_updates_stands_and_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    curve = iter([0.1, 0.2, 0.3])
    monkeypatch.setattr(segmenter_training, "_score", lambda *rest: next(curve))
    found = train_segmenter(config(iterations=5), faces(8, 24, "train"), 8, CPU, Quiet())
    assert found["record"]["held_back_miou"] == [[2, 0.1], [4, 0.2], [5, 0.3]]
    assert found["record"]["updates"] == found["record"]["best_at"] == 5


def test_small_gains_are_kept_and_do_not_prolong() -> None:
    watch, network = Watch(patience=2, gain=0.05), torch.nn.Linear(1, 1)
    assert [watch.look(step, score, network) for step, score in ((1, 0.5), (2, 0.52), (3, 0.56), (4, 0.58), (5, 0.6))] == [
        False, False, False, False, True,
    ]  # fmt: skip
    assert (watch.best, watch.at) == (0.6, 5)


def test_without_stopping_it_ends_after_its_updates_and_learns_from_all() -> None:
    found = train_segmenter(config(stopping=None, iterations=3), faces(8, 24, "train"), 8, CPU, Quiet())
    assert found["record"] | {"final_loss": 0} == {
        "images": 8, "final_loss": 0, "updates": 3, "best_at": 3, "held_back": 0, "held_back_miou": [],
    }  # fmt: skip


def test_an_interrupted_training_leaves_nothing_and_begins_anew_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = faces(8, 24, "train")
    whole = trained_segmenter(config(), data, CPU, tmp_path / "whole", Quiet())
    scoring = segmenter_training._score
    calls: list[int] = []

    def killed(*rest: object) -> float:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return scoring(*rest)  # type: ignore[arg-type]

    monkeypatch.setattr(segmenter_training, "_score", killed)
    with pytest.raises(KeyboardInterrupt):
        trained_segmenter(config(), data, CPU, tmp_path / "cut", Quiet())
    assert not list((tmp_path / "cut" / "segmenter").glob("*.pt"))
    monkeypatch.setattr(segmenter_training, "_score", scoring)
    assert trained_segmenter(config(), data, CPU, tmp_path / "cut", Quiet()).digest == whole.digest


# -- loss --------------------------------------------------------------------------------------------------------------


def test_a_class_weighs_the_inverse_root_of_its_share_and_an_absent_one_as_the_rarest() -> None:
    class Maps:
        def __init__(self) -> None:
            self.label_space = faces(1, 24, "train").label_space

        def __getitem__(self, index: int) -> object:
            label = np.zeros((4, 4), np.uint8)
            label[0, 0] = 1  # one pixel in sixteen
            return type("Sample", (), {"label": label})

    weight = class_weights(Maps(), np.arange(3)).numpy()  # type: ignore[arg-type]
    assert weight[1] / weight[0] == pytest.approx(15**0.5)
    assert weight[2:] == pytest.approx(weight[1])
    assert weight[0] * 15 / 16 + weight[1] / 16 == pytest.approx(1.0)
    assert class_weights(Maps(), np.arange(0)).tolist() == [1.0] * len(weight)  # type: ignore[arg-type]


def test_the_loss_is_weighted_cross_entropy_plus_soft_dice_over_the_classes_of_the_batch() -> None:
    label = torch.tensor([[[0, 0, 1, 3]]])  # class 2 is absent, class 3 unknown
    logits = torch.zeros(1, 4, 1, 4)
    weight = torch.tensor([1.0, 2.0, 5.0, 9.0])
    plain = balanced_loss(logits, label, weight, 3, 0.0)
    expected = F.cross_entropy(logits, label, weight=weight, ignore_index=3)
    assert plain == pytest.approx(float(expected)) == pytest.approx(np.log(4))
    # Of three counted pixels each class is found at 3/4; class 0: 2 * 2/4 / (3/4 + 2), class 1: 2 * 1/4 / (3/4 + 1).
    dice = 1 - (1.0 / 2.75 + 0.5 / 1.75) / 2
    assert balanced_loss(logits, label, weight, 3, 2.0) == pytest.approx(float(plain) + 2 * dice)


def test_a_batch_without_labels_gives_a_loss_of_0_with_a_gradient() -> None:
    logits = torch.zeros(1, 2, 1, 2, requires_grad=True)
    loss = balanced_loss(logits, torch.ones(1, 1, 2, dtype=torch.long), torch.ones(2), 1, 1.0)
    loss.backward()
    assert loss.item() == 0.0 and logits.grad is not None and not logits.grad.any()


# -- augmentation ------------------------------------------------------------------------------------------------------


def test_image_and_label_move_together_and_labels_stay_labels() -> None:
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, 4, (6, 5, 5), generator=generator).repeat_interleave(6, 1).repeat_interleave(6, 2)
    image = (label.float() / 3 * 2 - 1).unsqueeze(1).expand(-1, 3, -1, -1)
    moved, of_label = augmented(image, label, AugmentationConfig(scale=0.3, colour=0.0), np.random.default_rng(0))
    assert not torch.equal(of_label, label) and set(of_label.unique().tolist()) <= {0, 1, 2, 3}
    agree = ((moved[:, 0] + 1) / 2 * 3).round() == of_label
    assert agree.float().mean() > 0.8, "only pixels at borders, which are interpolated, may differ"
    coloured, same = augmented(image, label, AugmentationConfig(scale=0.0, colour=0.2), np.random.default_rng(0))
    assert torch.equal(same, label) and not torch.equal(coloured, image) and float(coloured.abs().max()) <= 1
