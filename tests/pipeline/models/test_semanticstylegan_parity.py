"""SemanticStyleGAN against numbers recorded from the public release: codes, composition, edits, discriminator, gradients.

The full set is read where it lies beside the checkout, else the compact one (every eighth pixel). Tolerances are the fixture's:
what its own float32 run differs from float64 by, with room. Gradients are the least stable, because a leaky ReLU's kink flips where
its input rounds to the other side of 0.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.data.batch import one_hot
from pipeline.models.interop import load_release
from pipeline.models.interop.common import Assembly, ReleaseState
from pipeline.models.semanticstylegan.discriminator import MaskedDiscriminator
from pipeline.models.semanticstylegan.generator import SemanticStyleGan, real_mask
from pipeline.models.semanticstylegan.synthesis import Composition
from pipeline.training.unconditional import path_lengths, pooled_difference, squared_gradients
from tests.parity_fill import draw
from tests.pipeline.models.release_fill import FULL, load_arrays, load_meta, recorded_image

SEED = 7
IMAGE = {"rtol": 0, "atol": 1e-4}
SCORE = {"rtol": 0, "atol": 1e-5}
RULES: tuple[tuple[str, float, float], ...] = (  # pattern of a key, offset, factor of its draw; the first that fits
    (r"render_net\.noises\..*", 0, 1),
    (r"(.*\.)?modulation", 1, 0.1),
    (r".*modulation\.bias", 1, 0.1),
    (r".*noise\.weight", 0.1, 0.02),
    (r"style\..*\.weight", 0, 100),
    (r"style\..*\.bias", 0, 2),
    (r"(.*\.)?bias", 0, 0.02),
    (r".*", 0, 1),
)
GAINS = {r"render_net\.to_rgbs\.\d+\.conv\.weight": 0.8, r"render_net\.to_segs\.\d+\.conv\.weight": 0.1,
         r"local_nets\.\d+\.to_depth\.conv\.weight": 6}  # fmt: skip


def filled(keys: Sequence[Sequence[Any]]) -> dict[str, Tensor]:
    """The state dict of the fixture's weight rule; fixed kernels are those the release builds."""
    state: dict[str, Tensor] = {}
    for key, shape, _dtype, first, total, *fixed in keys:
        if fixed:
            taps = np.outer([1, 3, 3, 1], [1, 3, 3, 1]).astype(np.float32)
            state[key] = torch.from_numpy(taps / taps.sum() * np.float32(total))
        else:
            offset, factor = next(rest for pattern, *rest in RULES if re.fullmatch(pattern, key))
            value = np.float32(offset) + np.float32(factor) * draw(key, shape)
            for pattern, gain in GAINS.items():
                value = value * np.float32(gain) if re.fullmatch(pattern, key) else value
            state[key] = torch.from_numpy(np.ascontiguousarray(value, dtype=np.float32))
        assert state[key].flatten()[0].item() == pytest.approx(first, rel=1e-5)
        assert state[key].double().sum().item() == pytest.approx(total, rel=1e-6, abs=1e-4)
    return state


def drawn(offset: int, shape: tuple[int, ...]) -> Tensor:
    generator = np.random.Generator(np.random.PCG64(SEED + offset))
    return torch.from_numpy(generator.standard_normal(shape).astype(np.float32))


def close(ours: Tensor, theirs: NDArray[Any], **tolerance: float) -> None:
    np.testing.assert_allclose(ours.detach().numpy(), theirs, **tolerance)


def close_map(ours: Tensor, expected: dict[str, NDArray[Any]], name: str) -> None:
    """A picture or mask against the recorded `name`, at the pixels that are recorded."""
    theirs, step = recorded_image(expected, name)
    close(ours[..., ::step, ::step], theirs, **IMAGE)


def same_labels(mask: Tensor, expected: dict[str, NDArray[Any]], name: str) -> None:
    theirs, step = recorded_image(expected, name)
    assert (mask.argmax(dim=1)[..., ::step, ::step].numpy() != theirs).mean() <= 1e-4


@pytest.fixture(scope="module")
def expected() -> dict[str, NDArray[Any]]:
    return load_arrays("semanticstylegan", full=(FULL / "semanticstylegan").is_dir())


