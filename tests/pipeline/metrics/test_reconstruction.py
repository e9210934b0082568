"""PSNR, SSIM, RMSE: closed forms, equality with torchmetrics and scikit-image, direction."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.metrics.images import ImageBatch
from pipeline.metrics.reconstruction import psnr, rmse, ssim


def pair(size: int = 24, noise: float = 0.1, count: int = 3) -> tuple[ImageBatch, ImageBatch]:
    generator = torch.Generator().manual_seed(1)
    real = torch.rand(count, 3, size, size + 4, generator=generator)
    fake = (real + noise * torch.randn(real.shape, generator=generator)).clamp(0, 1)
    return ImageBatch(fake, "unit"), ImageBatch(real, "unit")


@given(st.floats(0.01, 0.9))
def test_a_constant_offset_has_a_closed_form(offset: float) -> None:
    black, grey = torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), offset)
    a, b = ImageBatch(grey, "unit"), ImageBatch(black, "unit")
    assert float(rmse(a, b)) == pytest.approx(offset, rel=1e-6)
    assert float(psnr(a, b)) == pytest.approx(-20 * math.log10(offset), rel=1e-5)


def test_identical_images() -> None:
    image, _ = pair()
    assert rmse(image, image).tolist() == [0, 0, 0]
    assert psnr(image, image).tolist() == [100, 100, 100]
    assert ssim(image, image).tolist() == pytest.approx([1, 1, 1])


def test_the_declared_range_does_not_change_the_value() -> None:
    fake, real = pair()
    signed = ImageBatch(fake.signed(), "signed"), ImageBatch(real.signed(), "signed")
    for metric in (rmse, psnr, ssim):
        assert metric(fake, real).tolist() == pytest.approx(metric(*signed).tolist(), rel=1e-5)


def test_equal_to_torchmetrics() -> None:
    from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

    fake, real = pair()
    for data_range in (1.0, 2.0):
        _, theirs = structural_similarity_index_measure(
            fake.tensor, real.tensor, data_range=data_range, reduction="none", return_full_image=True
        )
        # Its mean takes in reflected borders; Wang et al. and scikit-image average where the window lies inside.
        inner = theirs[..., 5:-5, 5:-5].mean(dim=(1, 2, 3))
        assert ssim(fake, real, data_range=data_range).tolist() == pytest.approx(inner.tolist(), abs=2e-5)
    db = peak_signal_noise_ratio(fake.tensor, real.tensor, data_range=1.0, reduction="none", dim=(1, 2, 3))
    assert psnr(fake, real).tolist() == pytest.approx(db.tolist(), abs=1e-4)


def test_equal_to_scikit_image() -> None:
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    fake, real = pair()
    for i, (mine, mine_db) in enumerate(zip(ssim(fake, real).tolist(), psnr(fake, real).tolist(), strict=True)):
        a, b = (batch.tensor[i].permute(1, 2, 0).double().numpy() for batch in (fake, real))
        theirs = structural_similarity(
            a, b, data_range=1.0, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        assert mine == pytest.approx(theirs, abs=1e-6)
        assert mine_db == pytest.approx(peak_signal_noise_ratio(b, a, data_range=1.0), abs=1e-6)


@settings(max_examples=10)
@given(st.floats(0.01, 0.15), st.floats(1.5, 3.0))
def test_more_noise_is_worse(noise: float, factor: float) -> None:
    mild, real = pair(noise=noise)
    strong, _ = pair(noise=noise * factor)
    assert bool((psnr(strong, real) < psnr(mild, real)).all())
    assert bool((ssim(strong, real) < ssim(mild, real)).all())
    assert bool((rmse(strong, real) > rmse(mild, real)).all())


def test_range_two_inflates() -> None:
    fake, real = pair()
    assert bool((ssim(fake, real, data_range=2.0) > ssim(fake, real)).all())


def test_values_do_not_depend_on_batch_or_order() -> None:
    fake, real = pair(count=4)
    whole = np.stack([metric(fake, real).numpy() for metric in (psnr, ssim, rmse)])
    for i in (3, 0, 2, 1):
        a, b = ImageBatch(fake.tensor[i : i + 1], "unit"), ImageBatch(real.tensor[i : i + 1], "unit")
        assert np.allclose([metric(a, b).item() for metric in (psnr, ssim, rmse)], whole[:, i], rtol=1e-12)


def test_small_images_and_bare_tensors_are_refused() -> None:
    small = ImageBatch(torch.zeros(1, 3, 10, 32), "unit")
    with pytest.raises(ValueError, match="at least 11"):
        ssim(small, small)
    with pytest.raises(TypeError, match="ImageBatch"):
        psnr(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4))  # type: ignore[arg-type]
