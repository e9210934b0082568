"""SCAM against numbers recorded from the public release: its attention pieces, small encoders, and the whole chain at 128 px.

Tolerances are those the fixture's description suggests, array by array.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.models.interop.common import Assembly, ReleaseState
from pipeline.models.interop.scam import (
    fill_attention,
    fill_encoder,
    fill_latent_block,
    fill_modulation,
)
from pipeline.models.kernels import naive_kernels
from pipeline.models.latent_encoder import LatentEncoder
from pipeline.models.masked_attention import LabelMasks, LatentBlock, MaskedAttention, positional_code
from pipeline.models.scam import ScamGenerator, ScamModulation
from pipeline.schema.model_scam import LatentEncoderSection
from tests.parity_fill import check_fill
from tests.pipeline.models.release_fill import FULL, Arrays, load_arrays, recorded_image
from tests.pipeline.models.scam_cases import (
    attention_maps,
    cells,
    drawn,
    entropy,
    filled,
    keys_of,
    main_inputs,
    outputs_of,
    piece,
    released,
)
from tests.pipeline.models.small_models import small_config

TOKENS = torch.tensor([0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3])  # label of each latent of part a
PIECES = ("a_attention_heads1", "a_attention_heads2", "a_cross", "a_self", "a_mod_duplex", "a_mod_simplex")


@pytest.fixture(scope="module")
def recorded() -> Arrays:
    return load_arrays("scam", full=(FULL / "scam").is_dir())


@pytest.fixture(scope="module")
def generator() -> ScamGenerator:
    return released()


@pytest.fixture(scope="module")
def inputs() -> tuple[Tensor, Tensor]:
    return main_inputs()


@pytest.fixture(scope="module")
def codes(generator: ScamGenerator, inputs: tuple[Tensor, Tensor]) -> Tensor:
    with torch.no_grad():
        return generator.encode_style(*inputs)


def close(ours: Tensor, theirs: Any, atol: float) -> None:
    np.testing.assert_allclose(ours.detach().numpy(), theirs, rtol=0, atol=atol)


@pytest.mark.parametrize("network", [*PIECES, "b", "b_rev", "b_flat", "E", "G", "D"])
def test_the_weight_rule_gives_the_recorded_weights(network: str) -> None:
    latents = {"E": (8, 3, 3), "b": (5, 2, 1), "b_rev": (5, 2, 1), "b_flat": (5, 2, 1)}.get(network)
    assert check_fill(filled(network, latents), keys_of(network)) == []


# Part a: the pieces alone


@pytest.fixture(scope="module")
def a() -> dict[str, Tensor]:
    mask = cells(27, 4, (2, 4, 6), gone=3, instead=2, repeat=1)
    same = (TOKENS.unsqueeze(0) == TOKENS.unsqueeze(1)).expand(2, -1, -1)
    return {
        "mask": mask,
        "allowed": LabelMasks(mask, TOKENS).at((4, 6)),
        "same": same,
        "latents": drawn(28, 2, 11, 12),
        "pixels": drawn(29, 2, 24, 20),
        "features": drawn(30, 2, 8, 4, 6),
        "noise": drawn(31, 2, 1, 4, 6),
    }


@torch.no_grad()
@pytest.mark.parametrize("heads", [1, 2])
def test_masked_attention(heads: int, a: dict[str, Tensor], recorded: Arrays) -> None:
    np.testing.assert_array_equal(a["mask"].argmax(1), recorded["a_labels"])
    name = f"a_attention_heads{heads}"
    attention = piece(name, lambda: MaskedAttention(12, 20, 16, heads, "as_released"), fill_attention)
    assert isinstance(attention, MaskedAttention)
    call = (a["latents"], a["pixels"], a["allowed"])
    close(attention(*call), recorded[f"{name}_out"], 1e-5)
    close(attention.weights(*call), recorded[f"{name}_map"], 5e-6)
    with naive_kernels():
        close(attention(*call), recorded[f"{name}_out"], 1e-5)
        if heads == 2:
            close(attention(a["latents"], a["pixels"], None), recorded[f"{name}_nomask_out"], 1e-5)
    if heads == 2:
        close(attention(a["latents"], a["pixels"], None), recorded[f"{name}_nomask_out"], 1e-5)


@torch.no_grad()
@pytest.mark.parametrize("naive", [False, True])
def test_attention_blocks(naive: bool, a: dict[str, Tensor], recorded: Arrays) -> None:
    for name, width, heads, source, allowed in (
        ("a_cross", 20, 1, "pixels", "allowed"),
        ("a_self", 12, 2, "latents", "same"),
    ):

        def make(width: int = width, heads: int = heads) -> LatentBlock:
            return LatentBlock(11, 12, width, 16, heads, "as_released")

        block = piece(name, make, fill_latent_block)
        call = (a["latents"], a[source], a[allowed])
        if naive:
            with naive_kernels():
                close(block(*call), recorded[f"{name}_out"], 1e-5)
            continue
        close(block(*call), recorded[f"{name}_out"], 1e-5)
        maps = attention_maps(block, lambda: block(*call))  # noqa: B023 (called at once)
        close(maps["attention"], recorded[f"{name}_map"], 5e-6)


@torch.no_grad()
def test_positional_code(a: dict[str, Tensor], recorded: Arrays) -> None:
    close(positional_code(8, (4, 6), a["features"]), recorded["a_pos_add8"], 2e-6)
    beside = torch.cat([a["features"][:1, :3], positional_code(40, (4, 6), a["features"])], 1)
    close(beside, recorded["a_pos_concat40"], 1e-5)


@torch.no_grad()
@pytest.mark.parametrize("naive", [False, True])
@pytest.mark.parametrize("kind", ["duplex", "simplex"])
def test_modulation(kind: str, naive: bool, a: dict[str, Tensor], recorded: Arrays) -> None:
    cfg = small_config("scam", style_dim=12, attention_width=16, heads=2, noise="always")
    duplex = kind == "duplex"
    layer = piece(
        f"a_mod_{kind}",
        lambda: ScamModulation(cfg, 11, 8, duplex=duplex, noise=duplex),  # type: ignore[arg-type]
        fill_modulation,
    )
    layer.noise_map = lambda _x: a["noise"]  # type: ignore[assignment]
    masks = LabelMasks(a["mask"], TOKENS)
    seen: dict[str, Any] = {}

    def run() -> None:
        seen["out"], seen["codes"] = layer(a["features"], a["latents"], masks)

    if naive:
        with naive_kernels():
            run()
    else:
        seen |= outputs_of(layer, {"gamma": "gamma", "beta": "beta"}, run)
        maps = attention_maps(layer, run)
        close(maps["to_pixels"], recorded[f"a_mod_{kind}_map_lti"], 1e-5)
        if duplex:
            close(maps["to_latents.attention"], recorded["a_mod_duplex_map_itl"], 5e-6)
        close(seen["gamma"], recorded[f"a_mod_{kind}_gamma"], 2e-5 if duplex else 1e-5)
        close(seen["beta"], recorded[f"a_mod_{kind}_beta"], 2e-5 if duplex else 1e-5)
    close(seen["out"], recorded[f"a_mod_{kind}_out"], 5e-5)
    close(seen["codes"], recorded[f"a_mod_{kind}_codes"], 2e-5 if duplex else 1e-5)


# Part b: three small encoders


@torch.no_grad()
@pytest.mark.parametrize(("case", "atol"), [("b", 5e-5), ("b_rev", 1e-4), ("b_flat", 2e-5)])
def test_small_encoders(case: str, atol: float, recorded: Arrays) -> None:
    flat = case == "b_flat"
    cfg = LatentEncoderSection(
        width=4,
        blocks=2 if flat else 3,
        pyramid=not flat,
        coarse_to_fine=case == "b_rev",
        positional_width=8,
        self_attention=not flat,
        attention_width=16,
        heads=2,
        self_heads=1,
    )
    label_of = torch.tensor([0, 1, 1, 2, 2, 3, 3, 4, 4])
    state = ReleaseState(filled(case, (5, 2, 1)), case)
    assembly = Assembly(lambda: torch.nn.ModuleDict({"part": LatentEncoder(cfg, torch.empty(9), 16, "as_released")}))
    fill_encoder(assembly, "part", state, cfg)
    state.finish()
    encoder = assembly.finish().get_submodule("part")
    encoder.label_of = label_of
    mask = cells(37, 5, (2, 8, 8), gone=2, instead=1, repeat=4)
    np.testing.assert_array_equal(mask[..., ::4, ::4].argmax(1), recorded["b_labels"])
    image = np.random.Generator(np.random.PCG64(38)).uniform(-1, 1, (2, 3, 32, 32)).astype(np.float32)
    latents = encoder(torch.from_numpy(image), mask)
    close(latents, recorded[f"{case}_latents"], atol)
    with naive_kernels():
        close(encoder(torch.from_numpy(image), mask), recorded[f"{case}_latents"], atol)


# Part c: image and mask to latents to image


def test_inputs_are_the_recorded_ones(inputs: tuple[Tensor, Tensor], recorded: Arrays) -> None:
    image, mask = inputs
    assert zlib.crc32(image.numpy().tobytes()) == 1108590296
    np.testing.assert_array_equal(mask[..., ::8, ::8].argmax(1), recorded["labels"])
    close(image[..., ::4, ::4], recorded["image_in_sub4"], 2e-6)


@torch.no_grad()
def test_encoder(generator: ScamGenerator, inputs: tuple[Tensor, Tensor], codes: Tensor, recorded: Arrays) -> None:
    encoder = generator.encoder
    close(generator.latent_rows(codes), recorded["codes"], 1e-4)
    names = {f"{kind}{block}": f"{kind}.{block}" for kind in ("cross", "within") for block in range(5)}
    seen = outputs_of(encoder, names, lambda: encoder(*inputs))
    close(torch.stack([seen[f"cross{n}"] for n in range(5)]), recorded["enc_latents_cross"], 1e-4)
    close(torch.stack([seen[f"within{n}"] for n in range(5)]), recorded["enc_latents_self"], 1e-4)
    maps = attention_maps(encoder, lambda: encoder(*inputs))
    cross = [maps[f"cross.{n}.attention"][:, 0] for n in range(5)]  # (N,T,P)
    close(torch.stack([entropy(weights) for weights in cross]), recorded["enc_entropy_cross"], 1e-4)
    close(torch.stack([maps[f"within.{n}.attention"][:, 0] for n in range(5)]), recorded["enc_map_self"], 2e-5)
    close(cross[3], recorded["enc_map_cross_16px"], 5e-5)
    close(cross[4], recorded["enc_map_cross_8px"], 1e-4)
    assert torch.equal(cross[4][1, 15:18], torch.full((3, 64), 1 / 64)), "an absent label attends everywhere"
    levels = encoder.pyramid(inputs[0])
    close(levels[1][..., ::4, ::4], recorded["enc_feat_64px_sub4"], 1e-5)
    close(levels[3][..., ::4, ::4], recorded["enc_feat_16px_sub4"], 5e-5)
    close(levels[4], recorded["enc_feat_8px"], 1e-4)


@torch.no_grad()
def test_generator_block_by_block(
    generator: ScamGenerator, inputs: tuple[Tensor, Tensor], codes: Tensor, recorded: Arrays
) -> None:
    silence(generator)
    mask = inputs[1]
    names = {"first": "start"} | {f"block{n}": f"blocks.{n}" for n in range(5)}
    names |= {f"mod{2 * n + half}": f"blocks.{n}.mod_{half}" for n in range(5) for half in range(2)}
    seen = outputs_of(generator, names, lambda: generator.synthesize(mask, codes))
    close(seen["first"], recorded["gen_first"], 1e-5)
    steps = ((1, 1), (1, 1), (2, 1), (4, 2), (8, 4))  # every n-th pixel is recorded, of features and of the image
    for block, (step, image_step) in enumerate(steps):
        x, _, image = seen[f"block{block}"]
        px = 8 * 2**block
        suffix, image_suffix = (f"_sub{n}" if n > 1 else "" for n in (step, image_step))
        close(x[..., ::step, ::step], recorded[f"gen_x{block}_{px}px{suffix}"], 2e-4 if block < 2 else 5e-4)
        atol = (5e-5, 1e-4, 2e-4, 5e-4, 5e-4)[block]
        close(image[..., ::image_step, ::image_step], recorded[f"gen_rgb{block}_{px}px{image_suffix}"], atol)
    close(torch.stack([seen[f"mod{k}"][1] for k in range(10)]), recorded["gen_codes"], 5e-4)


@torch.no_grad()
def test_generator_attention(
    generator: ScamGenerator, inputs: tuple[Tensor, Tensor], codes: Tensor, recorded: Arrays
) -> None:
    silence(generator)
    maps = attention_maps(generator, lambda: generator.synthesize(inputs[1], codes))
    modulations = [f"blocks.{n}.mod_{half}" for n in range(5) for half in range(2)]
    latents = [maps[f"{name}.to_latents.attention"][:, 0] for name in modulations]  # (N,T,P)
    pixels = [maps[f"{name}.to_pixels"][:, 0] for name in modulations]  # (N,P,T)
    close(torch.stack([entropy(weights) for weights in latents]), recorded["gen_entropy_itl"], 5e-4)
    close(torch.stack([entropy(weights).mean(1) for weights in pixels]), recorded["gen_entropy_lti_mean"], 1e-5)
    images = [maps[f"blocks.{n}.mod_image.to_pixels"][:, 0] for n in range(4)]
    close(torch.stack([entropy(weights).mean(1) for weights in images]), recorded["gen_entropy_rgb_mean"], 5e-6)
    close(latents[0], recorded["gen_map_itl0_4px"], 2e-5)
    close(pixels[0], recorded["gen_map_lti0_4px"], 5e-5)
    close(latents[3], recorded["gen_map_itl3_16px"], 5e-5)
    close(pixels[3], recorded["gen_map_lti3_16px"], 5e-5)
    close(images[1], recorded["gen_map_rgb1_16px"], 5e-5)


@torch.no_grad()
def test_images_and_exchanges(
    generator: ScamGenerator, inputs: tuple[Tensor, Tensor], codes: Tensor, recorded: Arrays
) -> None:
    silence(generator)
    mask = inputs[1]
    own = generator.synthesize(mask, codes).image
    theirs, step = recorded_image(recorded, "image")
    close(own[..., ::step, ::step], theirs, 5e-4)
    one = codes.clone()
    one[:, 3] = codes.flip(0)[:, 3]
    swapped = generator.synthesize(mask, one).image
    close(swapped[..., ::2, ::2], recorded["image_swap_sub2"], 5e-4)
    change = (swapped - own)[..., ::2, ::2].numpy() - (
        recorded["image_swap_sub2"] - theirs[..., :: 2 // step, :: 2 // step]
    )
    assert np.abs(change).max() < 1e-4, "the change by the exchange (RMS 0.090) agrees, not only the pictures"
    close(generator.synthesize(mask, codes.flip(0)).image[..., ::4, ::4], recorded["image_swapall_sub4"], 5e-4)
    absent = codes.clone()
    absent[1, 5] = codes[0, 5]
    borrowed = generator.synthesize(mask, absent).image
    close(borrowed[1:, :, ::4, ::4], recorded["image_absent_sub4"], 2e-4)
    inside = mask[:, 3:4].expand(-1, 3, -1, -1) > 0
    square = (swapped - own).square()
    rms = [[square[n][part[n]].mean().sqrt() for part in (inside, ~inside)] for n in range(2)]
    close(torch.tensor(rms), recorded["swap_rms_in_out"], 1e-5)
    rms = [(borrowed - own)[n].square().mean().sqrt() for n in range(2)]
    close(torch.stack(rms), recorded["absent_rms"], 1e-6)  # type: ignore[arg-type]
    with naive_kernels():
        close(generator.synthesize(mask, codes).image, own.numpy(), 5e-4)


@torch.no_grad()
def test_noise(generator: ScamGenerator, inputs: tuple[Tensor, Tensor], codes: Tensor, recorded: Arrays) -> None:
    for number, layer in enumerate(noisy(generator)):
        side = 4 * 2 ** (number // 2 + number % 2)
        noise = drawn(107 + number, 2, 1, side, side)
        layer.noise_map = lambda _x, noise=noise: noise  # type: ignore[assignment, misc]
    made = generator.synthesize(inputs[1], codes).image
    close(made[..., ::2, ::2], recorded["image_noise_sub2"], 5e-4)
    theirs, step = recorded_image(recorded, "image")
    rms = np.sqrt(np.mean((recorded["image_noise_sub2"] - theirs[..., :: 2 // step, :: 2 // step]) ** 2))
    assert rms == pytest.approx(0.113, abs=5e-4), "noise shows"


def noisy(generator: ScamGenerator) -> list[ScamModulation]:
    """The modulations that draw noise, in the order they run."""
    return [layer for layer in generator.modules() if isinstance(layer, ScamModulation) and layer.noise != "off"]


def silence(generator: ScamGenerator) -> None:
    for layer in noisy(generator):
        layer.noise_map = torch.zeros_like  # type: ignore[assignment]