@pytest.fixture(scope="module")
def generator() -> SemanticStyleGan:
    loaded = load_release("semanticstylegan", filled(load_meta("semanticstylegan")["keys_G"]))
    assert isinstance(loaded, SemanticStyleGan)
    return loaded.requires_grad_(False)


@pytest.fixture(scope="module")
def codes(generator: SemanticStyleGan) -> Tensor:
    return generator.mapping(drawn(1, (56, 512))).view(2, 28, 512)


@pytest.fixture(scope="module")
def made(generator: SemanticStyleGan, codes: Tensor) -> Composition:
    return generator.compose(codes, fixed_noise=True)


@pytest.fixture(scope="module")
def discriminator(generator: SemanticStyleGan) -> MaskedDiscriminator:
    """The released discriminator's keys on our modules."""
    state = ReleaseState(filled(load_meta("semanticstylegan")["keys_D"]), "discriminator")
    assembly = Assembly(lambda: MaskedDiscriminator(generator.config.discriminator, 13, generator.size))
    for ours, theirs in (("image_branch", "convs_img"), ("mask_branch", "convs_seg")):
        assembly.copy(f"{ours}.0.weight", state, f"{theirs}.0.0.weight")
        assembly.copy(f"{ours}.0.bias", state, f"{theirs}.0.1.bias")
        for block in range(1, 7):
            for name, release, at in (("first", "conv1", 0), ("second", "conv2", 1)):
                assembly.copy(f"{ours}.{block}.{name}.weight", state, f"{theirs}.{block}.{release}.{at}.weight")
                assembly.copy(f"{ours}.{block}.{name}.bias", state, f"{theirs}.{block}.{release}.{at + 1}.bias")
            assembly.copy(f"{ours}.{block}.skip.weight", state, f"{theirs}.{block}.skip.1.weight")
            for kernel in ("conv2", "skip"):
                state.ignore(f"{theirs}.{block}.{kernel}.0.kernel", (4, 4))
    assembly.copy("last.weight", state, "final_conv.0.weight")
    assembly.copy("last.bias", state, "final_conv.1.bias")
    assembly.layer("hidden", state, "final_linear.0")
    assembly.layer("score", state, "final_linear.1")
    state.finish()
    network = assembly.finish()
    assert isinstance(network, MaskedDiscriminator)
    return network.requires_grad_(False)


@pytest.fixture(scope="module")
def real() -> tuple[Tensor, Tensor]:
    labels = np.random.Generator(np.random.PCG64(SEED + 3)).integers(0, 13, (2, 16, 16))
    labels = torch.from_numpy(labels.repeat(16, axis=1).repeat(16, axis=2))
    image = np.random.Generator(np.random.PCG64(SEED + 4)).uniform(-1, 1, (2, 3, 256, 256)).astype(np.float32)
    return torch.from_numpy(image), real_mask(one_hot(labels, 13))


def test_sizes_are_read_off_the_release(generator: SemanticStyleGan, discriminator: MaskedDiscriminator) -> None:
    assert generator.size == (256, 256) and generator.num_classes == 19 and generator.layout_classes == 13
    assert sum(parameter.numel() for parameter in generator.parameters()) == 20_208_020
    local = sum(parameter.numel() for parameter in generator.composer.local.parameters())
    assert local == 403_264 + 12 * 403_393
    assert round(sum(parameter.numel() for parameter in discriminator.parameters()) / 1e6, 1) == 51.2


def test_codes_and_their_index_map(
    generator: SemanticStyleGan, codes: Tensor, expected: dict[str, NDArray[Any]]
) -> None:
    close(generator.mapping(drawn(0, (2, 512))), expected["w"], rtol=1e-5, atol=2e-5)
    close(codes, expected["codes"], rtol=1e-5, atol=2e-5)
    np.testing.assert_array_equal(generator.book.index.flatten(), expected["expanded_index"])


