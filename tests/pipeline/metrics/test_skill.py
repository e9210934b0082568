"""Ceiling, floor and skill of a segmenter against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.metrics.segmentation import Confusion
from pipeline.metrics.skill import FOUND, HIT, TRUE, Skill, floors, mean_iou, skill_of, tallies


def test_the_floor_is_the_share_of_the_commonest_class_over_the_classes_that_occur() -> None:
    label = torch.tensor([[[0, 0, 0, 1], [0, 0, 0, 2]]])  # 6, 1, 1 of 8 pixels; class 3 does not occur
    each = tallies(label, label, 4)
    miou, accuracy = floors(each.sum(axis=0)[TRUE])
    assert accuracy == 6 / 8 and miou == pytest.approx(6 / 8 / 3)
    everywhere = Confusion(4)
    everywhere.update(torch.zeros_like(label), label)
    assert (everywhere.mean_iou(), everywhere.accuracy()) == pytest.approx((miou, accuracy))


def test_unknown_pixels_count_neither_for_the_floor_nor_for_the_ceiling() -> None:
    label, seen = torch.tensor([[[0, 1, 2, 2]]]), torch.tensor([[[0, 0, 1, 2]]])
    each = tallies(seen, label, 3, ignore=2)
    assert each[0, HIT].tolist() == [1, 0, 0]
    assert each[0, TRUE].tolist() == [1, 1, 0]
    assert each[0, FOUND].tolist() == [2, 0, 0]
    assert floors(each.sum(axis=0)[TRUE]) == (0.25, 0.5)  # of two classes, two pixels
    confusion = Confusion(3, ignore=2)
    confusion.update(seen, label)
    assert float(mean_iou(each.sum(axis=0))) == confusion.mean_iou() == 0.25


def test_tallies_add_up_to_the_confusion() -> None:
    generator = torch.Generator().manual_seed(0)
    label, seen = (torch.randint(0, 5, (4, 6, 7), generator=generator) for _ in range(2))
    each, confusion = tallies(seen, label, 5, ignore=4), Confusion(5, ignore=4)
    confusion.update(seen, label)
    assert each.shape == (4, 3, 5)
    assert float(mean_iou(each.sum(axis=0))) == pytest.approx(confusion.mean_iou(), abs=1e-12)


def judged_maps(right: float, photos: int = 40) -> Skill:
    """Skill of a segmenter that is right at a share of the pixels and says class 0 elsewhere."""
    generator = torch.Generator().manual_seed(1)
    label = torch.randint(0, 4, (photos, 8, 8), generator=generator)
    knows = torch.rand(label.shape, generator=generator) < right
    return skill_of(tallies(torch.where(knows, label, 0), label, 4))


def test_skill_is_0_for_one_class_everywhere_and_1_for_the_truth() -> None:
    perfect = judged_maps(1.1)
    assert (perfect.value, perfect.low) == (1.0, 1.0)
    label = torch.zeros(6, 2, 2, dtype=torch.long)
    label[:, 0, 0] = 1
    trivial = skill_of(tallies(torch.zeros_like(label), label, 2))
    assert trivial.value == trivial.low == 0.0 and trivial.miou_floor == 0.375
    alone = skill_of(tallies(label * 0, label * 0, 2))
    assert (alone.value, alone.miou_floor) == (0.0, 1.0), "one class in all photos leaves nothing to know"


def test_the_bound_lies_below_the_value_and_closes_in_with_more_photos() -> None:
    few, many = judged_maps(0.6, photos=8), judged_maps(0.6, photos=200)
    assert few.low < few.value and many.low < many.value
    assert many.value - many.low < 0.5 * (few.value - few.low)
    assert judged_maps(0.6) == judged_maps(0.6), "the resampling is seeded"


def test_photos_without_any_label_are_no_obstacle() -> None:
    label = torch.tensor([[[2, 2]], [[0, 1]]])
    found = skill_of(tallies(label, label, 3, ignore=2))
    assert found.value == 1.0 and np.isfinite(found.low)
