"""INADE and V-INADE: modulation, instance convs and pooling against their definitions; instances, sampling, import, errors."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.config import compose
from pipeline.editing.tasks import TASKS, refusal
from pipeline.errors import UserError
from pipeline.models.inade import InadeGenerator, InadeNorm, InstanceConv, one_hot_instances
from pipeline.models.interop import load_release
from pipeline.models.kernels import naive_kernels
from pipeline.schema.model_inade import InadeModel
from tests.pipeline.models.release_fill import load_meta, shrunk
from tests.pipeline.models.small_models import (
    TRUNK_CANCELLED,
    one_hot,
    parameters_without_gradient,
    random_inputs,
    small_generator,
)


def small(num_classes: int = 5, size: tuple[int, int] = (16, 16), **changes: Any) -> InadeGenerator:
    generator = small_generator("inade", num_classes, size, **changes)
    assert isinstance(generator, InadeGenerator)
    return generator


def components(num_instances: int, size: tuple[int, int] = (16, 16), batch: int = 2) -> Tensor:
    """Instance ids (N,H,W) in stripes, all present."""
    columns = torch.arange(size[1]) * num_instances // size[1]
    return columns.expand(batch, *size).contiguous()


def test_contract() -> None:
    generator = small().eval()
    image, mask = random_inputs()
    style = generator.encode_style(image, mask)
    assert tuple(style.shape) == (2, 5, 6) and generator.capabilities.style == "per_instance"
    assert generator.capabilities.sampling and generator.capabilities.noise_width == 30
    assert torch.equal(style, generator.encode_style(image, mask)), "encoding is deterministic"
    made = generator.synthesize(mask, style)
    assert made.image.shape == (2, 3, 16, 16) and made.image.abs().max() <= 1 and made.attention == []
    assert torch.equal(made.image, generator.synthesize(mask, style.view(2, 5, 2, 3), attention=False).image)
    refused = {task for task in TASKS if refusal(task, generator.capabilities)}
    assert refused == {"shape_interpolation"}


def test_modulation_is_the_published_formula() -> None:
    torch.manual_seed(0)
    norm = InadeNorm(3, 4, 2, "instance")
    torch.nn.init.normal_(norm.bias)
    x, (_, mask) = torch.randn(1, 3, 8, 8), random_inputs(4, (16, 16), batch=1)
    noise, regions = torch.randn(1, 6, 2, 2), one_hot_instances(components(6, batch=1))
    made = norm(x, mask, noise, regions)
    normalised = F.instance_norm(x)
    for row, column in ((0, 0), (3, 5), (7, 7)):
        class_id = int(mask[0, :, 2 * row, 2 * column].argmax())
        instance = int(regions[0, :, 2 * row, 2 * column].argmax())
        scale, shift = norm.project(noise[0, instance])  # (C,) each
        gamma = norm.weight[class_id, :, 0] * scale + norm.bias[class_id, :, 0]
        beta = norm.weight[class_id, :, 1] * shift + norm.bias[class_id, :, 1]
        torch.testing.assert_close(made[0, :, row, column], gamma * normalised[0, :, row, column] + beta)


def test_one_instance_a_class_equals_an_instance_map_of_classes() -> None:
    generator = small().eval()
    image, mask = random_inputs()
    ids = mask.argmax(dim=1)
    style = generator.encode_style(image, mask)
    torch.testing.assert_close(generator.encode_style(image, mask, instances=ids), style)
    made = generator.synthesize(mask, style).image
    torch.testing.assert_close(generator.synthesize(mask, style, instances=ids).image, made, rtol=1e-4, atol=1e-5)
    with naive_kernels():
        torch.testing.assert_close(generator.synthesize(mask, style).image, made, rtol=1e-4, atol=1e-5)


def test_renumbered_instances_give_the_same_image() -> None:
    generator = small().eval()
    image, mask = random_inputs()
    ids, order = components(4), torch.tensor([2, 0, 3, 1])
    style = generator.encode_style(image, mask, instances=ids)
    renumbered = generator.encode_style(image, mask, instances=order[ids])
    torch.testing.assert_close(renumbered[:, order], style)
    torch.testing.assert_close(
        generator.synthesize(mask, renumbered, instances=order[ids]).image,
        generator.synthesize(mask, style, instances=ids).image,
    )


@pytest.mark.parametrize("stride", [1, 2])
def test_instance_conv_sees_one_instance_only(stride: int) -> None:
    """Against the definition: for each instance, a plain conv of the picture with all else blackened, read at its centres."""
    torch.manual_seed(0)
    conv = InstanceConv(2, 3, stride)
    x, ids = torch.randn(2, 2, 8, 6), torch.randint(0, 3, (2, 1, 16, 12))
    near = F.interpolate(ids.float(), size=(8, 6), mode="nearest")
    expected = torch.zeros(2, 3, 8 // stride, 6 // stride)
    for instance in range(3):
        inside = (near == instance).float()
        plain = F.conv2d(x * inside, conv.weight, conv.bias, stride, 1)
        expected += plain * inside[:, :, ::stride, ::stride]
    torch.testing.assert_close(conv(x, ids.float()), expected)


def test_an_instance_without_pixels_keeps_the_prior() -> None:
    generator = small().eval()
    image, _ = random_inputs()
    mask = one_hot(torch.zeros(2, 16, 16, dtype=torch.int64), 5)
    mean, log_variance = generator.encode_distribution(image, mask)
    assert mean[:, 0].abs().min() > 0 and mean[:, 1:].abs().max() == 0 and log_variance[:, 1:].abs().max() == 0


def test_pixels_of_no_class_belong_to_nobody() -> None:
    """Changing them moves no code through the masked taps at full size, and their own modulation is 0."""
    generator = small().eval()
    image, mask = random_inputs()
    mask[:, :, :8] = 0
    style = generator.encode_style(image, mask)
    assert torch.isfinite(generator.synthesize(mask, style).image).all()
    norm = generator.trunk.head.norm_0
    out = norm(torch.randn(2, 16, 16, 16), mask, style.view(2, 5, 2, 3))
    assert out[:, :, :8].abs().max() == 0 and out[:, :, 8:].abs().max() > 0
    negative = torch.where(mask.sum(dim=1) > 0, mask.argmax(dim=1), -1)
    torch.testing.assert_close(generator.encode_style(image, mask, instances=negative)[:, :5], style)


def test_an_exchanged_row_changes_its_instance_most() -> None:
    generator = small(size=(32, 32)).eval()
    labels = torch.zeros(1, 32, 32, dtype=torch.int64)
    labels[:, 8:24, 8:24] = 1
    mask, style = one_hot(labels, 5), torch.zeros(1, 5, 6)
    changed = style.clone()
    changed[:, 1] += 2
    moved = (generator.synthesize(mask, changed).image - generator.synthesize(mask, style).image).abs().mean(1)[0]
    assert moved[labels[0] == 1].mean() > 2 * moved[labels[0] == 0].mean() > 0
    changed = style.clone()
    changed[:, 4] += 2  # absent
    assert torch.equal(generator.synthesize(mask, changed).image, generator.synthesize(mask, style).image)


def test_training_draws_noise_and_reports_the_summed_kl() -> None:
    generator = small()
    image, mask = random_inputs()
    mean, log_variance = generator.encode_distribution(image, mask)
    torch.manual_seed(1)
    made = generator(image, mask, attention=False)
    torch.manual_seed(1)
    torch.testing.assert_close(made.style, mean + torch.randn(2, 5, 6) * torch.exp(log_variance / 2))
    normal = torch.distributions.Normal(mean, torch.exp(log_variance / 2))
    expected = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).sum()
    torch.testing.assert_close(made.regularisers["kl"], expected, rtol=1e-4, atol=1e-4)
    loss = (made.synthesis.image - image).square().mean() + 0.01 * made.regularisers["kl"]
    encoder = {f"encoder.{layer}.bias" for layer in ("down.0", "down.1", "middle", "up.0")}  # instance norm
    assert parameters_without_gradient(generator, loss) == TRUNK_CANCELLED - {"start.bias"} | encoder


@pytest.mark.parametrize(("when", "training", "drawn"), [
    ("always", False, True), ("train", False, False), ("train", True, True), ("off", True, False),
])  # fmt: skip
def test_start_noise(when: str, training: bool, drawn: bool) -> None:
    generator = small(start_noise=when, norm="instance", spectral_norm=False).train(training)
    _, mask = random_inputs()
    style = torch.zeros(2, 5, 6)
    images = [generator.synthesize(mask, style).image for _ in range(2)]
    assert torch.equal(images[0], images[1]) != drawn
    zero = generator.synthesize(mask, style, start=torch.zeros(2, 8)).image
    assert torch.equal(zero, images[0]) != drawn


def test_without_encoder_styles_are_drawn() -> None:
    generator = small(style="none")
    image, mask = random_inputs()
    assert generator.capabilities.style == "none" and generator.capabilities.sampling
    assert generator.encode_style(image, mask).shape == (2, 0)
    made = generator(image, mask, attention=False)
    assert made.style.shape == (2, 5, 6) and made.regularisers == {}
    assert generator(image, mask, attention=False, instances=components(4)).style.shape == (2, 4, 6)
    generator.eval()
    assert torch.equal(
        generator.synthesize(mask, torch.zeros(2, 0)).image, generator.synthesize(mask, torch.zeros(2, 5, 6)).image
    )
    noise = torch.randn(2, 30)
    assert torch.equal(generator.sample_style(mask, noise).flatten(1), noise)
    with pytest.raises(UserError, match=r"model\.style=vae"):
        generator.encode_distribution(image, mask)


@given(
    num_classes=st.sampled_from([2, 19, 150]),
    size=st.sampled_from([(16, 16), (24, 16), (16, 40)]),
    batch=st.sampled_from([1, 3]),
    instances=st.sampled_from([0, 1, 7]),
)
@settings(max_examples=8)
def test_any_size_classes_and_instances(num_classes: int, size: tuple[int, int], batch: int, instances: int) -> None:
    generator = small(num_classes, size)
    image, mask = random_inputs(num_classes, size, batch)
    given_ids = {"instances": components(instances, size, batch)} if instances else {}
    made = generator(image, mask, attention=False, **given_ids)
    assert made.synthesis.image.shape == (batch, 3, *size)
    assert made.style.shape == (batch, instances or num_classes, 6)
    (made.synthesis.image.square().mean() + made.regularisers["kl"]).backward()
    assert all(parameter.grad is None or torch.isfinite(parameter.grad).all() for parameter in generator.parameters())


def test_wrong_sizes_and_rows_are_named() -> None:
    with pytest.raises(UserError, match=r"20x16.*inade.*stride 8"):
        small(size=(20, 16))
    generator = small()
    _, mask = random_inputs(size=(32, 16))
    with pytest.raises(UserError, match="built for 16x16 pixels and cannot draw 32x16"):
        generator.synthesize(mask, torch.zeros(2, 5, 6))
    _, mask = random_inputs()
    with pytest.raises(UserError, match="style has 5 rows; this layout has 7 instances"):
        generator.synthesize(mask, torch.zeros(2, 5, 6), instances=components(7))


@pytest.mark.slow
@torch.no_grad()
def test_compiled_graph_gives_the_same_image() -> None:
    generator = small().eval()
    image, mask = random_inputs()
    style = generator.encode_style(image, mask)
    compiled = torch.compile(generator.synthesize, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(mask, style).image, generator.synthesize(mask, style).image, rtol=0, atol=1e-5)


def test_copies_and_bf16() -> None:
    generator = small().eval()
    image, mask = random_inputs()
    with torch.no_grad():
        made = generator.synthesize(mask, generator.encode_style(image, mask)).image
        twin = copy.deepcopy(generator)
        assert torch.equal(twin.synthesize(mask, twin.encode_style(image, mask)).image, made)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = generator.synthesize(mask, generator.encode_style(image, mask)).image
    assert (rough.float() - made).abs().max() < 0.1


def test_paper_row_holds_the_published_recipe() -> None:
    config, spade = compose(["model=inade", "preset=paper"]), compose(["model=spade", "preset=paper"])
    assert isinstance(config.model, InadeModel)
    assert (config.model.noise_width, config.model.z_dim, config.model.start_noise) == (64, 256, "always")
    assert (config.model.base_width, config.model.up_blocks, config.model.encoder.layers) == (64, 4, 4)
    assert config.loss == spade.loss and config.discriminator == spade.discriminator and config.train == spade.train


@pytest.fixture(scope="module")
def files() -> dict[str, dict[str, Tensor]]:
    meta = load_meta("inade")
    return {"generator": shrunk(meta["keys_G"]), "encoder": shrunk(meta["keys_E"])}


def test_import_reads_sizes_and_names_wrong_keys(files: dict[str, dict[str, Tensor]]) -> None:
    plain = load_release("inade", files["generator"])
    assert isinstance(plain, InadeGenerator) and plain.config.style == "none"
    loaded = load_release("inade", files["generator"], encoder=files["encoder"])
    assert isinstance(loaded, InadeGenerator) and not loaded.training
    assert (loaded.num_classes, loaded.size, loaded.config.base_width) == (19, (256, 256), 4)
    assert (loaded.config.noise_width, loaded.config.z_dim, loaded.config.encoder.width) == (4, 16, 4)
    total = sum(value.double().sum().item() for state in files.values() for value in state.values())
    assert sum(value.double().sum().item() for value in loaded.state_dict().values()) == pytest.approx(total, rel=1e-9)
    for part, state in files.items():
        for key in random.Random(0).sample(sorted(state), 4):
            missing = {name: value for name, value in state.items() if name != key}
            spoilt = torch.zeros(*(size + 1 for size in state[key].shape)) if state[key].dim() else torch.zeros(2)
            for wrong in (missing, {**state, key: spoilt}):
                given_files = {**files, part: wrong}
                with pytest.raises(UserError) as caught:
                    load_release("inade", given_files["generator"], encoder=given_files["encoder"])
                assert key in str(caught.value), f"{key}, said: {caught.value}"
        with pytest.raises(UserError, match="extra key extra"):
            extra = {**files, part: {**state, "extra": torch.zeros(1)}}
            load_release("inade", extra["generator"], encoder=extra["encoder"])
