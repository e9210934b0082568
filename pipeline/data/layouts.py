"""Edits of label maps: take classes out, take them over from another map. Every pixel always has exactly one class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.uint8]


def inside(label: Labels, classes: Sequence[int]) -> NDArray[np.bool_]:
    """(H,W) bool: where `label` (H,W) is one of `classes`."""
    return np.isin(label, list(classes))


def without(label: Labels, classes: Sequence[int]) -> Labels:
    """(H,W) map with the pixels of `classes` given to the nearest pixel of another class.

    Raises ValueError when there is no other class.
    """
    return filled(label, inside(label, classes))


def filled(label: Labels, hole: NDArray[np.bool_]) -> Labels:
    """(H,W) map with the pixels of `hole` (H,W) given to the nearest pixel outside. ValueError when all is hole."""
    if not hole.any():
        return label.copy()
    rows, columns = nearest_outside(hole)
    return label[rows, columns]


def nearest_outside(hole: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Row and column (H,W) of the nearest pixel outside `hole` (H,W), of every pixel. ValueError when all is hole."""
    if hole.all():
        raise ValueError("nothing is left of the label map to fill the hole from")
    from scipy.ndimage import distance_transform_edt

    rows, columns = distance_transform_edt(hole, return_distances=False, return_indices=True)
    return rows, columns


def transplanted(label: Labels, donor: Labels, classes: Sequence[int]) -> Labels:
    """(H,W) map in which `classes` have the shape they have in `donor` (H,W); what they leave bare goes to the nearest others.

    Raises ValueError when `label` holds nothing but `classes`.
    """
    result = without(label, classes)
    taken = inside(donor, classes)
    result[taken] = donor[taken]
    return result
