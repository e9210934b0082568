"""SPADE against numbers recorded from the public release: encoder, both generators, discriminator and losses.

Quick tests use the compact set and the first layers; the 256x256 passes are marked slow, and read the full set where it lies
beside the checkout, else the compact one (every fourth pixel).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.models.discriminator import discriminate
from pipeline.models.interop import load_release
from pipeline.models.interop.spade import import_discriminator
from pipeline.models.spade import SpadeGenerator
from pipeline.models.variational import kl_divergence
from pipeline.training.losses import discriminator_loss, feature_matching_loss, generator_gan_loss, patch_scores
from tests.parity_fill import case_inputs, check_fill, fill_state_dict
from tests.pipeline.models.release_fill import (
    FULL,
    IMAGE,
    Arrays,
    fill_with_sigma,
    hold_to_float64,
    load_arrays,
    load_meta,
    record_outputs,
    statistics,
    trunk_path,
)


@pytest.fixture(scope="module")
def compact() -> Arrays:
    return load_arrays("spade", full=False)


@pytest.fixture(scope="module")
def meta() -> dict[str, Any]:
    return load_meta("spade")


@pytest.fixture(scope="module")
def inputs() -> tuple[Tensor, Tensor]:
    return case_inputs(7, (256, 256), 19, (16, 16))


def load(variant: str, meta: dict[str, Any]) -> SpadeGenerator:
    state = fill_with_sigma(meta[f"keys_G_{variant}"], meta["gains"], meta[f"sigma_G_{variant}"])
    assert check_fill(state, meta[f"keys_G_{variant}"]) == []
    encoder = fill_with_sigma(meta["keys_E"], {}, meta["sigma_E"]) if variant == "vae" else None
    generator = load_release("spade", state, encoder=encoder)
    assert isinstance(generator, SpadeGenerator)
    return generator


@torch.no_grad()
def test_encoder_and_first_blocks(meta: dict[str, Any], compact: Arrays, inputs: tuple[Tensor, Tensor]) -> None:
    image, mask = inputs
    generator = load("vae", meta)
    assert sum(parameter.numel() for parameter in generator.parameters()) == 109_205_443 + 10_463_424
    mean, log_variance = generator.encode_distribution(image)
    np.testing.assert_allclose(mean, compact["mu"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(log_variance, compact["logvar"], rtol=0, atol=1e-4)
    np.testing.assert_array_equal(generator.encode_style(image, mask), mean)
    kl = 0.05 * kl_divergence(mean, log_variance).item()
    np.testing.assert_allclose(kl, compact["losses_vae"][0], rtol=1e-4)
    x = generator.start(mean).view(2, 1024, 8, 8)
    rows = dict(zip(meta["stat_names"], compact["stats_vae"], strict=True))
    np.testing.assert_allclose(statistics(x), rows["fc"], **IMAGE)
    x = generator.trunk.head(x, (mask,))
    np.testing.assert_allclose(statistics(x), rows["head_0"], **IMAGE)


@torch.no_grad()
def test_half_size_discriminator(meta: dict[str, Any], compact: Arrays, inputs: tuple[Tensor, Tensor]) -> None:
    image, mask = inputs
    discriminator = import_discriminator(fill_with_sigma(meta["keys_D"], {}, meta["sigma_D"]))
    x = torch.nn.functional.avg_pool2d(torch.cat([mask, image], 1)[:1], 3, 2, 1, count_include_pad=False)
    scores = discriminator.scales[1](x)[-1]
    np.testing.assert_allclose(scores, compact["D_1_logits_real"][:1], **IMAGE)


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("variant", ["seg", "vae"])
def test_image_scores_and_losses(variant: str, meta: dict[str, Any], inputs: tuple[Tensor, Tensor]) -> None:
    image, mask = inputs
    full = (FULL / "spade").is_dir()
    expected = load_arrays("spade", full=full)
    generator = load(variant, meta)
    seen = record_outputs(generator, {name: trunk_path(name) for name in meta["stat_names"]})
    style = generator.encode_style(image, mask)
    fake = generator.synthesize(mask, style).image
    np.testing.assert_allclose(
        np.stack([seen[name] for name in meta["stat_names"]]), expected[f"stats_{variant}"], **IMAGE
    )
    step, suffix = (1, "") if full else (4, "_sub4")
    np.testing.assert_allclose(fake[..., ::step, ::step], expected[f"image_{variant}{suffix}"], **IMAGE)
    discriminator = import_discriminator(fill_with_sigma(meta["keys_D"], {}, meta["sigma_D"]))
    fake_features, real_features = discriminate(discriminator, mask, fake, image)
    for half, features in (("fake", fake_features), ("real", real_features)):
        rows = np.stack([statistics(feature) for scale in features for feature in scale])
        np.testing.assert_allclose(rows, expected[f"D_stats_{half}_{variant}"], **IMAGE)
        if variant == "seg":
            scores = features[0][-1][..., ::step, ::step]
            np.testing.assert_allclose(scores, expected[f"D_0_logits_{half}{suffix}"], **IMAGE)
            np.testing.assert_allclose(features[1][-1], expected[f"D_1_logits_{half}"], **IMAGE)
    terms = discriminator_loss(patch_scores(fake_features), patch_scores(real_features), "hinge")
    losses = [
        generator_gan_loss(patch_scores(fake_features), "hinge").item(),
        10 * feature_matching_loss(fake_features, real_features).item(),
        terms.fake.item(),
        terms.real.item(),
    ]
    if variant == "vae":
        losses.insert(0, 0.05 * kl_divergence(*generator.encode_distribution(image)).item())
    np.testing.assert_allclose(losses, expected[f"losses_{variant}"], rtol=1e-4)


@pytest.mark.slow
def test_recorded_sigma_is_that_of_the_weight_rule(meta: dict[str, Any]) -> None:
    sigma: dict[str, float] = {}
    fill_state_dict(meta["keys_E"], {}, sigma)
    assert {key.removesuffix("_orig"): value for key, value in sigma.items()} == pytest.approx(
        meta["sigma_E"], rel=1e-6
    )


def test_style_of_a_bright_image_is_the_naive_forms_in_float64(meta: dict[str, Any]) -> None:
    hold_to_float64(load("vae", meta), lambda network, image, mask: list(network.encode_distribution(image)))


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["seg", "vae"])
def test_a_bright_image_is_the_naive_forms_in_float64(variant: str, meta: dict[str, Any]) -> None:
    hold_to_float64(
        load(variant, meta),
        lambda network, image, mask: [network.synthesize(mask, network.encode_style(image, mask)).image],
    )