def test_composition(made: Composition, expected: dict[str, NDArray[Any]]) -> None:
    close_map(made.coarse, expected, "coarse_mask")
    close(made.depths[..., ::4, ::4], expected["depths"], rtol=1e-5, atol=2e-4)
    close_map(made.image, expected, "image")
    close_map(made.mask, expected, "mask")
    same_labels(made.mask, expected, "labels")
    assert pooled_difference(made).item() == pytest.approx(float(expected["mask_regulariser"]), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "label", "shape", "texture"), [("texture7", 13, False, True), ("shape7", 13, True, False)]
)
def test_one_code_exchanged_between_two_pictures(
    name: str,
    label: int,
    shape: bool,
    texture: bool,
    generator: SemanticStyleGan,
    codes: Tensor,
    made: Composition,
    expected: dict[str, NDArray[Any]],
) -> None:
    """Label 13 of the data, hair, is class 7 of the network."""
    mixed = generator.exchanged(codes, codes.flip(0), [[label], [label]], shape=shape, texture=texture)
    edited = generator.compose(mixed, fixed_noise=True)
    close_map(edited.image, expected, f"{name}_image")
    same_labels(edited.mask, expected, f"{name}_labels")
    if texture:
        moved = (edited.mask - made.mask).abs().max().item()
        assert moved == pytest.approx(float(expected["texture7_mask_diff_max"]), rel=1e-2, abs=1e-5)


@pytest.mark.slow
def test_base_code_classes_left_out_and_truncation(
    generator: SemanticStyleGan, codes: Tensor, expected: dict[str, NDArray[Any]]
) -> None:
    mixed = codes.clone()
    mixed[:, 0] = codes.flip(0)[:, 0]
    based = generator.compose(mixed, fixed_noise=True)
    close_map(based.image, expected, "base0_image")
    same_labels(based.mask, expected, "base0_labels")
    keep = torch.ones(2, 13)
    keep[:, [7, 10]] = 0
    dropped = generator.compose(codes, keep=keep, fixed_noise=True)
    close_map(dropped.image, expected, "dropped_7_10_image")
    close_map(dropped.coarse, expected, "dropped_7_10_coarse_mask")
    mean = generator.mapping(drawn(2, (64, 512))).mean(dim=0)
    close(mean, expected["mean_w"], rtol=1e-5, atol=2e-5)
    truncated = torch.lerp(mean, generator.mapping(drawn(0, (2, 512))), 0.7)
    close_map(generator.compose(truncated, fixed_noise=True).image, expected, "truncated_image")


@pytest.mark.slow
def test_scores_losses_and_penalties_of_the_real_score(
    discriminator: MaskedDiscriminator,
    made: Composition,
    real: tuple[Tensor, Tensor],
    expected: dict[str, NDArray[Any]],
) -> None:
    image, mask = (part.clone().requires_grad_() for part in real)
    fake = discriminator(made.image, made.mask)
    score = discriminator(image, mask)
    close(fake, expected["score_fake"], **SCORE)
    close(discriminator(made.image, None), expected["score_fake_image_only"], **SCORE)
    close(score, expected["score_real"], **SCORE)
    softplus = torch.nn.functional.softplus
    loss_d = softplus(-score).mean() + softplus(fake).mean()
    assert loss_d.item() == pytest.approx(float(expected["loss_d"]), abs=1e-5)
    assert softplus(-fake).mean().item() == pytest.approx(float(expected["loss_g"]), abs=1e-5)
    r1_image, r1_mask = squared_gradients(score, image, mask)
    assert r1_image.item() == pytest.approx(float(expected["r1_image"]), rel=5e-4)
    assert r1_mask.item() == pytest.approx(float(expected["r1_mask"]), rel=5e-5)


@pytest.mark.slow
def test_path_lengths(generator: SemanticStyleGan, expected: dict[str, NDArray[Any]]) -> None:
    """In float64 from the noise on, as recorded: with float32 codes alone one gradient of 260 is off by 1 in 200."""
    double = copy.deepcopy(generator).double()
    codes = double.mapping(drawn(1, (56, 512)).double()).view(2, 28, 512)
    noise = drawn(5, (2, 3, 256, 256)).double()
    for number in range(2):  # one after the other: in float64 a graph of both takes gigabytes
        expanded = double.book.expand(codes[number : number + 1]).clone().requires_grad_()
        image = double.compose(expanded, fixed_noise=True).image
        (gradient,) = torch.autograd.grad((image * noise[number]).sum() / 256, expanded, retain_graph=True)
        found = gradient.flatten(1, 2).norm(dim=2)[0]
        close(found, expected["path_grad_norm_by_code"][number], rtol=1e-3, atol=1e-4)
        length = path_lengths(image, expanded, noise[number : number + 1])
        close(length, expected["path_lengths"][number : number + 1], rtol=1e-4, atol=1e-6)
