"""SEAN against numbers recorded from the public release: style codes, images, style exchanges and layer statistics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.models.interop import load_release
from pipeline.models.kernels import naive_kernels
from pipeline.models.sean import SeanGenerator
from tests.parity_fill import case_inputs, check_fill
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

CLASSES = [0, 5, 13]  # whose codes the compact set holds
CODE_MAX = 2e-5  # the fixture's suggestion


@pytest.fixture(scope="module")
def meta() -> dict[str, Any]:
    return load_meta("sean")


@pytest.fixture(scope="module")
def compact() -> Arrays:
    return load_arrays("sean", full=False)


@pytest.fixture(scope="module")
def generator(meta: dict[str, Any]) -> Iterator[SeanGenerator]:
    state = fill_with_sigma(meta["keys"], {**meta["gains"], r"\.noise_var$": 0.0}, meta["sigma"])
    assert check_fill(state, meta["keys"]) == []
    loaded = load_release("sean", state)
    assert isinstance(loaded, SeanGenerator)
    yield loaded


@pytest.fixture(scope="module")
def inputs() -> tuple[Tensor, Tensor]:
    return case_inputs(7, (256, 256), 19, (16, 16))


@pytest.fixture(scope="module")
def codes(generator: SeanGenerator, inputs: tuple[Tensor, Tensor]) -> Tensor:
    with torch.no_grad():
        return generator.encode_style(*inputs)


@torch.no_grad()
def test_codes_and_first_block(
    generator: SeanGenerator,
    inputs: tuple[Tensor, Tensor],
    codes: Tensor,
    compact: Arrays,
    meta: dict[str, Any],
) -> None:
    """Style codes, the first SEAN block and the first residual block (at 8 pixels: quick), and the literal loops there."""
    _, mask = inputs
    np.testing.assert_allclose(codes[:, CLASSES], compact["style_codes_c0_5_13"], rtol=0, atol=CODE_MAX)
    rows = dict(zip(meta["stat_names"], compact["stats"], strict=True))
    x = generator.start(torch.nn.functional.interpolate(mask, size=(8, 8), mode="nearest"))
    np.testing.assert_allclose(statistics(x), rows["fc"], **IMAGE)
    norm = generator.trunk.head.norm_0(x, mask, codes)
    np.testing.assert_allclose(statistics(norm), rows["head_0.ace_0"], **IMAGE)
    block = generator.trunk.head(x, (mask, codes))
    np.testing.assert_allclose(statistics(block), rows["head_0"], **IMAGE)
    with naive_kernels():
        torch.testing.assert_close(generator.trunk.head(x, (mask, codes)), block, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@torch.no_grad()
def test_images_and_exchanges(
    generator: SeanGenerator, inputs: tuple[Tensor, Tensor], codes: Tensor, meta: dict[str, Any]
) -> None:
    image, mask = inputs
    full = (FULL / "sean").is_dir()
    expected = load_arrays("sean", full=full)
    seen = record_outputs(
        generator, {name: trunk_path(name) for name in meta["stat_names"] if name != "Zencoder.model"}
    )
    seen["Zencoder.model"] = statistics(generator.encoder.features(image))
    own = generator.synthesize(mask, codes).image
    np.testing.assert_allclose(np.stack([seen[name] for name in meta["stat_names"]]), expected["stats"], **IMAGE)
    if full:
        np.testing.assert_allclose(codes, expected["style_codes"], rtol=0, atol=CODE_MAX)
    step, suffix = (1, "") if full else (4, "_sub4")
    np.testing.assert_allclose(own[..., ::step, ::step], expected[f"image{suffix}"], **IMAGE)
    one_class = codes.clone()
    one_class[:, 13] = codes.flip(0)[:, 13]
    swapped = generator.synthesize(mask, one_class).image
    np.testing.assert_allclose(swapped[..., ::step, ::step], expected[f"image_swap13{suffix}"], **IMAGE)
    difference = (swapped - own)[..., ::step, ::step].numpy()
    recorded = expected[f"image_swap13{suffix}"] - expected[f"image{suffix}"]
    assert np.sqrt(np.mean(recorded**2)) > 0.01, "the exchange is visible"
    np.testing.assert_allclose(difference, recorded, rtol=1e-3, atol=2e-5)
    all_swapped = generator.synthesize(mask, codes.flip(0)).image
    step, name = (4, "image_swap_all_sub4") if full else (8, "image_swap_all_sub8")
    np.testing.assert_allclose(all_swapped[..., ::step, ::step], expected[name], **IMAGE)


def test_codes_of_a_bright_image_are_the_naive_forms_in_float64(generator: SeanGenerator) -> None:
    hold_to_float64(generator, lambda network, image, mask: [network.encode_style(image, mask)])


@pytest.mark.slow
def test_a_bright_image_is_the_naive_forms_in_float64(generator: SeanGenerator) -> None:
    hold_to_float64(
        generator, lambda network, image, mask: [network.synthesize(mask, network.encode_style(image, mask)).image]
    )
