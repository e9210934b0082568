"""Mask noise: graded, valid, the same for every family; curves and areas."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.batch import collate, damaged_batch
from pipeline.data.label_noise import damaged, noise_stream
from pipeline.evaluation.evaluator import evaluate
from pipeline.evaluation.stages.robustness import area
from pipeline.schema.data import NoiseKind
from tests.pipeline.metrics.doubles import CLASSES, Echo, faces, painter, protocol

KINDS: tuple[NoiseKind, ...] = get_args(NoiseKind)
DATA = faces(8, 64)


def changed(kind: NoiseKind, level: float) -> float:
    """Mean share of changed pixels."""
    shares = []
    for i in range(8):
        label = DATA[i].label
        found = damaged(label, kind, level, num_classes=CLASSES, rng=noise_stream(0, kind, DATA.keys[i]))
        assert found.dtype == label.dtype and found.shape == label.shape and found.max() < CLASSES
        shares.append(float((found != label).mean()))
    return float(np.mean(shares))


@pytest.mark.parametrize("kind", KINDS)
def test_higher_levels_damage_more_and_level_zero_nothing(kind: NoiseKind) -> None:
    shares = [changed(kind, level) for level in (0.0, 0.25, 0.6, 1.0)]
    assert shares[0] == 0 and shares == sorted(shares) and 0.005 < shares[-1] < 0.7
    assert shares[1] < shares[-1]


@given(st.integers(0, 2**16), st.sampled_from(KINDS), st.floats(0.05, 1))
def test_any_map_stays_a_map(seed: int, kind: NoiseKind, level: float) -> None:
    label = np.random.default_rng(seed).integers(0, 4, (9, 12)).astype(np.uint8)
    found = damaged(label, kind, level, num_classes=4, rng=noise_stream(seed, kind, "x"))
    assert found.shape == label.shape and set(np.unique(found)) <= {0, 1, 2, 3}


def test_small_regions_shrink_or_grow() -> None:
    label = np.zeros((20, 20), dtype=np.uint8)
    label[5:15, 5:15] = 1
    rng = noise_stream(0, "erosion", "x")
    assert (damaged(label, "erosion", 1.0, num_classes=2, rng=rng) == 1).sum() == 64  # a border of one pixel goes
    assert (damaged(label, "dilation", 1.0, num_classes=2, rng=rng) == 1).sum() == 140  # disc of radius one: no corners
    one_class = np.zeros((8, 8), dtype=np.uint8)
    for kind in ("erosion", "dilation", "dropped", "jitter"):
        assert (damaged(one_class, kind, 1.0, num_classes=3, rng=rng) == 0).all()  # type: ignore[arg-type]


def test_smaller_and_larger_again_keeps_blocks() -> None:
    """At full strength every block of 4x4 pixels has the class of its centre."""
    label = DATA[0].label
    found = damaged(label, "ds", 1.0, num_classes=CLASSES, rng=noise_stream(0, "ds", "x"))
    assert np.array_equal(found, label[2::4, 2::4].repeat(4, 0).repeat(4, 1))


@pytest.mark.parametrize(("unknown", "lost_class"), [(None, 0), (3, 3)])
def test_pixels_lose_their_labels_along_borders_or_anywhere(unknown: int | None, lost_class: int) -> None:
    label = np.full((100, 100), 1, dtype=np.uint8)
    label[:, 50:] = 2
    maps = {}
    for kind in ("edge", "random"):
        stream = noise_stream(0, kind, "x")  # type: ignore[arg-type]
        maps[kind] = damaged(label, kind, 1.0, num_classes=4, rng=stream, unknown=unknown)  # type: ignore[arg-type]
        changed = maps[kind] != label
        assert (maps[kind][changed] == lost_class).all()
    lost = maps["edge"] != label
    assert lost[:, 49:51].all() and not lost[:, :49].any() and not lost[:, 51:].any(), "a pixel on either side"
    assert (maps["random"] != label).mean() == pytest.approx(0.1, abs=0.01)


def test_damage_depends_on_key_and_seed_not_on_the_batch() -> None:
    whole = collate([DATA[i] for i in range(4)], CLASSES)
    part = collate([DATA[2]], CLASSES)
    found = damaged_batch(whole, "jitter", 0.5, seed=1)
    assert torch.equal(found.label[2:3], damaged_batch(part, "jitter", 0.5, seed=1).label)
    assert not torch.equal(found.label, damaged_batch(whole, "jitter", 0.5, seed=2).label)
    assert torch.equal(found.image, whole.image) and torch.equal(found.mask.argmax(1), found.label)
    assert torch.equal(found.mask.sum(1), torch.ones(4, 64, 64))


def test_the_area_is_the_mean_of_the_curve() -> None:
    assert area([0, 1], [10, 20]) == 15
    assert area([0, 0.5, 1], [10, 10, 20]) == pytest.approx(12.5)
    assert area([0, 2], [7, 7]) == 7


def test_rows_of_a_family_that_needs_the_mask_fall_and_of_one_that_does_not_stay() -> None:
    config = protocol(
        "robustness", robustness__kinds=("jitter", "dropped"), robustness__levels=(0.5, 1.0), robustness__images=6
    )
    needs = {row.name: row for row in evaluate(painter(), DATA, config, device=torch.device("cpu")).rows}
    clean = {
        row.name: row
        for row in evaluate(painter(), DATA, protocol("reconstruction", images=6), device=torch.device("cpu")).rows
    }
    for kind in ("jitter", "dropped"):
        curve = [clean["psnr"].value, needs[f"robust_psnr_{kind}_0.5"].value, needs[f"robust_psnr_{kind}_1"].value]
        assert curve == sorted(curve, reverse=True) and curve[0] > curve[2] + 1  # type: ignore[operator, type-var]
        assert needs[f"robust_psnr_{kind}_0"].value == clean["psnr"].value, "a curve begins at the clean mask"
        assert needs[f"robust_psnr_area_{kind}"].value == pytest.approx(area([0, 0.5, 1], curve))  # type: ignore[arg-type]
    mean = np.mean([needs[f"robust_psnr_area_{kind}"].value for kind in ("jitter", "dropped")])
    assert needs["robust_psnr_area"].value == pytest.approx(mean) and needs["robust_psnr_area"].direction == "max"
    ignores = {row.name: row for row in evaluate(Echo(), DATA, config, device=torch.device("cpu")).rows}
    assert ignores["robust_psnr_area"].value == 100
    lost = [
        needs[f"robust_psnr_{kind}_0"].value - needs[f"robust_psnr_{kind}_1"].value for kind in ("jitter", "dropped")
    ]  # type: ignore[operator]
    assert [needs[f"robust_psnr_loss_{kind}"].value for kind in ("jitter", "dropped")] == pytest.approx(lost)
    assert needs["robust_psnr_loss_jitter"].direction == "min" and ignores["robust_psnr_loss_jitter"].value == 0
