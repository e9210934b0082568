"""Image batches say their range, and a wrong one cannot be made."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.metrics.images import ImageBatch, check_pair, from_uint8


def test_ranges_convert_into_one_another() -> None:
    signed = ImageBatch(torch.tensor([-1.0, 0.0, 1.0]).view(1, 3, 1, 1), "signed")
    assert signed.unit().flatten().tolist() == [0.0, 0.5, 1.0]
    assert ImageBatch(signed.unit(), "unit").signed().flatten().tolist() == [-1.0, 0.0, 1.0]
    assert signed.uint8().tolist() == [[[[0, 128, 255]]]]


@pytest.mark.parametrize(
    ("tensor", "declared", "message"),
    [
        (torch.full((1, 3, 2, 2), -0.5), "unit", r"must lie in \[0, 1\]"),
        (torch.full((1, 3, 2, 2), 255.0), "signed", r"must lie in \[-1, 1\]"),
        (torch.full((1, 3, 2, 2), float("nan")), "signed", "must lie in"),
        (torch.zeros(1, 3, 2, 2, dtype=torch.float64), "unit", "must be float32"),
        (torch.zeros(3, 2, 2), "unit", r"must be \(N,3,H,W\)"),
        (torch.zeros(1, 1, 2, 2), "unit", r"must be \(N,3,H,W\)"),
        (torch.zeros(1, 3, 2, 2), "bytes", "image range"),
    ],
)
def test_a_wrong_range_type_or_shape_raises(tensor: torch.Tensor, declared: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageBatch(tensor, declared)  # type: ignore[arg-type]


def test_tiny_overshoot_is_clamped() -> None:
    batch = ImageBatch(torch.full((1, 3, 1, 1), 1.0005), "unit")
    assert float(batch.unit().max()) == 1.0


@given(st.lists(st.integers(0, 255), min_size=12, max_size=12))
def test_eight_bit_pictures_survive_the_way_through_tensors(values: list[int]) -> None:
    picture = np.array(values, dtype=np.uint8).reshape(1, 2, 2, 3)
    batch = from_uint8(picture)
    assert np.array_equal(batch.uint8(), picture)
    assert np.array_equal(ImageBatch(batch.signed(), "signed").uint8(), picture)
    assert torch.equal(batch.quantised().tensor, batch.tensor)


def test_pairs_must_declare_and_agree() -> None:
    batch = ImageBatch(torch.zeros(1, 3, 4, 4), "unit")
    with pytest.raises(TypeError, match="declares its range"):
        check_pair(batch, torch.zeros(1, 3, 4, 4))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="differ in shape"):
        check_pair(batch, ImageBatch(torch.zeros(2, 3, 4, 4), "unit"))
    with pytest.raises(ValueError, match="uint8"):
        from_uint8(np.zeros((1, 2, 2, 3), dtype=np.float32))  # type: ignore[arg-type]
