"""SPADE, SEAN and the region-mean painter: the contract, every switch, sizes and masks at the edge, precision."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.models.kernels import naive_kernels
from pipeline.models.sean import RegionStyleEncoder, SeanGenerator, region_means
from pipeline.models.spade import SpadeGenerator
from pipeline.models.spectral import apply_spectral_norm
from tests.pipeline.models.small_models import (
    TRUNK_CANCELLED,
    one_hot,
    parameters_without_gradient,
    random_inputs,
    small_config,
    small_generator,
)

NAMES = ("painter", "sean", "spade", "spade_vae")
LEARNED = [name for name in NAMES if name != "painter"]


@pytest.mark.parametrize(
    ("name", "shape", "kind"),
    [
        ("spade", (2, 0), "none"),
        ("spade_vae", (2, 8), "global"),
        ("sean", (2, 5, 8), "per_class"),
        ("painter", (2, 5, 3), "per_class"),
    ],
)
def test_what_each_family_calls_a_style(name: str, shape: tuple[int, ...], kind: str) -> None:
    generator = small_generator(name).eval()
    assert tuple(generator.encode_style(*random_inputs()).shape) == shape
    assert generator.capabilities.style == kind
    assert generator.capabilities.sampling == (name == "spade_vae")


@pytest.mark.parametrize("name", NAMES)
@given(
    num_classes=st.sampled_from([2, 3, 19, 200]),
    height=st.sampled_from([16, 24, 40]),
    width=st.sampled_from([16, 32]),
    batch=st.sampled_from([1, 3]),
    only_background=st.booleans(),
)
@settings(max_examples=8)
def test_any_size_classes_and_mask(
    name: str, num_classes: int, height: int, width: int, batch: int, only_background: bool
) -> None:
    changes: dict[str, Any] = {"style_dim": 4} if name == "sean" else {}
    generator = small_generator(name, num_classes, (height, width), **changes)
    image, mask = random_inputs(num_classes, (height, width), batch)
    if only_background:
        mask = one_hot(torch.zeros(batch, height, width, dtype=torch.int64), num_classes)
    made = generator(image, mask, attention=False)
    assert made.synthesis.image.shape == (batch, 3, height, width)
    assert torch.isfinite(made.synthesis.image).all()
    assert torch.isfinite(made.style).all()
    if generator.capabilities.learned:
        loss = made.synthesis.image.square().mean() + sum(made.regularisers.values(), torch.zeros(()))
        loss.backward()  # type: ignore[no-untyped-call]
        gradients = [parameter.grad for parameter in generator.parameters()]
        assert all(gradient is None or bool(torch.isfinite(gradient).all()) for gradient in gradients)


@pytest.mark.parametrize("name", LEARNED)
def test_every_parameter_learns(name: str) -> None:
    generator = small_generator(name)
    if isinstance(generator, SeanGenerator):  # noise strength 0 has a gradient, but the image must depend on it
        generator.train()
    image, mask = random_inputs(batch=4)
    made = generator(image, mask, attention=False)
    loss = (made.synthesis.image - image).square().mean() + 0.01 * sum(made.regularisers.values(), torch.zeros(()))
    cancelled = TRUNK_CANCELLED | {"trunk.up.0.norm_s.modulation.beta.bias"}
    if name == "spade_vae":
        cancelled -= {"start.bias"}  # drawn from z, with a bias of its own for each pixel
    if name == "sean":
        cancelled |= {"trunk.up.0.norm_s.style_modulation.beta.bias"}
        cancelled |= {f"encoder.{layer}.bias" for layer in ("conv_in", "down_0", "down_1", "up")}  # instance norm
    assert parameters_without_gradient(generator, loss) == cancelled


@pytest.mark.parametrize("name", LEARNED)
def test_wrong_sizes_are_named(name: str) -> None:
    stride = small_generator(name).stride
    assert stride == 8
    with pytest.raises(UserError, match=r"20x16.*stride 8"):
        small_generator(name, size=(20, 16))
    with pytest.raises(UserError, match="8x8 leaves"):
        small_generator(name, size=(8, 8))
    generator = small_generator(name)
    _, mask = random_inputs(size=(12, 16))
    with pytest.raises(UserError, match=r"12x16.*stride 8"):
        generator.synthesize(mask, generator.encode_style(*random_inputs()))


def test_vae_draws_only_the_size_it_was_built_for() -> None:
    generator = small_generator("spade_vae")
    _, mask = random_inputs(size=(32, 16))
    with pytest.raises(UserError, match="built for 16x16 pixels and cannot draw 32x16"):
        generator.synthesize(mask, torch.zeros(2, 8))
    assert small_generator("spade").synthesize(mask, torch.zeros(2, 0)).image.shape == (2, 3, 32, 16)


def test_vae_training_samples_and_reports_kl() -> None:
    generator = small_generator("spade_vae")
    assert isinstance(generator, SpadeGenerator)
    image, mask = random_inputs()
    torch.manual_seed(1)
    first = generator(image, mask, attention=False)
    second = generator(image, mask, attention=False)
    assert not torch.equal(first.style, second.style)
    mean, log_variance = generator.eval().encode_distribution(image)
    torch.manual_seed(1)
    first = generator(image, mask, attention=False)
    torch.manual_seed(1)
    expected = mean + torch.randn(2, 8) * torch.exp(log_variance / 2)
    torch.testing.assert_close(first.style, expected)
    normal, standard = (
        torch.distributions.Normal(mean, torch.exp(log_variance / 2)),
        torch.distributions.Normal(0.0, 1.0),
    )
    torch.testing.assert_close(
        first.regularisers["kl"], torch.distributions.kl_divergence(normal, standard).sum(), rtol=1e-4, atol=1e-4
    )
    noise = torch.randn(2, 8)
    assert torch.equal(generator.sample_style(mask, noise), noise)


def test_spade_without_vae_has_no_style_to_sample() -> None:
    generator = small_generator("spade")
    assert isinstance(generator, SpadeGenerator)
    assert generator(*random_inputs(), attention=False).regularisers == {}
    with pytest.raises(NotImplementedError):
        generator.sample_style(random_inputs()[1], torch.zeros(2, 8))
    with pytest.raises(UserError, match=r"model\.style=vae"):
        generator.encode_distribution(random_inputs()[0])


def test_vae_encoder_takes_other_sizes() -> None:
    generator = small_generator("spade_vae", size=(32, 32))
    image, mask = random_inputs(size=(32, 32))
    resized = torch.nn.functional.interpolate(image, size=(16, 16), mode="bilinear")
    assert isinstance(generator, SpadeGenerator)
    torch.testing.assert_close(generator.eval().encode_style(image, mask), generator.encode_distribution(resized)[0])


SWITCHES = [
    ("spade", "base_width", 8),
    ("spade", "up_blocks", 1),
    ("spade", "middle_upsample", True),
    ("spade", "modulation_width", 4),
    ("spade", "norm", "instance"),
    ("spade", "spectral_norm", False),
    ("spade", "style", "vae"),
    ("spade_vae", "z_dim", 4),
    ("spade_vae", "encoder", {"size": 16, "layers": 1, "width": 4}),
    ("sean", "style_dim", 4),
    ("sean", "encoder_width", 8),
    ("sean", "style_in_last_block", True),
    ("sean", "modulation_width", 4),
    ("sean", "norm", "layer"),
    ("sean", "spectral_norm", False),
    ("sean", "middle_upsample", True),
    ("sean", "noise", "off"),
]


@pytest.mark.parametrize(("name", "key", "value"), SWITCHES)
def test_every_switch_changes_the_computation(name: str, key: str, value: Any) -> None:
    changes = {key: value}
    if (name, value) == ("spade", "vae"):
        changes["encoder"] = {"size": 16, "layers": 2, "width": 4}
    before, after = small_generator(name, size=(32, 32)), small_generator(name, size=(32, 32), **changes)
    image, mask = random_inputs(size=(32, 32))

    def run(generator: torch.nn.Module) -> torch.Tensor:
        for key, parameter in generator.named_parameters():
            if key.endswith("noise_scale"):
                torch.nn.init.ones_(parameter)
        torch.manual_seed(5)
        made: torch.Tensor = generator(image, mask, attention=False).synthesis.image
        return made

    assert (run(before) - run(after)).abs().max() > 1e-4


def test_up_blocks_set_stride_and_widths() -> None:
    for up_blocks, middle, stride in ((1, False, 4), (2, False, 8), (2, True, 16), (3, False, 16)):
        generator = small_generator("spade", size=(32, 32), up_blocks=up_blocks, middle_upsample=middle)
        assert isinstance(generator, SpadeGenerator)
        assert generator.stride == stride
        assert generator.trunk.start_width == 4 * 2**up_blocks
        assert generator.trunk.to_image.in_channels == 4


def test_encoder_config_must_leave_two_pixels() -> None:
    with pytest.raises(ValueError, match=r"divisible by 2\*\*layers = 8"):
        small_config("spade_vae", encoder={"size": 20, "layers": 3, "width": 4})
    with pytest.raises(ValueError, match="at least 2x2"):
        small_config("spade_vae", encoder={"size": 8, "layers": 3, "width": 4})


def test_region_means_closed_form() -> None:
    features = torch.arange(8.0).view(1, 1, 2, 4)  # 0 1 2 3 / 4 5 6 7
    labels = torch.tensor([[[0, 0, 1, 1], [0, 0, 1, 1]]])
    means = region_means(features, one_hot(labels, 3))
    assert means[0, :, 0].tolist() == [2.5, 4.5, 0.0]
    with naive_kernels():
        assert torch.equal(region_means(features, one_hot(labels, 3)), means)


def test_sean_code_of_a_class_depends_on_the_image_near_its_region() -> None:
    torch.manual_seed(0)
    encoder = RegionStyleEncoder(4, 8)
    labels = torch.zeros(1, 32, 32, dtype=torch.int64)
    labels[:, :, 16:] = 1
    image, _ = random_inputs(size=(32, 32), batch=1)
    codes = encoder(image, one_hot(labels, 3))
    assert codes[0, 2].abs().max() == 0, "an absent class has the zero code"
    assert codes[0, :2].abs().min() > 0
    gradient = torch.autograd.grad(codes[0, 1].sum(), encoder.conv_out.weight)[0]
    assert gradient.abs().sum() > 0


def test_sean_image_follows_the_exchanged_style() -> None:
    """Shape stays, colour of the class moves: exchanging one class's code changes pixels, mostly inside its region."""
    generator = small_generator("sean", size=(32, 32)).eval()
    labels = torch.zeros(1, 32, 32, dtype=torch.int64)
    labels[:, 8:24, 8:24] = 1
    mask, style = one_hot(labels, 3 + 2), torch.randn(1, 5, 8)
    changed = style.clone()
    changed[:, 1] += 1
    moved = (generator.synthesize(mask, changed).image - generator.synthesize(mask, style).image).abs().mean(1)[0]
    assert moved[labels[0] == 1].mean() > 2 * moved[labels[0] == 0].mean() > 0
    changed = style.clone()
    changed[:, 4] += 1  # absent
    assert torch.equal(generator.synthesize(mask, changed).image, generator.synthesize(mask, style).image)


