"""OASIS against numbers recorded from the public release: images with one noise an image, with noise varying over space and
without; scores, LabelMix, class weights, every loss, gradient norms. The recorded set is whole: 128x128 pixels, 16 channels.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.models.interop import load_release
from pipeline.models.interop.oasis import import_discriminator
from pipeline.models.kernels import naive_kernels
from pipeline.models.oasis import OasisGenerator
from pipeline.models.segmentation_discriminator import SegmentationDiscriminator
from pipeline.schema.discriminator import DiscriminatorConfig
from pipeline.training.adversary import (
    SegmentationAdversary,
    class_weights,
    fake_cross_entropy,
    label_mix_loss,
    label_mix_mask,
    pixel_cross_entropy,
)
from tests.parity_fill import check_fill, fill_state_dict
from tests.pipeline.models.release_fill import Arrays, load_arrays, load_meta, record_outputs
from tests.pipeline.models.small_models import one_hot

CLASSES, SIDE = 19, 128
GAINS = {
    "G": {r"^conv_img\.weight$": 0.6},
    "G_nonoise": {r"^conv_img\.weight$": 0.8, r"mlp_shared\.0\.weight$": 4.0, r"^fc\.weight$": 3.0},
    "D": {r"^layer_up_last\.weight$": 16.0},
}
SCORES = {"rtol": 0.0, "atol": 2e-4}  # also images, the mixed image and maps of cross-entropy
MIX_WEIGHT = 10.0


@dataclass(frozen=True)
class Case:
    """Inputs of the fixture, and its two generators and discriminator."""

    mask: Tensor
    real: Tensor
    noise: Tensor
    spatial: Tensor
    generator: OasisGenerator
    plain: OasisGenerator
    discriminator: SegmentationDiscriminator


@pytest.fixture(scope="module")
def recorded() -> Arrays:
    return load_arrays("oasis", full=False)


@pytest.fixture(scope="module")
def meta() -> dict[str, Any]:
    return load_meta("oasis")


def drawn(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def filled(meta: dict[str, Any], network: str) -> dict[str, Tensor]:
    sigma: dict[str, float] = {}
    state = fill_state_dict(meta[f"keys_{network}"], GAINS[network], sigma)
    assert check_fill(state, meta[f"keys_{network}"]) == []
    expected = {f"{stem}.weight_orig": value for stem, value in meta[f"sigma_{network}"].items()}
    assert sigma == pytest.approx(expected, rel=1e-6)
    return state


@pytest.fixture(scope="module")
def case(meta: dict[str, Any], recorded: Arrays) -> Case:
    real = drawn(7).uniform(-1, 1, (2, 3, SIDE, SIDE)).astype(np.float32)
    z = drawn(9).standard_normal((2, 64)).astype(np.float32)
    spatial = drawn(10).standard_normal((2, 64, 16, 16)).astype(np.float32)
    cells = recorded["cells"]
    checks = meta["input_checks"]
    for array, name in ((real, "image"), (z, "z"), (spatial, "zcell"), (cells, "cells")):
        assert zlib.crc32(array.tobytes()) == checks[f"{name}_crc32"], name
    np.testing.assert_array_equal(z, recorded["z"])
    labels = torch.from_numpy(cells.astype(np.int64)).repeat_interleave(8, 1).repeat_interleave(8, 2)
    generators = [load_release("oasis", filled(meta, name)) for name in ("G", "G_nonoise")]
    assert all(isinstance(generator, OasisGenerator) for generator in generators)
    made = Case(
        one_hot(labels, CLASSES), torch.from_numpy(real), torch.from_numpy(z), torch.from_numpy(spatial),
        *generators, import_discriminator(filled(meta, "D")),
    )  # type: ignore[arg-type]  # fmt: skip
    for network, name in ((made.generator, "G"), (made.plain, "G_nonoise"), (made.discriminator, "D")):
        assert sum(parameter.numel() for parameter in network.parameters()) == meta["parameters"][name]
    return made


def generator_path(name: str) -> str:
    """Our module behind a recorded one of the release's generator."""
    blocks = ["trunk.head", "trunk.middle_0", *(f"trunk.up.{level}" for level in range(4))]
    if not name.startswith("body."):
        return {"fc": "start", "conv_img": "trunk.to_image"}[name]
    _, number, *rest = name.split(".")
    inner = {"first_norm": "norm", "mlp_gamma": "modulation.gamma", "mlp_beta": "modulation.beta"}
    return ".".join([blocks[int(number)], *(inner.get(part, part) for part in rest)])


