"""INADE and V-INADE against numbers recorded from the public release: noise, encoder, images, exchanges, split instances.

Quick tests use the compact set and the first layers; the 256x256 passes are marked slow, and read the full set where it lies
beside the checkout, else the compact one (every eighth pixel).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.models.inade import InadeGenerator
from pipeline.models.interop import load_release
from pipeline.models.kernels import naive_kernels
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
    recorded_image,
    statistics,
    trunk_path,
)

CODE_MAX = 1e-4  # the fixture's suggestion for encoder outputs
ENCODER = {"layer1": "down.0", "layer2": "down.1", "layer3": "down.2", "layer4": "down.3", "middle": "middle"}
ENCODER |= {"up1": "up.0", "up2": "up.1", "up3": "up.2"}
HEADS = ("scale_conv_mu", "bias_conv_mu", "scale_conv_var", "bias_conv_var")  # of our one conv's channels, in its order


@pytest.fixture(scope="module")
def meta() -> dict[str, Any]:
    return load_meta("inade")


@pytest.fixture(scope="module")
def inputs() -> tuple[Tensor, Tensor]:
    return case_inputs(7, (256, 256), 19, (16, 16))


@pytest.fixture(scope="module")
def generator(meta: dict[str, Any]) -> InadeGenerator:
    states = [fill_with_sigma(meta[keys], meta["gains"], meta["sigma_G"]) for keys in ("keys_G", "keys_E")]
    for state, keys in zip(states, ("keys_G", "keys_E"), strict=True):
        # A stem of `sigma` is that of a spectrally normalised conv; the encoder has none.
        assert check_fill(state, meta[keys]) == []
    loaded = load_release("inade", states[0], encoder=states[1])
    assert isinstance(loaded, InadeGenerator)
    assert sum(parameter.numel() for parameter in loaded.parameters()) == 85_115_395 + 3_689_856
    return loaded


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.Generator(np.random.PCG64(seed)).standard_normal(shape).astype(np.float32))


def recorded_codes(arrays: Arrays, prefix: str = "") -> tuple[Tensor, Tensor]:
    """Mean and log-variance (2,I,128) as recorded, scale before shift."""
    mean, log_variance = (
        torch.from_numpy(np.concatenate([arrays[f"{prefix}{part}_{kind}"] for part in ("scale", "bias")], axis=2))
        for kind in ("mu", "logvar")
    )
    return mean, log_variance


def remapped(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    return mean + noise.flatten(2) * torch.exp(0.5 * log_variance)


def split(mask: Tensor) -> Tensor:
    """Two instances a class: the class in the left half, the class + 19 in the right one."""
    ids = mask.argmax(dim=1)
    ids[:, :, 128:] += 19
    return ids


@torch.no_grad()
def test_codes_and_first_block(generator: InadeGenerator, inputs: tuple[Tensor, Tensor], meta: dict[str, Any]) -> None:
    compact = load_arrays("inade", full=False)
    image, mask = inputs
    expected = recorded_codes(compact)
    made = generator.encode_distribution(image[:1], mask[:1])
    for ours, theirs in zip(made, expected, strict=True):
        np.testing.assert_allclose(ours, theirs[:1], rtol=0, atol=CODE_MAX)
    np.testing.assert_array_equal(generator.encode_style(image[:1], mask[:1]), made[0])
    rows = dict(zip(meta["stat_names_G"], compact["stats_vae"], strict=True))
    x = generator.start(drawn(9, 2, 256)).view(2, 1024, 8, 8)
    np.testing.assert_allclose(statistics(x), rows["fc"], **IMAGE)
    noise = remapped(*expected, drawn(10, 2, 19, 2, 64)).view(2, 19, 2, 64)
    np.testing.assert_allclose(statistics(generator.trunk.head.norm_0(x, mask, noise)), rows["head_0.norm_0"], **IMAGE)
    block = generator.trunk.head(x, (mask, noise))
    np.testing.assert_allclose(statistics(block), rows["head_0"], **IMAGE)
    with naive_kernels():
        torch.testing.assert_close(generator.trunk.head(x, (mask, noise)), block, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@torch.no_grad()
def test_encoder_statistics_and_split_instances(
    generator: InadeGenerator, inputs: tuple[Tensor, Tensor], meta: dict[str, Any]
) -> None:
    expected = load_arrays("inade", full=(FULL / "inade").is_dir())
    image, mask = inputs
    seen = record_outputs(generator, {name: f"encoder.{path}" for name, path in ENCODER.items()})

    def keep(_module: Any, _inputs: Any, output: Tensor) -> None:
        for name, part in zip(HEADS, output.chunk(4, dim=1), strict=True):
            seen[name] = statistics(part)

    assert generator.encoder is not None
    hook = generator.encoder.heads.register_forward_hook(keep)
    made = generator.encode_distribution(image, mask)
    hook.remove()
    for ours, theirs in zip(made, recorded_codes(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=CODE_MAX)
    if "noise_remapped" in expected:  # in the full set alone
        remapped_here = remapped(*made, drawn(10, 2, 19, 2, 64))
        recorded = expected["noise_remapped"].reshape(2, 19, 128)
        np.testing.assert_allclose(remapped_here, recorded, rtol=0, atol=CODE_MAX)
    np.testing.assert_allclose(np.stack([seen[name] for name in meta["stat_names_E"]]), expected["stats_E"], **IMAGE)
    halves = generator.encode_distribution(image, mask, instances=split(mask))
    for ours, theirs in zip(halves, recorded_codes(expected, "split_"), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=CODE_MAX)
    style = remapped(*halves, drawn(10, 2, 38, 2, 64))
    drawing = generator.synthesize(mask, style, instances=split(mask), start=drawn(9, 2, 256)).image
    theirs_image, step = recorded_image(expected, "image_vae_split")
    np.testing.assert_allclose(drawing[..., ::step, ::step], theirs_image, **IMAGE)


@pytest.mark.slow
@torch.no_grad()
def test_images_and_exchanges(generator: InadeGenerator, inputs: tuple[Tensor, Tensor], meta: dict[str, Any]) -> None:
    expected = load_arrays("inade", full=(FULL / "inade").is_dir())
    _, mask = inputs
    start, noise = drawn(9, 2, 256), drawn(10, 2, 19, 2, 64)
    mean, log_variance = recorded_codes(expected)
    one_row = [code.clone() for code in (mean, log_variance)]
    for code, other in zip(one_row, (mean, log_variance), strict=True):
        code[:, 13] = other.flip(0)[:, 13]
    cases = {
        "image_noise": noise,
        "image_vae": remapped(mean, log_variance, noise),
        "image_vae_mean": mean,
        "image_vae_swap13": remapped(one_row[0], one_row[1], noise),
        "image_vae_swap_all": remapped(mean.flip(0), log_variance.flip(0), noise),
    }
    seen = record_outputs(generator, {name: trunk_path(name) for name in meta["stat_names_G"]})
    own: Tensor | None = None
    for name, style in cases.items():
        made = generator.synthesize(mask, style, start=start).image
        theirs, step = recorded_image(expected, name)
        np.testing.assert_allclose(made[..., ::step, ::step], theirs, **IMAGE)
        if name in ("image_noise", "image_vae"):
            rows = np.stack([seen[layer] for layer in meta["stat_names_G"]])
            np.testing.assert_allclose(rows, expected[name.replace("image", "stats")], **IMAGE)
        if name == "image_vae":
            own = made
        if "swap" in name:
            assert own is not None, "image_vae comes first"
            before, before_step = recorded_image(expected, "image_vae")
            difference = theirs - before[..., :: step // before_step, :: step // before_step]
            assert np.sqrt(np.mean(difference**2)) > 0.04, "the exchange is visible"
            np.testing.assert_allclose((made - own)[..., ::step, ::step], difference, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_the_release_draws_its_start_when_testing_too(generator: InadeGenerator, inputs: tuple[Tensor, Tensor]) -> None:
    assert generator.config.start_noise == "always" and not generator.training
    torch.manual_seed(3)
    expected = generator.start(torch.randn(1, 256))
    torch.manual_seed(3)
    drawn_start = generator.start(generator._start_noise(torch.zeros(1, 19, 2, 64)))
    torch.testing.assert_close(drawn_start, expected)


def test_codes_of_a_bright_image_are_the_naive_forms_in_float64(generator: InadeGenerator) -> None:
    hold_to_float64(generator, lambda network, image, mask: list(network.encode_distribution(image, mask)))


@pytest.mark.slow
def test_a_bright_image_is_the_naive_forms_in_float64(generator: InadeGenerator) -> None:
    def draw(network: InadeGenerator, image: Tensor, mask: Tensor) -> list[Tensor]:
        start = drawn(9, 1, 256).to(image.dtype)
        return [network.synthesize(mask, network.encode_style(image, mask), start=start).image]

    hold_to_float64(generator, draw)
