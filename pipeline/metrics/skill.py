"""Ceiling, floor and skill of a segmenter, from what it makes of each real photo.

The floor is what one class everywhere scores by the same rule; skill is what lies between floor and ceiling, over what lies
between floor and 1. Its lower bound comes from resampling photos, ceiling and floor over the same ones (a paired bootstrap).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

RESAMPLES, SEED = 1000, 0
HIT, TRUE, FOUND = range(3)  # rows of a tally: pixels of a class that are found, that it has, that are taken for it


@dataclass(frozen=True)
class Skill:
    """How far a segmenter is above the trivial one, on one set of photos."""

    miou_floor: float
    accuracy_floor: float
    value: float  # (ceiling - floor) / (1 - floor); 0 where one class everywhere is right everywhere
    low: float  # 2.5 % quantile over resampled photos


def tallies(predicted: Tensor, label: Tensor, num_classes: int, ignore: int | None = None) -> NDArray[np.int64]:
    """(N,3,K) counts of each image's pixels from `predicted` and `label` (N,H,W) int64 ids 0..K-1; class `ignore` left out."""
    images = len(label)
    offset = torch.arange(images, device=label.device).view(-1, 1) * num_classes
    true, found = label.flatten(1), predicted.flatten(1)
    counted = torch.ones_like(true, dtype=torch.bool) if ignore is None else true != ignore

    def count(classes: Tensor, where: Tensor) -> Tensor:
        return torch.bincount((classes + offset)[where], minlength=images * num_classes).view(images, num_classes)

    rows = (count(true, counted & (true == found)), count(true, counted), count(found, counted))
    return torch.stack(rows, dim=1).cpu().numpy()


def ious(tally: NDArray) -> NDArray[np.float64]:
    """(...,3,K) counts -> (...,K) IoU of each class, NaN for classes that no label holds."""
    counts = tally.astype(np.float64)
    hit, true, found = (counts[..., row, :] for row in (HIT, TRUE, FOUND))
    return np.where(true > 0, hit / np.maximum(true + found - hit, 1.0), np.nan)


def mean_iou(tally: NDArray) -> NDArray[np.float64]:
    """(...,3,K) counts -> (...) mean IoU over the classes that the labels hold, as `Confusion.mean_iou`; 0 without any label."""
    found = ious(tally)
    return np.nansum(found, axis=-1) / np.maximum(np.isfinite(found).sum(axis=-1), 1)


def floors(true: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean IoU and accuracy of the most frequent class everywhere, where labels hold (...,K) pixels of each class.

    Of the C classes that occur it has IoU = accuracy = its share of the pixels, the others have IoU 0.
    """
    accuracy = true.max(axis=-1) / np.maximum(true.sum(axis=-1), 1)
    return accuracy / np.maximum((true > 0).sum(axis=-1), 1), accuracy


def skill_of(each: NDArray[np.int64], *, resamples: int = RESAMPLES, seed: int = SEED) -> Skill:
    """Skill over N photos from their tallies (N,3,K)."""
    whole = each.sum(axis=0)
    draws = np.random.default_rng(seed).multinomial(len(each), np.full(len(each), 1.0 / len(each)), size=resamples)
    resampled = (draws.astype(np.float64) @ each.reshape(len(each), -1)).reshape(resamples, *whole.shape)
    miou_floor, accuracy_floor = (float(value) for value in floors(whole[TRUE]))
    low = float(np.quantile(_skill(resampled), 0.025))
    return Skill(miou_floor, accuracy_floor, float(_skill(whole)), low)


def _skill(tally: NDArray) -> NDArray[np.float64]:
    floor, _ = floors(tally[..., TRUE, :])
    room = 1.0 - floor
    return np.where(room > 0, (mean_iou(tally) - floor) / np.where(room > 0, room, 1.0), 0.0)