@torch.no_grad()
def test_images_and_statistics_of_every_layer(case: Case, meta: dict[str, Any], recorded: Arrays) -> None:
    # The plain form keeps gamma and beta apart, as they were recorded.
    for generator, style, image, network in (
        (case.generator, case.noise, "image_noise", "G"),
        (case.plain, torch.zeros(2, 0), "image_nonoise", "G_nonoise"),
    ):
        names = meta[f"stat_names_{network}"]
        seen = record_outputs(generator, {name: generator_path(name) for name in names})
        with naive_kernels():
            made = generator.synthesize(case.mask, style).image
        np.testing.assert_allclose(made, recorded[image], **SCORES)
        rows = np.stack([seen[name] for name in names])
        np.testing.assert_allclose(rows, recorded[f"stats_{network}"], rtol=1e-3, atol=2e-4)
        torch.testing.assert_close(generator.synthesize(case.mask, style).image, made, rtol=0, atol=1e-5)
    varying = case.generator.synthesize(case.mask, case.spatial).image
    np.testing.assert_allclose(varying, recorded["image_spatial"], **SCORES)


@torch.no_grad()
def test_scores_and_statistics_of_every_block(case: Case, meta: dict[str, Any], recorded: Arrays) -> None:
    for kind, image in (("real", case.real), ("fake", torch.from_numpy(recorded["image_noise"]))):
        names = {
            name: "score" if name == "layer_up_last" else name.replace("body_", "")
            for name in meta[f"stat_names_D_{kind}"]
        }
        seen = record_outputs(case.discriminator, names)
        scores = case.discriminator([], image)[0][-1]
        np.testing.assert_allclose(scores[..., ::4, ::4], recorded[f"D_logits_{kind}_sub4"], **SCORES)
        rows = np.stack([seen[name] for name in names])
        np.testing.assert_allclose(rows, recorded[f"stats_D_{kind}"], rtol=1e-3, atol=5e-5)
        target = case.mask.argmax(1) + 1 if kind == "real" else torch.zeros(2, SIDE, SIDE, dtype=torch.int64)
        entropy = pixel_cross_entropy(scores, target)
        np.testing.assert_allclose(entropy[:, ::4, ::4], recorded[f"ce_{kind}_sub4"], **SCORES)


def draws_of(recorded: Arrays, meta: dict[str, Any], which: str) -> Tensor:
    """The recorded draws of the classes present, at their places among all classes."""
    draws = torch.zeros(CLASSES)
    draws[meta["present_classes"]] = torch.from_numpy(recorded[f"labelmix_draws_{which}"].astype(np.float32))
    return draws


def test_label_mix_maps_of_both_draws(case: Case, meta: dict[str, Any], recorded: Arrays) -> None:
    for which in "AB":
        draws = draws_of(recorded, meta, which)
        found = label_mix_mask(case.mask, draws, as_released=True)[:, 0, ::8, ::8]
        np.testing.assert_array_equal(found, recorded[f"labelmix_mask{which}_cells"])
        fixed = label_mix_mask(case.mask, draws, as_released=False)[:, 0, ::8, ::8]
        cells = torch.from_numpy(recorded["cells"].astype(np.int64))
        np.testing.assert_array_equal(fixed, draws[cells])
        moved = (fixed != found) & (cells == 0)
        assert torch.equal(fixed != found, moved) and bool(moved.any()) == (which == "A"), (
            "class 0 alone, at draws 1, 0"
        )


def test_class_weights(case: Case, meta: dict[str, Any], recorded: Arrays) -> None:
    pixels = case.mask.sum((0, 2, 3)).to(torch.int64)
    np.testing.assert_array_equal(pixels, recorded["class_pixels"])
    for unknown, name in ((None, "plain"), (0, "dontcare")):
        weights = class_weights(case.mask, unknown)
        np.testing.assert_allclose(weights, recorded[f"class_weights_{name}"], rtol=1e-5)
        mean = (weights.double() * pixels).sum().item() / pixels.sum().item()
        assert mean == pytest.approx(meta[f"mean_weight_{name}"], abs=1e-6) == pytest.approx(1, abs=1e-6)


def adversary(unknown: int | None, balance: bool = True) -> SegmentationAdversary:
    cfg = DiscriminatorConfig(
        kind="segmentation", scales=1, layers=6, width=128, spectral_norm=True, norm="none", init_gain=0.02,
        class_balance=balance, label_mix=MIX_WEIGHT, label_mix_draws="as_released",
    )  # fmt: skip
    return SegmentationAdversary(cfg, unknown)


