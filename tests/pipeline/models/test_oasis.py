"""OASIS's generator and U-Net: noise as a style, every switch, any size and class count, import of released keys."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.errors import UserError
from pipeline.models.build import build_discriminator
from pipeline.models.discriminator import discriminate, judge, views_of
from pipeline.models.interop import load_release
from pipeline.models.interop.common import unknown_last
from pipeline.models.interop.oasis import import_discriminator
from pipeline.models.kernels import naive_kernels
from pipeline.models.oasis import OasisGenerator
from pipeline.models.segmentation_discriminator import SegmentationDiscriminator
from pipeline.schema.discriminator import DiscriminatorConfig
from tests.pipeline.models.release_fill import fill_with_sigma, load_meta
from tests.pipeline.models.small_models import DISCRIMINATOR, one_hot, random_inputs, small_config, small_generator


def unet(**changes: Any) -> DiscriminatorConfig:
    return DiscriminatorConfig.model_validate({**DISCRIMINATOR.model_dump(), "kind": "segmentation", **changes})


def test_noise_is_spread_over_the_picture_and_drawn_where_no_style_gives_it() -> None:
    generator = small_generator("oasis").eval()
    image, mask = random_inputs()
    assert generator.capabilities.style == "none" and generator.capabilities.sampling
    noise = torch.randn(2, 3)
    made = generator.synthesize(mask, generator.sample_style(mask, noise)).image
    assert torch.equal(made, generator.synthesize(mask, noise[:, :, None, None].expand(-1, -1, 8, 8)).image)
    empty = generator.encode_style(image, mask)
    torch.manual_seed(4)
    drawn = generator.synthesize(mask, empty).image
    torch.manual_seed(4)
    assert torch.equal(drawn, generator.synthesize(mask, torch.randn(2, 3)).image), "as released: in every call"
    still = small_generator("oasis", noise="train")
    assert not torch.equal(still.synthesize(mask, empty).image, still.synthesize(mask, empty).image)
    still.eval()
    assert torch.equal(still.synthesize(mask, empty).image, still.synthesize(mask, torch.zeros(2, 3)).image)


def test_noise_that_varies_over_the_picture_stays_where_it_is() -> None:
    generator = small_generator("oasis", size=(32, 32), norm="instance").eval()
    _, mask = random_inputs(size=(32, 32))
    noise = torch.zeros(2, 3, 32, 32)
    changed = noise.clone()
    changed[:, :, :, 24:] = 3
    moved = (generator.synthesize(mask, changed).image - generator.synthesize(mask, noise).image).abs().mean((0, 1, 2))
    assert moved[26:].mean() > 1.5 * moved[:8].mean() > 0


def test_spade_takes_the_same_noise() -> None:
    plain, noisy = small_generator("spade"), small_generator("spade", noise_channels=3)
    _, mask = random_inputs()
    assert noisy.capabilities.noise_width == 3 and not plain.capabilities.sampling
    one, other = (noisy.eval().synthesize(mask, torch.full((2, 3), value)).image for value in (0.0, 1.0))
    assert (one - other).abs().max() > 1e-3
    with pytest.raises(ValidationError, match="3D noise needs style none"):
        small_config("spade_vae", noise_channels=3)


@pytest.mark.parametrize(
    ("key", "value"),
    [("base_width", 8), ("up_blocks", 1), ("modulation_width", 4), ("norm", "instance"), ("spectral_norm", False),
     ("noise_channels", 0), ("noise_channels", 5), ("init_gain", 0.5)],
)  # fmt: skip
def test_every_switch_changes_the_computation(key: str, value: Any) -> None:
    images = []
    for changes in ({}, {key: value}):
        generator = small_generator("oasis", size=(32, 32), **changes)
        torch.manual_seed(2)
        image, mask = random_inputs(size=(32, 32))
        images.append(generator(image, mask, attention=False).synthesis.image)
    assert (images[0] - images[1]).abs().max() > 1e-4


@given(
    num_classes=st.sampled_from([2, 19, 200]),
    height=st.sampled_from([16, 24]),
    width=st.sampled_from([16, 40]),
    layers=st.integers(2, 6),
    only_background=st.booleans(),
)
@settings(max_examples=10)
def test_any_size_classes_and_depth(
    num_classes: int, height: int, width: int, layers: int, only_background: bool
) -> None:
    """Also depths beyond what the size can be halved."""
    generator = small_generator("oasis", num_classes, (height, width))
    discriminator = build_discriminator(unet(layers=layers, width=4), num_classes)
    image, mask = random_inputs(num_classes, (height, width))
    if only_background:
        mask = one_hot(torch.zeros(2, height, width, dtype=torch.int64), num_classes)
    made = generator(image, mask, attention=False).synthesis.image
    (features,) = discriminator(mask, made)
    assert features[-1].shape == (2, num_classes + 1, height, width) and len(features) == 2 * layers + 1
    features[-1].square().mean().backward()
    gradients = [parameter.grad for network in (generator, discriminator) for parameter in network.parameters()]
    assert all(gradient is not None and bool(torch.isfinite(gradient).all()) for gradient in gradients)
    assert all(parameter.grad.abs().sum() > 0 for parameter in discriminator.parameters() if parameter.grad is not None)


@pytest.mark.parametrize(("key", "value"), [("layers", 2), ("width", 4), ("spectral_norm", False), ("init_gain", 0.5)])
def test_every_switch_of_the_unet_changes_the_computation(key: str, value: Any) -> None:
    image, mask = random_inputs(size=(32, 32))
    scores = []
    for cfg in (unet(), unet(**{key: value})):
        torch.manual_seed(0)
        scores.append(build_discriminator(cfg, 5)(mask, image)[0][-1])
    assert (scores[0] - scores[1]).abs().max() > 1e-4


def test_the_unet_sees_the_image_alone_and_judges_each_image_by_itself() -> None:
    discriminator = build_discriminator(unet(), 5).train()
    discriminator.requires_grad_(False)
    real, mask = random_inputs(size=(32, 32))
    fake = real.roll(3, 3).requires_grad_(True)
    views = views_of(discriminator, mask)
    assert views == []
    state = {name: value.clone() for name, value in discriminator.state_dict().items()}
    scores = []
    for function, form in ((discriminate, views), (discriminate, mask), (judge, views)):
        discriminator.load_state_dict(state)
        features = function(discriminator, form, fake, real)
        scores.append(torch.stack([half[0][-1] for half in features]))
    torch.testing.assert_close(scores[0], scores[1], rtol=0, atol=0)
    torch.testing.assert_close(scores[0], scores[2], rtol=1e-4, atol=1e-5)
    discriminator.load_state_dict(state)
    only_fake, nothing = judge(discriminator, views, fake, real, real_too=False)
    assert nothing == []
    torch.testing.assert_close(only_fake[0][-1], scores[0][0], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_loops_and_bf16_give_nearly_the_same_image_and_scores() -> None:
    generator, discriminator = small_generator("oasis").eval(), build_discriminator(unet(), 5).eval()
    image, mask = random_inputs()
    style = torch.randn(2, 3)
    exact, scores = generator.synthesize(mask, style).image, discriminator([], image)[0][-1]
    with naive_kernels():
        torch.testing.assert_close(generator.synthesize(mask, style).image, exact, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough, rough_scores = generator.synthesize(mask, style).image, discriminator([], image)[0][-1]
    assert (exact - rough.float()).abs().max() < 0.08
    assert (scores - rough_scores.float()).abs().max() < 0.05 * scores.abs().max()


def test_released_keys_are_all_used_and_named() -> None:
    meta = load_meta("oasis")
    state = fill_with_sigma(meta["keys_G"], {}, meta["sigma_G"])
    unet_state = fill_with_sigma(meta["keys_D"], {}, meta["sigma_D"])
    generator, discriminator = load_release("oasis", state), import_discriminator(unet_state)
    assert isinstance(generator, OasisGenerator) and isinstance(discriminator, SegmentationDiscriminator)
    cfg = generator.config
    assert (cfg.base_width, cfg.up_blocks, cfg.modulation_width, cfg.noise_channels) == (16, 4, 128, 64)
    assert generator.num_classes == discriminator.num_classes == 19
    for network, released in ((generator, state), (discriminator, unet_state)):
        total = sum(value.double().sum().item() for value in released.values())
        assert sum(value.double().sum().item() for value in network.state_dict().values()) == pytest.approx(total)
    for key in ("fc.bias", "body.3.norm_s.mlp_gamma.weight", "body.0.conv_1.weight_v"):
        with pytest.raises(UserError, match=f"key {key} is missing"):
            load_release("oasis", {name: value for name, value in state.items() if name != key})
    with pytest.raises(UserError, match=r"extra key body\.6\.x"):
        load_release("oasis", {**state, "body.6.x": torch.zeros(1)})
    with pytest.raises(UserError, match=r"key body_up\.2\.conv_s\.bias is missing"):
        import_discriminator({name: value for name, value in unet_state.items() if name != "body_up.2.conv_s.bias"})
    with pytest.raises(UserError, match="missing|no key tells"):
        load_release("oasis", unet_state)


def test_the_unlabelled_class_of_the_release_moves_from_first_to_last() -> None:
    meta = load_meta("oasis")
    wide = [
        [key, [64 + 151 if size == 83 else size for size in shape], dtype] for key, shape, dtype, *_ in meta["keys_G"]
    ]
    state = fill_with_sigma(wide, {}, meta["sigma_G"])
    generator = load_release("oasis", state)
    assert generator.num_classes == 151
    released = state["body.5.norm_1.mlp_shared.0.weight"]
    ours = generator.get_parameter("trunk.up.3.norm_1.modulation.shared.weight")
    assert torch.equal(ours[:, :64], released[:, :64])
    assert torch.equal(ours[:, 64:], released[:, 64:][:, unknown_last(151)])
