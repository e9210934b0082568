"""CLADE: the layer in closed form, positions against scipy, every switch, sizes and masks at the edge, import of its keys."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import ndimage
from torch import Tensor

from pipeline.errors import UserError
from pipeline.models.clade import CladeGenerator
from pipeline.models.clade_norm import CladeNorm, spread
from pipeline.models.contract import Generator
from pipeline.models.interop import load_release
from pipeline.models.interop.common import unknown_last
from pipeline.models.kernels import naive_kernels
from pipeline.models.positions import (
    as_released_when_mirrored,
    borders,
    connected_parts,
    layout_labels,
    part_offsets,
)
from pipeline.models.summary import summarise
from tests.pipeline.models.release_fill import fill_with_sigma, load_meta
from tests.pipeline.models.small_models import (
    TRUNK_CANCELLED,
    one_hot,
    parameters_without_gradient,
    random_inputs,
    small_config,
    small_generator,
)

NAMES = ["clade", "clade_icpe", "clade_vae"]


def image_of(generator: Generator, seed: int = 5, size: tuple[int, int] = (16, 16)) -> Tensor:
    image, mask = random_inputs(size=size)
    torch.manual_seed(seed)
    made: Tensor = generator(image, mask, attention=False).synthesis.image
    return made


def test_the_layer_is_a_lookup_and_crosses_no_border() -> None:
    torch.manual_seed(0)
    layer = CladeNorm(6, 5, norm="instance")
    torch.nn.init.normal_(layer.bias)
    x, (_, mask) = torch.randn(2, 6, 8, 8), random_inputs(5, (8, 8))
    labels = mask.argmax(1)
    mean, variance = x.mean((2, 3), keepdim=True), x.var((2, 3), keepdim=True, correction=0)
    scale, shift = (table[labels].permute(0, 3, 1, 2) for table in (layer.weight, layer.bias))
    torch.testing.assert_close(layer(x, mask), (x - mean) / (variance + 1e-5).sqrt() * scale + shift)
    unlabelled = mask.clone()
    unlabelled[:, :, 0, 0] = 0
    assert not layer(x, unlabelled)[:, :, 0, 0].any(), "a pixel of no class has scale and shift 0"


def test_codes_are_added_to_the_rows_of_their_classes() -> None:
    torch.manual_seed(0)
    layer = CladeNorm(3, 4, norm="instance", style_channels=2)
    x, (_, mask), codes = torch.randn(2, 3, 8, 8), random_inputs(4, (8, 8)), torch.randn(2, 4, 2)
    moved = codes.clone()
    moved[:, 1] += 1
    changed = (layer(x, mask, codes=moved) - layer(x, mask, codes=codes)).abs().amax(1) > 1e-7
    assert torch.equal(changed, mask[:, 1] > 0), "inside the class's own region, and all of it"
    assert layer.project is not None
    scale, shift = layer.project(moved - codes)[:, 1].sub(layer.project.bias).chunk(2, dim=1)  # (N,C) each
    expected = (layer.norm(x) * scale[..., None, None] + shift[..., None, None]) * mask[:, 1:2]
    torch.testing.assert_close(layer(x, mask, codes=moved) - layer(x, mask, codes=codes), expected)


@given(st.integers(0, 999), st.integers(1, 9), st.integers(1, 12), st.integers(1, 4))
@settings(max_examples=60)
def test_parts_and_offsets_are_scipys(seed: int, height: int, width: int, classes: int) -> None:
    labels = np.random.default_rng(seed).integers(0, classes, (2, height, width))
    parts = connected_parts(torch.from_numpy(labels)).numpy()
    offsets = part_offsets(torch.from_numpy(labels), skipped=0, normalise=False).numpy()
    for item in range(2):
        for label in range(classes):
            found, count = ndimage.label(labels[item] == label, structure=np.ones((3, 3)))
            for part in range(1, count + 1):
                inside = found == part
                assert len(np.unique(parts[item][inside])) == 1 and (parts[item] == parts[item][inside][0]).sum() == (
                    inside.sum()
                )
                where = np.argwhere(inside)
                expected = where - where.mean(0) if label else np.zeros(where.shape)
                np.testing.assert_allclose(offsets[item][:, inside].T, expected, rtol=0, atol=1e-5)


def test_long_parts_are_followed_to_their_end() -> None:
    spiral = torch.zeros(1, 31, 31, dtype=torch.int64)
    row, column, step, length = 0, 0, (0, 1), 31
    for turn in range(30):
        for _ in range(length - (1 if turn else 0)):
            spiral[0, row, column] = 1
            row, column = row + step[0], column + step[1]
        row, column = row - step[0], column - step[1]
        step = (step[1], -step[0])
        row, column = row + step[0], column + step[1]
        length -= 2 if turn and turn % 2 == 0 else 0
        if length < 3:
            break
    reference, count = ndimage.label(spiral[0].numpy(), structure=np.ones((3, 3)))
    assert len(connected_parts(spiral)[spiral == 1].unique()) == count
    assert reference.max() == count


def test_normalised_offsets_fill_their_part_and_stay_below_one() -> None:
    labels = torch.zeros(1, 12, 12, dtype=torch.int64)
    labels[:, 2:5, 1:8] = 1
    offsets = part_offsets(labels)[0]
    assert offsets[0, 2, 1].item() == pytest.approx(-1, abs=2e-5) and offsets[1, 4, 7].item() == pytest.approx(
        1, abs=2e-5
    )
    assert offsets.abs().max() < 1
    assert not part_offsets(torch.tensor([[[0, 1], [2, 3]]])).any(), "a part of one pixel has no extent"


def test_mirroring_labels_mirrors_positions_and_the_release_does_neither() -> None:
    labels = random_inputs(4, (12, 16), seed=3)[1].argmax(1)
    offsets, mirrored = part_offsets(labels), part_offsets(labels.flip(2))
    torch.testing.assert_close(mirrored, offsets.flip(3) * torch.tensor([1.0, -1.0]).view(1, 2, 1, 1))
    assert torch.equal(as_released_when_mirrored(mirrored), offsets.flip(2)), "upside down, no sign changed"


def test_the_fault_meets_half_of_the_training_samples_and_no_other() -> None:
    faulty = {"enabled": True, "skipped_class": None, "mirror": "as_released", "start": "as_released"}
    generator = small_generator("clade_icpe", icpe=faulty)
    assert isinstance(generator, CladeGenerator)
    mask = random_inputs(5, batch=1)[1].expand(400, -1, -1, -1)
    right = part_offsets(layout_labels(mask))
    torch.manual_seed(0)
    wrong = (generator.positions(mask) != right).flatten(1).any(1)
    assert 160 < int(wrong.sum()) < 240
    assert torch.equal(generator.eval().positions(mask), right)


def test_positions_start_as_no_change_or_as_the_release_leaves_them() -> None:
    zeros = {"enabled": True, "skipped_class": None, "mirror": "fixed", "start": "fixed"}
    plain, positioned = small_generator("clade"), small_generator("clade_icpe", icpe=zeros)
    missing, unexpected = positioned.load_state_dict(plain.state_dict(), strict=False)
    assert unexpected == [] and all("_position." in key for key in missing)
    torch.testing.assert_close(image_of(positioned), image_of(plain))
    released = small_generator("clade_icpe", base_width=8, up_blocks=3, size=(32, 32), init_gain=0.02)
    weights = torch.cat([value.flatten() for key, value in released.named_parameters() if "_position.w" in key])
    biases = torch.cat([value.flatten() for key, value in released.named_parameters() if "_position.b" in key])
    assert weights.std().item() == pytest.approx(0.0163, rel=0.2) and weights.abs().min() > 0 and not biases.any()
    tables = torch.cat([part.weight.flatten() for part in released.modules() if isinstance(part, CladeNorm)])
    assert tables.min() >= 0 and tables.max() < 1 and tables.mean().item() == pytest.approx(0.5, abs=0.02)


SWITCHES = [
    ("clade", "base_width", 8),
    ("clade", "up_blocks", 1),
    ("clade", "middle_upsample", True),
    ("clade", "norm", "instance"),
    ("clade", "spectral_norm", False),
    ("clade", "instance_edges", True),
    ("clade", "noise_channels", 3),
    ("clade_icpe", "icpe", {"enabled": False, "skipped_class": None, "mirror": "fixed", "start": "as_released"}),
    ("clade_icpe", "icpe", {"enabled": True, "skipped_class": 0, "mirror": "fixed", "start": "as_released"}),
    ("clade_icpe", "icpe", {"enabled": True, "skipped_class": None, "mirror": "as_released", "start": "as_released"}),
    ("clade_icpe", "icpe", {"enabled": True, "skipped_class": None, "mirror": "fixed", "start": "fixed"}),
    ("clade_vae", "z_dim", 4),
    ("clade_vae", "encoder", {"size": 16, "layers": 1, "width": 4}),
]


@pytest.mark.parametrize(("name", "key", "value"), SWITCHES)
def test_every_switch_changes_the_computation(name: str, key: str, value: Any) -> None:
    before = image_of(small_generator(name, size=(32, 32)), size=(32, 32))
    after = image_of(small_generator(name, size=(32, 32), **{key: value}), size=(32, 32))
    assert (before - after).abs().max() > 1e-4


@pytest.mark.parametrize("name", NAMES)
@given(
    num_classes=st.sampled_from([2, 19, 200]),
    height=st.sampled_from([16, 24]),
    width=st.sampled_from([16, 40]),
    only_background=st.booleans(),
)
@settings(max_examples=6)
def test_any_size_classes_and_mask(name: str, num_classes: int, height: int, width: int, only_background: bool) -> None:
    generator = small_generator(name, num_classes, (height, width))
    image, mask = random_inputs(num_classes, (height, width), 3)
    if only_background:
        mask = one_hot(torch.zeros(3, height, width, dtype=torch.int64), num_classes)
    made = generator(image, mask, attention=False)
    assert made.synthesis.image.shape == (3, 3, height, width) and torch.isfinite(made.synthesis.image).all()
    loss = made.synthesis.image.square().mean() + sum(made.regularisers.values(), torch.zeros(()))
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = {key: parameter.grad for key, parameter in generator.named_parameters()}
    assert all(gradient is None or bool(torch.isfinite(gradient).all()) for gradient in gradients.values())
    absent = mask.sum((0, 2, 3)) == 0
    tables = [gradient for key, gradient in gradients.items() if "norm_" in key and key.endswith(("weight", "bias"))]
    assert all(
        not gradient[absent].any() for gradient in tables if gradient is not None and len(gradient) == num_classes
    )


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_bf16_and_loops_give_nearly_the_same_image(name: str) -> None:
    generator = small_generator(name).eval()
    image, mask = random_inputs()
    style = generator.encode_style(image, mask)
    exact = generator.synthesize(mask, style).image
    with naive_kernels():
        torch.testing.assert_close(generator.synthesize(mask, style).image, exact, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = generator.synthesize(mask, generator.encode_style(image, mask)).image
    difference = (exact - rough.float()).abs()
    assert difference.max() < 0.08 and difference.mean() < 0.012


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_learns(name: str) -> None:
    generator = small_generator(name)
    for part in generator.modules():
        if isinstance(part, CladeNorm):  # what scales a shift of 0 waits for the shift to learn
            torch.nn.init.normal_(part.bias)
    image, mask = random_inputs(batch=4)
    made = generator(image, mask, attention=False)
    loss = (made.synthesis.image - image).square().mean() + 0.01 * sum(made.regularisers.values(), torch.zeros(()))
    cancelled = TRUNK_CANCELLED
    if (
        name == "clade_vae"
    ):  # its start is drawn from z; an edge's bias is the same at all pixels and goes on to a 1x1 shortcut
        cancelled = cancelled - {"start.bias"} | {"trunk.up.0.norm_s.edge.bias"}
    assert parameters_without_gradient(generator, loss) == cancelled


def test_instances_enter_by_their_borders_and_classes_stand_in_for_them() -> None:
    generator = small_generator("clade_vae").eval()
    image, mask = random_inputs()
    style = generator.encode_style(image, mask)
    labels = mask.argmax(1)
    assert isinstance(generator, CladeGenerator)
    by_class = generator.synthesize(mask, style).image
    assert torch.equal(generator.synthesize(mask, style, instances=labels).image, by_class)
    parts = labels.clone()
    parts[:, :, 8:] += 5
    assert not torch.equal(generator.synthesize(mask, style, instances=parts).image, by_class)
    edges = borders(torch.tensor([[[0, 0, 1], [0, 0, 1], [2, 2, 2]]]))[0, 0]
    assert edges.tolist() == [[0, 1, 1], [1, 1, 1], [1, 1, 1]]


def test_noise_is_a_style_that_can_be_drawn_but_not_encoded() -> None:
    generator = small_generator("clade", noise_channels=3, noise="train").eval()
    image, mask = random_inputs()
    assert generator.capabilities.sampling and generator.capabilities.noise_width == 3
    empty = generator.encode_style(image, mask)
    still = generator.synthesize(mask, empty).image
    assert empty.shape == (2, 0) and torch.equal(still, generator.synthesize(mask, torch.zeros(2, 3)).image)
    drawn = generator.synthesize(mask, generator.sample_style(mask, torch.ones(2, 3))).image
    assert not torch.equal(drawn, still)
    assert torch.equal(drawn, generator.synthesize(mask, torch.ones(2, 3, 4, 4)).image)
    with pytest.raises(ValidationError, match="3D noise needs style none"):
        small_config("clade_vae", noise_channels=3)


@pytest.mark.parametrize("name", ["clade_icpe", "clade_vae"])
def test_the_network_is_counted_without_memory(name: str) -> None:
    generator = small_generator(name)
    summary = summarise(generator, (16, 16))
    assert summary.parameters == sum(parameter.numel() for parameter in generator.parameters()) and summary.flops > 0


def test_released_keys_are_all_used_and_named() -> None:
    meta = load_meta("clade")
    state = fill_with_sigma(meta["keys_icpe"], {}, meta["sigma_icpe"])
    generator = load_release("clade", state)
    assert isinstance(generator, CladeGenerator)
    cfg = generator.config
    assert (cfg.base_width, cfg.up_blocks, cfg.icpe.enabled, cfg.instance_edges) == (16, 4, True, False)
    total = sum(value.double().sum().item() for value in state.values())
    assert sum(value.double().sum().item() for value in generator.state_dict().values()) == pytest.approx(total)
    for key in ("fc.bias", "up_0.norm_s.class_specified_affine.dist_conv_b.bias", "head_0.conv_1.weight_v"):
        with pytest.raises(UserError, match=f"key {key} is missing"):
            load_release("clade", {name: value for name, value in state.items() if name != key})
    with pytest.raises(UserError, match=r"key conv_img\.bias has shape \(4,\)"):
        load_release("clade", {**state, "conv_img.bias": torch.zeros(4)})
    with pytest.raises(UserError, match=r"extra key up_9\.x"):
        load_release("clade", {**state, "up_9.x": torch.zeros(1)})


def test_ade20ks_unlabelled_class_moves_from_first_to_last() -> None:
    meta = load_meta("clade")
    wide = [
        [key, [151 if size == 19 else size for size in shape], dtype] for key, shape, dtype, *_ in meta["keys_clade"]
    ]
    state = fill_with_sigma(wide, {}, meta["sigma_clade"])
    generator = load_release("clade", state)
    assert isinstance(generator, CladeGenerator) and generator.config.icpe.skipped_class == 150
    table = generator.get_parameter("trunk.up.3.norm_1.bias")
    released = state["up_3.norm_1.class_specified_affine.bias"]
    assert torch.equal(table[-1], released[0]) and torch.equal(table[:-1], released[1:])
    assert torch.equal(generator.get_parameter("start.weight"), state["fc.weight"][:, unknown_last(151)])


def test_spread_puts_a_row_of_each_image_into_its_regions() -> None:
    mask = one_hot(torch.tensor([[[0, 1]], [[1, 1]]]), 2)
    table = torch.tensor([[[1.0], [2.0]], [[3.0], [4.0]]])
    assert spread(mask, table)[:, 0, 0].tolist() == [[1, 2], [4, 4]]
    assert spread(mask, table[0])[:, 0, 0].tolist() == [[1, 2], [2, 2]]
