"""SCAM's discriminator, losses and gradients against numbers recorded from the public release.

The gradients pass through many kinks; tolerances are those the fixture's description suggests.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.config import compose
from pipeline.models.discriminator import Discriminator, discriminate, judge
from pipeline.models.interop import load_release
from pipeline.models.scam import ScamGenerator, ScamModulation
from pipeline.schema.discriminator import DiscriminatorConfig
from pipeline.training.losses import discriminator_loss, feature_matching_loss, generator_gan_loss, patch_scores
from pipeline.training.perceptual import VggPerceptualLoss
from tests.pipeline.models.release_fill import Arrays, load_arrays
from tests.pipeline.models.scam_cases import filled, keys_of, main_inputs, released

LABELS = 8
VGG_STARTS = (0, 2, 7, 12, 21)  # where the release's slices begin in torchvision's features
BUFFERS = ("inv_freq", "latents_mask")


class Case(NamedTuple):
    """The main case: networks, the real picture, its mask, and the picture drawn from its own latents without noise."""

    generator: ScamGenerator
    discriminator: Discriminator
    image: Tensor
    mask: Tensor
    fake: Tensor


def released_discriminator() -> Discriminator:
    """The fixture's discriminator on ours, which takes the map before the image and has no bias where a norm undoes it."""
    cfg = DiscriminatorConfig(
        kind="gradient_normalised", scales=2, layers=4, width=8, spectral_norm=False, norm="instance", init_gain=None
    )
    discriminator = Discriminator(cfg, LABELS)
    state = filled("D")
    ours: dict[str, Tensor] = {}
    for scale in range(2):
        theirs = f"discriminators.discriminator_{scale}.model"
        first = state[f"{theirs}.conv_0.0.weight"]
        ours[f"scales.{scale}.convs.0.weight"] = torch.cat([first[:, 3:], first[:, :3]], dim=1)
        ours[f"scales.{scale}.convs.0.bias"] = state[f"{theirs}.conv_0.0.bias"]
        for layer in range(1, 4):
            ours[f"scales.{scale}.convs.{layer}.weight"] = state[f"{theirs}.conv_{layer}.0.weight"]
        for name in ("weight", "bias"):
            ours[f"scales.{scale}.score.{name}"] = state[f"{theirs}.last_conv.0.{name}"]
    discriminator.load_state_dict(ours, strict=True)
    return discriminator


@pytest.fixture(scope="module")
def recorded() -> Arrays:
    return load_arrays("scam", full=False)


@pytest.fixture(scope="module")
def case() -> Case:
    image, mask = main_inputs()
    generator = released()
    for layer in generator.modules():
        if isinstance(layer, ScamModulation) and layer.noise != "off":
            layer.noise_map = torch.zeros_like  # type: ignore[assignment]
    fake = generator.synthesize(mask, generator.encode_style(image, mask)).image
    return Case(generator, released_discriminator(), image, mask, fake)


@pytest.fixture(scope="module")
def perceptual() -> VggPerceptualLoss:
    from torchvision.models import vgg19

    state = {}
    for key, value in filled("VGG").items():
        _, slice_name, place, name = key.split(".")
        state[f"{VGG_STARTS[int(slice_name[-1]) - 1] + int(place)}.{name}"] = value
    with torch.device("meta"):
        features = vgg19(weights=None).features[:30]
    features.load_state_dict(state, strict=True, assign=True)
    recipe = compose(["model=scam", "preset=paper", "data=procfaces"]).loss
    return VggPerceptualLoss(features, recipe.perceptual)


def close(ours: Any, theirs: Any, atol: float) -> None:
    np.testing.assert_allclose(np.asarray(ours), theirs, rtol=0, atol=atol)


@torch.no_grad()
def test_scores_and_features(case: Case, recorded: Arrays) -> None:
    fake_features, real_features = discriminate(case.discriminator.eval(), case.mask, case.fake, case.image)
    for scale in range(2):
        close(real_features[scale][-1], recorded[f"d{scale}_real_raw"], 1e-4)
        close(fake_features[scale][-1], recorded[f"d{scale}_fake_raw"], (2e-4, 1e-4)[scale])
        for layer in range(4):
            both = torch.cat([real_features[scale][layer], fake_features[scale][layer]])
            atol = (2e-4, 5e-4, 5e-4, 5e-4)[layer] if scale == 0 else (1e-4, 2e-4, 2e-4, 2e-4)[layer]
            close(both[..., ::4, ::4], recorded[f"d{scale}_feat{layer}_sub4"], atol)
    close(feature_matching_loss(fake_features, real_features), recorded["loss_fm_unused"][0], 5e-6)
    terms = discriminator_loss(patch_scores(fake_features), patch_scores(real_features), "hinge")
    close([terms.real, terms.fake, terms.real + terms.fake], recorded["loss_D_raw"], 5e-6)
    close(generator_gan_loss(patch_scores(fake_features), "hinge"), recorded["loss_G_raw"][0], 2e-5)