@torch.no_grad()
def test_every_loss(case: Case, meta: dict[str, Any], recorded: Arrays) -> None:
    fake = torch.from_numpy(recorded["image_noise"])
    mixing = label_mix_mask(case.mask, draws_of(recorded, meta, "A"), as_released=True)
    mixed_image = mixing * case.real + (1 - mixing) * fake
    np.testing.assert_allclose(mixed_image[..., ::4, ::4], recorded["labelmix_mixed_sub4"], **SCORES)
    of_real, of_fake, of_mixed = (case.discriminator([], image)[0][-1] for image in (case.real, fake, mixed_image))
    np.testing.assert_allclose(of_mixed[..., ::4, ::4], recorded["D_logits_mixed_sub4"], **SCORES)
    found: dict[str, float] = {}
    mix = MIX_WEIGHT * label_mix_loss(of_mixed, of_real, of_fake, mixing).item()
    for name, rule in (
        ("plain", adversary(None)), ("dontcare", adversary(0)), ("nobalance", adversary(0, balance=False))
    ):  # fmt: skip
        terms = [fake_cross_entropy(of_fake).item(), rule.real_term(of_real, case.mask).item(), mix]
        found |= dict(zip((f"D_{term}_{name}" for term in ("fake", "real", "labelmix")), terms, strict=True))
        found[f"D_total_{name}"] = sum(terms)
        found[f"G_{name}"] = rule.generator_term([[of_fake]], case.mask).item()
    for item in range(2):
        one = slice(item, item + 1)
        found[f"D_real_item{item}"] = adversary(None).real_term(of_real[one], case.mask[one]).item()
        found[f"G_item{item}"] = adversary(None).real_term(of_fake[one], case.mask[one]).item()
    assert sorted(found) == sorted(meta["loss_names"])
    np.testing.assert_allclose([found[name] for name in meta["loss_names"]], recorded["losses"], rtol=1e-4)


def released_name(name: str) -> str:
    """The release's name of one of our parameters, of either network."""
    for ours, theirs in (
        ("parametrizations.weight.original", "weight_orig"), ("trunk.head.", "body.0."), ("trunk.middle_0.", "body.1."),
        ("trunk.to_image.", "conv_img."), ("start.", "fc."), ("modulation.shared.", "mlp_shared.0."),
        ("modulation.gamma.", "mlp_gamma."), ("modulation.beta.", "mlp_beta."), ("score.", "layer_up_last."),
    ):  # fmt: skip
        name = name.replace(ours, theirs)
    head, _, rest = name.partition(".")
    if name.startswith("trunk.up."):
        _, _, level, rest = name.split(".", 3)
        return f"body.{int(level) + 2}.{rest}"
    if head in ("down", "up"):
        first = "0" if name.startswith("down.0.") else {"down": "1", "up": "2"}[head]
        return f"body_{head}.{rest}".replace("conv_0.", f"conv1.{first}.").replace("conv_1.", "conv2.1.")
    return name


def compare_gradients(network: torch.nn.Module, which: str, meta: dict[str, Any], recorded: Arrays) -> None:
    gradients: dict[str, Tensor] = {}
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        gradients[released_name(name)] = parameter.grad.double()
    order = meta[f"grad_param_order_{which}"]
    assert sorted(gradients) == sorted(order)
    norms = [gradients[name].norm().item() for name in order]
    np.testing.assert_allclose(norms, recorded[f"grad_norms_{which}"], rtol=1e-3, atol=1e-9)
    for row, name in enumerate(meta[f"grad5_names_{which}"]):
        gradient, head = gradients[name], recorded[f"grad5_head_{which}"][row]
        assert gradient.norm().item() == pytest.approx(recorded[f"grad5_norm_{which}"][row], rel=1e-3)
        assert gradient.sum().item() == pytest.approx(recorded[f"grad5_sum_{which}"][row], abs=1e-2)
        np.testing.assert_allclose(gradient.flatten()[:8], head, rtol=0, atol=1e-3 * np.abs(head).max())


def test_gradients_of_the_discriminators_loss(
    case: Case, meta: dict[str, Any], recorded: Arrays, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the trainer's own call, with LabelMix's draws replaced by the recorded ones."""
    draws = draws_of(recorded, meta, "A")
    monkeypatch.setattr(torch, "randint", lambda *_args, **_kwargs: draws)
    fake = torch.from_numpy(recorded["image_noise"])
    case.discriminator.zero_grad()
    terms = adversary(None).discriminator_terms(case.discriminator, [], case.mask, fake, case.real)
    expected = dict(zip(meta["loss_names"], recorded["losses"], strict=True))
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(
        {"d_fake": expected["D_fake_plain"], "d_real": expected["D_real_plain"],
         "d_label_mix": expected["D_labelmix_plain"]}, rel=1e-4,
    )  # fmt: skip
    sum(terms.values(), torch.zeros(())).backward()  # type: ignore[no-untyped-call]
    compare_gradients(case.discriminator, "D", meta, recorded)


def test_gradients_of_the_generators_loss(case: Case, meta: dict[str, Any], recorded: Arrays) -> None:
    case.generator.zero_grad()
    fake = case.generator.synthesize(case.mask, case.noise).image
    adversary(None).generator_term(case.discriminator([], fake), case.mask).backward()  # type: ignore[no-untyped-call]
    compare_gradients(case.generator, "G", meta, recorded)