def test_painter_paints_means_and_mid_grey() -> None:
    generator = small_generator("painter", num_classes=3, size=(2, 4))
    image = torch.rand(1, 3, 2, 4) * 2 - 1
    mask = one_hot(torch.tensor([[[0, 0, 1, 1], [0, 0, 1, 1]]]), 3)
    style = generator.encode_style(image, mask)
    torch.testing.assert_close(style[0, 0], image[0, :, :, :2].mean((1, 2)))
    painted = generator.synthesize(mask, style).image
    torch.testing.assert_close(painted[0, :, 0, 3], image[0, :, :, 2:].mean((1, 2)))
    other = one_hot(torch.full((1, 2, 4), 2), 3)
    assert generator.synthesize(other, style).image.abs().max() == 0
    assert not list(generator.parameters())


@pytest.mark.parametrize("name", LEARNED)
@torch.no_grad()
def test_bf16_autocast_gives_nearly_the_same_image(name: str) -> None:
    """Stated tolerance: 0.06 anywhere, 0.012 on average, of the image range 2 (bf16 keeps 8 bits)."""
    generator = small_generator(name).eval()
    image, mask = random_inputs()
    exact = generator.synthesize(mask, generator.encode_style(image, mask)).image
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = generator.synthesize(mask, generator.encode_style(image, mask)).image
    difference = (exact - rough.float()).abs()
    assert difference.max() < 0.06
    assert difference.mean() < 0.012