def test_scores_are_normalised_by_their_gradient_in_training_alone(case: Case, recorded: Arrays) -> None:
    for run in (discriminate, judge):  # the discriminator's own update, and the generator's
        fake_features, real_features = run(case.discriminator.train(), case.mask, case.fake, case.image)
        for scale in range(2):
            close(real_features[scale][-1].detach(), recorded[f"d{scale}_real_gn"], 5e-6)
            close(fake_features[scale][-1].detach(), recorded[f"d{scale}_fake_gn"], 1e-5)
    scores = case.discriminator.eval()(case.mask, case.image)[0][-1]
    close(scores.detach(), recorded["d0_real_raw"], 1e-4)


@torch.no_grad()
def test_perceptual_and_pixel_losses(case: Case, perceptual: VggPerceptualLoss, recorded: Arrays) -> None:
    recipe = compose(["model=scam", "preset=paper", "data=procfaces"]).loss
    assert (recipe.gan.weight, recipe.pixel.weight, recipe.perceptual.weight) == (1, 10, 10)
    assert (recipe.pixel.scales, recipe.feature_matching.weight, recipe.perceptual.normalise) == (1, 0, False)
    close((case.fake - case.image).abs().mean(), recorded["loss_l1"][0], 2e-6)
    fake, real, differences = case.fake, case.image, []
    for part in perceptual.slices:
        fake, real = part(fake), part(real)
        differences.append((fake - real).abs().mean())
    close(differences, recorded["loss_perceptual_slices"], 1e-6)
    close(perceptual(case.fake, case.image), recorded["loss_G_raw"][2], 2e-5)
    features = case.discriminator.eval()(case.mask, case.fake)
    terms = [generator_gan_loss(patch_scores(features), "hinge"), (case.fake - case.image).abs().mean()]
    terms.append(perceptual(case.fake, case.image))
    close([*terms, terms[0] + 10 * terms[1] + 10 * terms[2]], recorded["loss_G_raw"], 2e-5)


def test_gradients_of_the_generators_update(case: Case, perceptual: VggPerceptualLoss, recorded: Arrays) -> None:
    """Both networks of the generator, through scores that are differentiated twice."""
    case.generator.zero_grad()
    case.discriminator.train().requires_grad_(False)
    fake = case.generator.synthesize(case.mask, case.generator.encode_style(case.image, case.mask)).image
    fake_features, _ = judge(case.discriminator, case.mask, fake, case.image)
    gan = generator_gan_loss(patch_scores(fake_features), "hinge")
    pixel, deep = (fake - case.image).abs().mean(), perceptual(fake, case.image)
    total = gan + 10 * pixel + 10 * deep
    close([term.detach() for term in (gan, pixel, deep, total)], recorded["loss_G_gn"], 2e-5)
    total.backward()  # type: ignore[no-untyped-call]
    case.discriminator.requires_grad_(True)
    found = {name: parameter.grad for name, parameter in case.generator.named_parameters()}
    for network, atol in (("E", 2e-2), ("G", 5e-2)):
        ours = places()[network]
        norms = []
        for key in [row[0] for row in keys_of(network) if not row[0].endswith(BUFFERS)]:
            gradient = found[ours[key]]
            norms.append(0.0 if gradient is None else gradient.norm().item())
        close(norms, recorded[f"gradnorm_{network}"], atol)
    latents = found["encoder.latents"]
    last = found["blocks.4.to_image.weight"]
    assert latents is not None and last is not None
    close(latents[::3, ::4], recorded["grad_latents_sub"], 5e-4)
    close(last[:, :, 0, 0], recorded["grad_last_rgb"], 1e-2)


def test_gradients_of_the_discriminators_update(case: Case, recorded: Arrays) -> None:
    discriminator = case.discriminator.train()
    discriminator.zero_grad()
    fake_features, real_features = discriminate(discriminator, case.mask, case.fake.detach(), case.image)
    terms = discriminator_loss(patch_scores(fake_features), patch_scores(real_features), "hinge")
    total = terms.real + terms.fake
    close([term.detach() for term in (terms.real, terms.fake, total)], recorded["loss_D_gn"], 5e-6)
    total.backward()  # type: ignore[no-untyped-call]
    norms = []
    for key in [row[0] for row in keys_of("D")]:
        _, scale, _, layer, _, name = key.split(".")
        ours = "score" if layer == "last_conv" else f"convs.{layer[-1]}"
        network = discriminator.scales[int(scale[-1])].get_submodule(ours)
        parameter = getattr(network, name)
        norms.append(0.0 if parameter is None else parameter.grad.norm().item())  # a norm undoes that bias: no gradient
    close(norms, recorded["gradnorm_D"], 2e-6)


def places() -> dict[str, dict[str, str]]:
    """Our parameter for each key of the release, by networks: an import of tensors that hold nothing but their number."""
    states = {network: filled(network, (8, 3, 3)) for network in ("E", "G")}
    numbered = [(network, key) for network, state in states.items() for key in state if not key.endswith(BUFFERS)]
    for number, (network, key) in enumerate(numbered):
        states[network][key] = torch.full_like(states[network][key], number)
    network = load_release("scam", states["G"], encoder=states["E"])
    ours: dict[str, dict[str, str]] = {"E": {}, "G": {}}
    for name, parameter in network.named_parameters():
        part, key = numbered[int(parameter.flatten()[0])]
        ours[part][key] = name
    return ours
