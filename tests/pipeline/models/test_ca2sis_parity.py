"""(CA)²-SIS against numbers recorded from the public release, with weights set by a formula (`tests/parity_fill.py`).

The compact set `tests/fixtures/parity/ca2sis.npz` is a subsample of the full one and is always there: every fourth or
eighth pixel, the codes of classes 0, 5 and 13, every third mask embedding, all losses, gradient norms and layer
statistics. The full set is used where `shared/parity/ca2sis` lies beside the checkout. Tolerances are those the
fixture's description suggests.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pipeline.models.ca2sis import Ca2sisGenerator
from pipeline.models.interop.ca2sis import import_state, release_keys
from tests.parity_fill import case_inputs, check_fill, fill_state_dict
from tests.pipeline.models.release_fill import hold_to_float64

ROOT = Path(__file__).parents[3]
COMPACT = ROOT / "tests" / "fixtures" / "parity" / "ca2sis.npz"
FULL = ROOT.parent / "shared" / "parity" / "ca2sis"
CLASSES = [0, 5, 13]  # whose codes the compact set holds
IMAGE_MAX, IMAGE_RMS, CODE_MAX, LOSS_MAX = 2e-4, 2e-5, 2e-5, 5e-6

Arrays = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def compact() -> Arrays:
    with np.load(COMPACT) as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def meta(compact: Arrays) -> dict[str, Any]:
    return dict(json.loads(compact["meta_json"].tobytes()))


@pytest.fixture(scope="module")
def generator(meta: dict[str, Any]) -> Iterator[Ca2sisGenerator]:
    state = fill_state_dict(meta["keys"], meta["gains"])
    assert check_fill(state, meta["keys"]) == []
    yield import_state(state)


@pytest.fixture(scope="module")
def inputs() -> tuple[Tensor, Tensor]:
    return case_inputs(7, (256, 256), 19, (16, 16))


@pytest.fixture(scope="module")
def styles(generator: Ca2sisGenerator, inputs: tuple[Tensor, Tensor]) -> Tensor:
    with torch.no_grad():
        return generator.encode_style(*inputs)


def noise() -> Tensor:
    return torch.from_numpy(np.random.Generator(np.random.PCG64(9)).standard_normal((2, 16)).astype(np.float32))


def attention_losses(logits: list[Tensor], mask: Tensor) -> Tensor:
    """The release's loss of every stage, in its own terms: per class over batch and pixels, then over classes."""
    losses = []
    for scores in logits:
        target = F.interpolate(mask, size=scores.shape[-2:], mode="nearest")
        classes = [F.binary_cross_entropy_with_logits(scores[:, k], target[:, k]) for k in range(mask.shape[1])]
        losses.append(torch.stack(classes).mean())
    return torch.stack(losses)


def assert_image(actual: Tensor, expected: NDArray[Any], step: int) -> None:
    difference = actual[..., ::step, ::step].detach().numpy() - expected
    assert np.abs(difference).max() < IMAGE_MAX
    assert np.sqrt(np.mean(difference**2)) < IMAGE_RMS


def assert_close(actual: Tensor, expected: NDArray[Any], atol: float) -> None:
    np.testing.assert_allclose(actual.detach().numpy(), expected, rtol=0, atol=atol)


def test_parameter_count_is_the_releases(generator: Ca2sisGenerator) -> None:
    assert sum(parameter.numel() for parameter in generator.parameters()) == 77_229_243


def test_codes_and_embeddings(
    generator: Ca2sisGenerator, inputs: tuple[Tensor, Tensor], styles: Tensor, compact: Arrays
) -> None:
    _, mask = inputs
    assert_close(styles[:, CLASSES], compact["style_codes_c0_5_13"], CODE_MAX)
    with torch.no_grad():
        assert_close(generator.embed_shape(mask)[:, ::3], compact["mask_embedding"], CODE_MAX)
        drawn = generator.sample_style(mask, noise())
    assert_close(drawn[:, CLASSES], compact["noise_style_codes_c0_5_13"], CODE_MAX)


def test_first_stages(
    generator: Ca2sisGenerator, inputs: tuple[Tensor, Tensor], styles: Tensor, compact: Arrays, meta: dict[str, Any]
) -> None:
    """The decoder up to 32 pixels, by the recorded statistics of its layers (quick: no full-size pass)."""
    _, mask = inputs
    with torch.no_grad():
        x = generator.mix(generator.embed_shape(mask).unflatten(2, (16, 16)))
        assert_statistics("reshape_conv", x, compact, meta)
        for index in range(2):
            stage = generator.stages[index]
            x = stage.residual(x)
            assert_statistics(f"res{index + 2}", x, compact, meta)
            x, _ = stage.transformer(x, styles, mask, attention=False)
            assert_statistics(f"cross{index + 2}", x, compact, meta)


def assert_statistics(name: str, value: Tensor, arrays: Arrays, meta: dict[str, Any]) -> None:
    expected = arrays["stats"][meta["stat_names"].index(name)]
    value = value.detach()
    summary = [value.mean().item(), value.std(correction=0).item()]
    np.testing.assert_allclose(summary, expected[:2], rtol=0, atol=1e-4, err_msg=name)
    np.testing.assert_allclose(value.flatten()[:8].numpy(), expected[2:], rtol=0, atol=1e-3, err_msg=name)