def test_spectral_norm_bounds_the_largest_singular_value() -> None:
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(4, 8, 3)
    exact = torch.linalg.matrix_norm(conv.weight.detach().flatten(1), 2)
    apply_spectral_norm([conv])
    for _ in range(30):
        conv(torch.zeros(1, 4, 4, 4))
    conv.eval()
    assert torch.linalg.matrix_norm(conv.weight.detach().flatten(1), 2).item() == pytest.approx(1, abs=1e-3)
    assert abs(exact - 1) > 0.05, "the test would not notice a missing division otherwise"


@pytest.mark.parametrize("name", ["spade", "spade_vae", pytest.param("sean", marks=pytest.mark.slow)])
@torch.no_grad()
def test_compiled_graph_gives_the_same_image(name: str) -> None:
    """The whole of `synthesize` is one traceable graph (no breaks), and gives the same image within 1e-5."""
    generator = small_generator(name).eval()
    image, mask = random_inputs()
    style = generator.encode_style(image, mask)
    compiled = torch.compile(generator.synthesize, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(mask, style).image, generator.synthesize(mask, style).image, rtol=0, atol=1e-5)


@pytest.mark.slow
@torch.no_grad()
def test_inductor_gives_the_same_image() -> None:
    generator = small_generator("spade").eval()
    _, mask = random_inputs()
    style = torch.zeros(2, 0)
    compiled = torch.compile(generator.synthesize)
    torch.testing.assert_close(compiled(mask, style).image, generator.synthesize(mask, style).image, rtol=0, atol=1e-5)
