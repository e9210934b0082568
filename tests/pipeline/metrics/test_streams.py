"""Sums over a stream of 10,000 images: what two passes in higher precision find, whatever the batch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.metrics.accumulate import Totals
from pipeline.metrics.attention import AttentionAgreement, leakage_and_entropy
from pipeline.metrics.distribution import Moments, frechet
from pipeline.metrics.images import ImageBatch
from pipeline.metrics.reconstruction import psnr, rmse, ssim

IMAGES = 10_000
SIZES = (1, 7, 64)
METRICS = {"psnr": psnr, "rmse": rmse, "ssim": ssim}


def parts(count: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, count, size))


def test_covariances_and_distances() -> None:
    """Features whose means are up to a thousand times their deviations."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((IMAGES, 12)) @ rng.standard_normal((12, 12)) + 1000 * rng.random(12)
    features, shifted = rows.astype(np.float32), (rows + 0.5).astype(np.float32)
    exact = [x.astype(np.longdouble) for x in (features, shifted)]
    means = [x.mean(axis=0) for x in exact]
    spreads = [
        ((x - mean).T @ (x - mean) / (IMAGES - 1)).astype(np.float64) for x, mean in zip(exact, means, strict=True)
    ]
    wanted = frechet(means[0].astype(float), spreads[0], means[1].astype(float), spreads[1])
    assert wanted > 2, "twelve features are half a unit apart"
    for size in SIZES:
        streams = [Moments(12), Moments(12)]
        for moments, source in zip(streams, (features, shifted), strict=True):
            for part in parts(IMAGES, size):
                moments.update(source[part])
        for moments, mean, spread in zip(streams, means, spreads, strict=True):
            np.testing.assert_allclose(moments.mean, mean.astype(float), rtol=1e-13)
            np.testing.assert_allclose(moments.covariance, spread, rtol=0, atol=1e-11 * np.abs(spread).max())
        one, other = streams
        assert frechet(one.mean, one.covariance, other.mean, other.covariance) == pytest.approx(wanted, rel=1e-9)


def test_agreement_of_attention() -> None:
    torch.manual_seed(0)
    label = torch.randint(0, 4, (IMAGES, 4, 4))
    levels = [3 * torch.randn(IMAGES, 4, 4, 4), 30 * torch.randn(IMAGES, 4, 2, 2)]
    whole = [leakage_and_entropy(levels[0], label), leakage_and_entropy(levels[1], label[:, ::2, ::2])]
    wanted = {
        name: np.mean([two_pass_mean(values[kind]) for values in whole])
        for kind, name in enumerate(("attention_leakage", "attention_entropy"))
    }
    found = []
    for size in (7, 64):
        totals = Totals()
        for part in parts(IMAGES, size):
            batch = AttentionAgreement(4)
            batch.update([level[part] for level in levels], label[part])
            totals.add(batch.contribution("attention"))
        found.append(AttentionAgreement.of(totals, "attention", 4).values())
        assert {name: found[-1][name] for name in wanted} == pytest.approx(wanted, rel=1e-12)
    assert found[0] == pytest.approx(found[1], rel=1e-12)


def test_means_of_image_metrics() -> None:
    """Bright images that hardly vary and differ by little: nothing is left to subtract."""
    torch.manual_seed(1)
    target = (0.9 + 0.01 * torch.randn(IMAGES, 3, 12, 12)).clamp(0, 1)
    output = (target + 0.001 * torch.randn_like(target)).clamp(0, 1)
    wanted = {name: float(two_pass_mean(metric(unit(output), unit(target)))) for name, metric in METRICS.items()}
    exact_rmse = np.sqrt(((output.double() - target.double()).numpy().astype(np.longdouble) ** 2).mean(axis=(1, 2, 3)))
    assert wanted["rmse"] == pytest.approx(float(exact_rmse.mean()), rel=1e-12)
    for size, count in ((64, IMAGES), (7, IMAGES), (1, 500)):
        totals = Totals()
        for part in parts(count, size):
            values = {name: metric(unit(output[part]), unit(target[part])) for name, metric in METRICS.items()}
            totals.add({f"each/{name}": value.numpy() for name, value in values.items()})
        for name, metric in METRICS.items():
            if count == IMAGES:
                assert np.mean(totals.stacked(f"each/{name}")) == pytest.approx(wanted[name], rel=1e-12), name
            single = metric(unit(output[:count]), unit(target[:count])).numpy()
            np.testing.assert_allclose(totals.stacked(f"each/{name}"), single, rtol=1e-12)


def unit(images: Tensor) -> ImageBatch:
    return ImageBatch(images, "unit")


def two_pass_mean(values: Tensor) -> np.longdouble:
    """The mean, corrected by the mean of what it leaves."""
    wide = values.numpy().astype(np.longdouble)
    rough = wide.mean()
    return rough + (wide - rough).mean()
