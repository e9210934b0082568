"""Resize, crop, mirror, connected components."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.data.label_spaces import label_space
from pipeline.data.transforms import (
    connected_components,
    crop,
    mirror,
    resize_image,
    resize_label,
    source_box,
)
from pipeline.data.types import Sample
from tests.pipeline.data.samples import data_config

WHOLE = (0.0, 0.0, 1.0, 1.0)


@given(h=st.integers(1, 40), w=st.integers(1, 40), height=st.integers(1, 40), width=st.integers(1, 40))
def test_labels_are_never_mixed(h: int, w: int, height: int, width: int) -> None:
    label = np.random.default_rng(0).choice(np.asarray([0, 7, 255], dtype=np.int32), (h, w))
    small = resize_label(label, height, width, WHOLE)
    assert small.shape == (height, width) and small.dtype == label.dtype
    assert set(np.unique(small)) <= set(np.unique(label))
    if (h, w) == (height, width):
        assert np.array_equal(small, label)


def test_nearest_is_pillows_nearest() -> None:
    label = np.random.default_rng(1).integers(0, 200, (37, 53)).astype(np.uint8)
    for height, width in ((16, 16), (74, 106), (20, 99)):
        theirs = np.asarray(Image.fromarray(label).resize((width, height), Image.Resampling.NEAREST))
        assert np.array_equal(resize_label(label, height, width, WHOLE), theirs)


@pytest.mark.parametrize("mode", ["stretch", "cover"])
def test_photo_and_label_stay_aligned(mode: str) -> None:
    """A picture that shows its own label map, at another resolution, still does after the resize."""
    label = np.zeros((60, 90), dtype=np.uint8)
    label[20:50, 15:40] = 1
    photo = Image.fromarray(np.repeat(label[..., None] * 255, 3, axis=2)).resize((180, 120), Image.Resampling.NEAREST)
    box = source_box(180 / 120, 1.0, mode)  # type: ignore[arg-type]
    small, image = resize_label(label, 24, 24, box), resize_image(photo, 24, 24, box)
    assert ((image[..., 0] > 127) == (small == 1)).mean() > 0.97
    assert 0.05 < small.mean() < 0.6


def test_cover_keeps_the_aspect() -> None:
    assert source_box(2.0, 1.0, "cover") == (0.25, 0.0, 0.75, 1.0)
    assert source_box(0.5, 1.0, "cover") == (0.0, 0.25, 1.0, 0.75)
    assert source_box(2.0, 1.0, "stretch") == WHOLE


def _sample(height: int = 6, width: int = 8) -> Sample:
    rng = np.random.default_rng(2)
    return Sample(
        rng.integers(0, 256, (height, width, 3)).astype(np.uint8),
        rng.integers(0, 19, (height, width)).astype(np.uint8),
        "x",
        rng.integers(0, 99, (height, width)).astype(np.int32),
    )


def test_mirror_twice_is_the_sample() -> None:
    sample, space = _sample(), label_space("celebamask_hq")
    once, twice = mirror(sample, space), mirror(mirror(sample, space), space)
    assert not np.array_equal(once.image, sample.image)
    for a, b in ((twice.image, sample.image), (twice.label, sample.label), (twice.instance, sample.instance)):
        assert np.array_equal(a, b)  # type: ignore[arg-type]


def test_crops() -> None:
    sample = _sample()
    part = crop(sample, 1, 2, 3, 4)
    assert np.array_equal(part.label, sample.label[1:4, 2:6]) and part.instance is not None


def test_connected_components_number_every_piece() -> None:
    label = np.asarray([[0, 1, 0], [1, 1, 0], [2, 0, 0]], dtype=np.uint8)
    parts = connected_components(label)
    assert parts.tolist() == [[0, 2, 1], [2, 2, 1], [3, 1, 1]]


@pytest.mark.parametrize(
    ("size", "aspect", "expected"),
    [(256, 1.0, (256, 256)), (256, 2.0, (256, 512)), (64, 0.5, (128, 64)), (48, 1.5, (48, 72))],
)
def test_training_size(size: int, aspect: float, expected: tuple[int, int]) -> None:
    assert data_config(size=size, aspect=aspect).hw == expected