@pytest.fixture(scope="module")
def arrays(compact: Arrays) -> tuple[Arrays, bool]:
    """The full set and True, or the compact one and False."""
    if not FULL.is_dir():
        return compact, False
    with np.load(FULL / "fixture.npz") as archive:
        return dict(archive), True


@pytest.mark.slow
def test_swaps_and_noise(
    generator: Ca2sisGenerator, inputs: tuple[Tensor, Tensor], styles: Tensor, arrays: tuple[Arrays, bool]
) -> None:
    _, mask = inputs
    expected, full = arrays
    other = styles.flip(0)
    one_class = styles.clone()
    one_class[:, 13] = other[:, 13]
    with torch.no_grad():
        if full:
            assert_close(styles, expected["style_codes"], CODE_MAX)
            assert_close(generator.embed_shape(mask), expected["mask_embedding"], CODE_MAX)
        swapped = generator.synthesize(mask, other)
        assert_image(
            swapped.image, *((expected["image_style_swap"], 1) if full else (expected["image_style_swap_sub4"], 4))
        )
        assert_close(attention_losses(swapped.attention, mask), expected["att_losses_style_swap"], LOSS_MAX)
        drawn = generator.sample_style(mask, noise())
        if full:
            assert_close(drawn, expected["noise_style_codes"], CODE_MAX)
        sub, step = ("sub4", 4) if full else ("sub8", 8)
        for name, losses, shape_mask, style in (
            ("style_swap_class13", "style_swap_class13", mask, one_class),
            ("shape_swap", "shape_swap", mask.flip(0), styles),
            ("noise", "noise", mask, drawn),
        ):
            result = generator.synthesize_embedded(mask, generator.embed_shape(shape_mask), style)
            assert_image(result.image, expected[f"image_{name}_{sub}"], step)
            assert_close(attention_losses(result.attention, mask), expected[f"att_losses_{losses}"], LOSS_MAX)


_STAT_MODULES = {"reshape_conv": "mix", "out_conv": "to_rgb", "style_encoder.Encoder.first_layer": "encoder.first"}


def our_module(name: str) -> str:
    """Our module behind a recorded layer of the release."""
    if name in _STAT_MODULES:
        return _STAT_MODULES[name]
    head, _, index = name.rpartition("_")
    if head == "style_encoder.Encoder.enc_layer":
        return f"encoder.down.{index}"
    if head == "style_encoder.Decoder.dec_layer":
        return f"encoder.up.{index}"
    kind, stage = name[:-1], int(name[-1]) - 2
    return f"stages.{stage}.{'residual' if kind == 'res' else 'transformer'}"


@pytest.mark.slow
def test_reconstruction_and_gradients(
    generator: Ca2sisGenerator, inputs: tuple[Tensor, Tensor], arrays: tuple[Arrays, bool], meta: dict[str, Any]
) -> None:
    expected, full = arrays
    image, mask = inputs
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            outputs[name] = (output[0] if isinstance(output, tuple) else output).detach().clone()

        return hook

    handles = [
        generator.get_submodule(our_module(name)).register_forward_hook(keep(name)) for name in meta["stat_names"]
    ]
    try:
        done = generator(image, mask, attention=True)
    finally:
        for handle in handles:
            handle.remove()
    losses = attention_losses(done.synthesis.attention, mask)
    loss = done.synthesis.image.mean() + losses.mean()
    assert_image(done.synthesis.image, *((expected["image"], 1) if full else (expected["image_sub4"], 4)))
    assert_close(losses, expected["att_losses"], LOSS_MAX)
    assert_close(losses.mean().reshape(1), expected["att_loss_mean"], LOSS_MAX)
    assert_close(loss.reshape(1), expected["loss"], LOSS_MAX)
    for name, value in outputs.items():
        assert_statistics(name, value, expected, meta)
    outputs.clear()

    loss.backward()
    ours = {keys[0]: name for name, keys in release_keys(generator).items()}
    for index, key in enumerate(meta["grad_names"]):
        gradient = generator.get_parameter(ours[key]).grad
        assert gradient is not None, key
        norm = expected["grad_norms"][index]
        np.testing.assert_allclose(gradient.double().norm().item(), norm, rtol=5e-4, err_msg=key)
        np.testing.assert_allclose(
            gradient.flatten()[:8].numpy(), expected["grad_first8"][index], rtol=0, atol=5e-4 * norm, err_msg=key
        )
    assert all(parameter.grad is None for parameter in generator.mapping.parameters())  # not part of this pass
    generator.zero_grad(set_to_none=True)


def test_codes_of_a_bright_image_are_the_naive_forms_in_float64(generator: Ca2sisGenerator) -> None:
    hold_to_float64(
        generator, lambda network, image, mask: [network.encode_style(image, mask), network.embed_shape(mask)]
    )


@pytest.mark.slow
def test_a_bright_image_is_the_naive_forms_in_float64(generator: Ca2sisGenerator) -> None:
    def draw(network: Ca2sisGenerator, image: Tensor, mask: Tensor) -> list[Tensor]:
        made = network.synthesize(mask, network.encode_style(image, mask))
        return [made.image, *made.attention]

    hold_to_float64(generator, draw)
