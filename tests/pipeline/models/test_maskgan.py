"""MaskGAN: adaptive norm and feature transform against their definitions; style from another mask, sizes, import, errors."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.config import compose
from pipeline.editing.tasks import refusal
from pipeline.errors import UserError
from pipeline.models.interop import load_release
from pipeline.models.maskgan import FeatureTransform, MaskganGenerator, adaptive_norm
from pipeline.schema.model_maskgan import MaskganModel
from tests.pipeline.models.release_fill import fill_with_sigma, load_meta
from tests.pipeline.models.small_models import parameters_without_gradient, random_inputs, small_generator


def small(num_classes: int = 5, size: tuple[int, int] = (16, 16), **changes: Any) -> MaskganGenerator:
    generator = small_generator("maskgan", num_classes, size, **changes)
    assert isinstance(generator, MaskganGenerator)
    return generator


def test_contract() -> None:
    generator = small().eval()
    image, mask = random_inputs()
    style = generator.encode_style(image, mask)
    assert tuple(style.shape) == (2, 2 * 2 * 2 * 16) and generator.capabilities.style == "global"
    assert torch.equal(style, generator.encode_style(image, mask)), "encoding is deterministic"
    made = generator.synthesize(mask, style)
    assert made.image.shape == (2, 3, 16, 16) and made.image.abs().max() <= 1 and made.attention == []
    assert refusal("global_style_transfer", generator.capabilities) == ""
    assert "no style per class" in refusal("style_transfer", generator.capabilities)
    assert "does not sample" in refusal("sampling", generator.capabilities)
    twin = copy.deepcopy(generator)
    assert torch.equal(twin.synthesize(mask, style).image, made.image)


def test_adaptive_norm_sets_mean_and_deviation() -> None:
    x = torch.randn(2, 3, 8, 8) * 5 + 2
    style = torch.randn(2, 2, 3)
    made = adaptive_norm(x, style)
    torch.testing.assert_close(made.mean(dim=(2, 3)), style[:, 0], rtol=0, atol=1e-5)
    torch.testing.assert_close(made.std(dim=(2, 3), correction=0), style[:, 1].abs(), rtol=1e-4, atol=1e-5)


def test_feature_transform_closed_form() -> None:
    transform = FeatureTransform(1)
    with torch.no_grad():
        for conv, weight, bias in zip((*transform.scale, *transform.shift), (1, 2, 1, 3), (0, 1, 0, -1), strict=True):
            conv.get_parameter("weight").fill_(weight)
            conv.get_parameter("bias").fill_(bias)
    x, label = torch.full((1, 1, 1, 2), 10.0), torch.tensor([[[[2.0, -2.0]]]])
    # scale = 2 leaky(label) + 1, shift = 3 leaky(label) - 1, leaky slope 0.1
    assert transform(x, label).flatten().tolist() == pytest.approx([10 * 5 + 5, 10 * 0.6 - 1.6])


def test_style_numbers_are_shift_then_scale_in_network_order() -> None:
    """Only the second layer of the last block reaches the image when it is the only one that is not zero."""
    generator = small().eval()
    _, mask = random_inputs()
    layers = torch.zeros(2, 2, 2, 2, 16)
    silent = generator.synthesize(mask, layers.flatten(1)).image
    layers[:, 1, 1, 0] = torch.randn(16)  # a constant a channel: instance norm would undo it only without ReLU
    shifted = generator.synthesize(mask, layers.flatten(1)).image
    assert (shifted - silent).abs().max() > 1e-3
    layers[:, 1, 1, 0] = 0
    layers[:, 0, 0, 1] = 1  # the first layer's scale alone: the second's is 0, so the block adds nothing
    torch.testing.assert_close(generator.synthesize(mask, layers.flatten(1)).image, silent)


def test_the_reference_mask_matters_and_the_target_mask_sets_the_layout() -> None:
    generator = small().eval()
    image, mask = random_inputs()
    own, other = generator.encode_style(image, mask), generator.encode_style(image, mask.flip(0))
    assert (own - other).abs().max() > 1e-3
    assert (generator.synthesize(mask, own).image - generator.synthesize(mask.flip(0), own).image).abs().max() > 1e-2


def test_every_parameter_learns() -> None:
    generator = small()
    image, mask = random_inputs(batch=4)
    loss = (generator(image, mask, attention=False).synthesis.image - image).square().mean()
    convs = ("conv_in", "down.0", "down.1", "up.0", "up.1", *(f"blocks.{b}.convs.{c}" for b in (0, 1) for c in (0, 1)))
    assert parameters_without_gradient(generator, loss) == {f"{conv}.bias" for conv in convs}  # instance norm follows


@given(
    num_classes=st.sampled_from([2, 19, 150]),
    size=st.sampled_from([(16, 16), (24, 16), (16, 40)]),
    batch=st.sampled_from([1, 3]),
)
@settings(max_examples=6)
def test_any_size_and_classes(num_classes: int, size: tuple[int, int], batch: int) -> None:
    generator = small(num_classes)  # the network is convolutional: it need not be built for the size
    image, mask = random_inputs(num_classes, size, batch)
    made = generator(image, mask, attention=False)
    assert made.synthesis.image.shape == (batch, 3, *size)
    made.synthesis.image.square().mean().backward()
    assert all(parameter.grad is None or torch.isfinite(parameter.grad).all() for parameter in generator.parameters())


def test_wrong_sizes_are_named() -> None:
    with pytest.raises(UserError, match=r"20x16.*maskgan.*stride 8"):
        small(size=(20, 16))
    with pytest.raises(UserError, match="4x4 leaves maskgan a single pixel"):
        small().synthesize(random_inputs(size=(4, 4))[1], torch.zeros(2, 128))
    with pytest.raises(UserError, match=r"12x16.*stride 8"):
        small().encode_style(*random_inputs(size=(12, 16)))


def test_bf16_autocast_and_compiled_graph() -> None:
    generator = small().eval()
    image, mask = random_inputs()
    with torch.no_grad():
        style = generator.encode_style(image, mask)
        made = generator.synthesize(mask, style).image
        compiled = torch.compile(generator.synthesize, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(mask, style).image, made, rtol=0, atol=1e-5)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = generator.synthesize(mask, generator.encode_style(image, mask)).image.float()
    assert (rough - made).abs().mean() < 0.03


def test_paper_row_holds_the_published_recipe() -> None:
    config = compose(["model=maskgan", "preset=paper"])
    assert isinstance(config.model, MaskganModel)
    assert (config.model.base_width, config.model.downsamplings, config.model.blocks) == (64, 4, 4)
    assert (config.model.encoder.width, config.model.encoder.middle) == (16, 3)
    assert config.loss.gan.mode == "lsgan" and config.train.betas == (0.5, 0.999) and not config.train.ttur
    assert config.loss.feature_matching.weight == config.loss.perceptual.weight == 10.0


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """The release's keys with every width divided by 4, so that importing them takes no time."""
    keys = load_meta("maskgan")["keys"]
    return fill_with_sigma(
        [[key, [s // 4 if s >= 16 and s != 19 else s for s in shape], dtype] for key, shape, dtype, *_ in keys], {}, {}
    )


def test_import_reads_sizes_and_names_wrong_keys(state: dict[str, Tensor]) -> None:
    loaded = load_release("maskgan", state)
    assert isinstance(loaded, MaskganGenerator) and not loaded.training and loaded.num_classes == 19
    config = loaded.config
    assert (config.base_width, config.downsamplings, config.blocks) == (16, 4, 4)
    assert (config.encoder.width, config.encoder.middle) == (4, 3)
    used = {key: value for key, value in state.items() if "running" not in key}
    assert len(state) - len(used) == 16, "two buffers of each of eight AdaIN layers are never read"
    total = sum(value.double().sum().item() for value in used.values())
    assert sum(value.double().sum().item() for value in loaded.state_dict().values()) == pytest.approx(total, rel=1e-9)
    for key in random.Random(0).sample(sorted(state), 12):
        missing = {name: value for name, value in state.items() if name != key}
        for wrong in (missing, {**state, key: torch.zeros(*(size + 1 for size in state[key].shape))}):
            with pytest.raises(UserError) as caught:
                load_release("maskgan", wrong)
            assert key in str(caught.value), f"{key}, said: {caught.value}"
    with pytest.raises(UserError, match="extra key extra"):
        load_release("maskgan", {**state, "extra": torch.zeros(1)})
    with pytest.raises(UserError, match="keeps no separate image encoder"):
        load_release("maskgan", state, encoder=state)
