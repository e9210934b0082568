"""The SPADE layer and the SEAN block: closed forms, the literal loops as oracle, and every norm."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.models.conditioning import SeanNorm, SpadeNorm, StyleModulation, resize_nearest
from pipeline.models.kernels import is_naive, naive_kernels
from pipeline.models.norms import NormKind, instance_norm, param_free_norm
from tests.pipeline.models.small_models import one_hot, random_inputs


def test_spade_norm_is_the_papers_formula() -> None:
    torch.manual_seed(0)
    layer = SpadeNorm(6, 5, hidden=8, norm="instance").eval()
    x, (_, mask) = torch.randn(2, 6, 8, 8), random_inputs()
    gamma, beta = layer.modulation(mask, (8, 8))
    mean, variance = x.mean((2, 3), keepdim=True), x.var((2, 3), keepdim=True, correction=0)
    expected = (x - mean) / (variance + 1e-5).sqrt() * (1 + gamma) + beta
    torch.testing.assert_close(layer(x, mask), expected, rtol=1e-5, atol=1e-5)


def test_modulation_of_one_class_is_constant_away_from_its_border() -> None:
    layer = SpadeNorm(3, 4, hidden=8)
    gamma, _ = layer.modulation(one_hot(torch.full((1, 12, 12), 2), 4), (12, 12))
    inner = gamma[:, :, 2:-2, 2:-2]
    torch.testing.assert_close(inner, inner[:, :, :1, :1].expand_as(inner))
    assert (gamma[:, :, 0, 0] - inner[:, :, 0, 0]).abs().max() > 1e-4, "zero padding shows at the border"


def test_extra_channels_enter_and_are_required() -> None:
    layer = SpadeNorm(3, 4, hidden=8, extra_channels=2)
    x, (_, mask) = torch.randn(2, 3, 8, 8), random_inputs(4)
    first, second = (layer(x, mask, torch.full((2, 2, 4, 4), value)) for value in (0.0, 1.0))
    assert (first - second).abs().max() > 1e-3
    with pytest.raises(ValueError, match="2 extra channels"):
        layer(x, mask)
    with pytest.raises(ValueError, match="0 extra channels"):
        SpadeNorm(3, 4)(x, mask, torch.zeros(2, 2, 4, 4))


@given(
    num_classes=st.integers(2, 12),
    style_dim=st.sampled_from([1, 3, 64]),
    side=st.sampled_from([1, 2, 7, 16]),
    seed=st.integers(0, 99),
)
@settings(max_examples=25)
def test_style_branch_equals_its_loops(num_classes: int, style_dim: int, side: int, seed: int) -> None:
    """Both vectorised forms (folded weights at large sizes, broadcast at small ones), with pixels of no class."""
    torch.manual_seed(seed)
    layer = StyleModulation(4, num_classes, style_dim)
    _, mask = random_inputs(num_classes, (2 * side, 2 * side), seed=seed)
    if side > 1:
        mask[:, :, :2] = 0  # two rows of unknown pixels
    style = torch.randn(2, num_classes, style_dim, requires_grad=True)

    def run() -> tuple[torch.Tensor, ...]:
        gamma, beta = layer(mask, style, (side, side))
        loss = (gamma.square() + beta.sin()).sum()
        return gamma, beta, *torch.autograd.grad(loss, [style, layer.class_weight, layer.gamma.weight])

    fast = run()
    with naive_kernels():
        assert is_naive()
        literal = run()
    assert not is_naive()
    for left, right in zip(fast, literal, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=2e-4)


def test_style_of_a_class_reaches_its_region_and_one_pixel_more() -> None:
    torch.manual_seed(0)
    labels = torch.zeros(1, 8, 8, dtype=torch.int64)
    labels[:, 2:6, 2:6] = 1
    layer, mask, style = SeanNorm(3, 3, 4, norm="instance").eval(), one_hot(labels, 3), torch.randn(1, 3, 4)
    x, changed = torch.randn(1, 3, 8, 8), style.clone()
    changed[:, 1] += 1
    moved = (layer(x, mask, changed) - layer(x, mask, style)).abs().amax(1)[0] > 1e-6
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[1:7, 1:7] = True
    assert torch.equal(moved, expected)
    changed = style.clone()
    changed[:, 2] += 1  # class 2 is absent
    assert torch.equal(layer(x, mask, changed), layer(x, mask, style))


def test_blending_goes_from_mask_branch_to_style_branch() -> None:
    torch.manual_seed(0)
    layer = SeanNorm(3, 4, 5, norm="instance").eval()
    x, (_, mask), style = torch.randn(2, 3, 8, 8), random_inputs(4), torch.randn(2, 4, 5)
    assert layer.style_modulation is not None
    for logit, branch in ((-40.0, layer.modulation(mask, (8, 8))), (40.0, layer.style_modulation(mask, style, (8, 8)))):
        torch.nn.init.constant_(layer.blend_gamma, logit)
        torch.nn.init.constant_(layer.blend_beta, logit)
        expected = layer.norm(x) * (1 + branch[0]) + branch[1]
        torch.testing.assert_close(layer(x, mask, style), expected)


def test_noise_is_added_when_it_should_be() -> None:
    x, (_, mask), style = torch.randn(2, 3, 8, 8), random_inputs(4), torch.randn(2, 4, 5)
    varies: dict[tuple[str, bool], bool] = {}
    for noise in ("always", "train", "off"):
        layer = SeanNorm(3, 4, 5, noise=noise, norm="instance")
        if noise != "off":
            torch.nn.init.ones_(layer.noise_scale)
        for training in (True, False):
            layer.train(training)
            varies[noise, training] = not torch.equal(layer(x, mask, style), layer(x, mask, style))
    assert varies == {
        ("always", True): True,
        ("always", False): True,
        ("train", True): True,
        ("train", False): False,
        ("off", True): False,
        ("off", False): False,
    }
    fresh = SeanNorm(3, 4, 5, norm="instance")
    assert torch.equal(fresh(x, mask, style), fresh(x, mask, style)), "strength starts at 0"


@pytest.mark.parametrize("kind", get_args(NormKind))
def test_norms_normalise_what_they_say(kind: NormKind) -> None:
    axes = {"batch": (0, 2, 3), "sync_batch": (0, 2, 3), "instance": (2, 3), "group": (2, 3), "layer": (1, 2, 3)}[kind]
    channels = 6 if kind != "group" else 64  # 32 groups of two channels
    x = torch.randn(4, channels, 8, 8) * 3 + torch.arange(channels).view(1, -1, 1, 1)
    out = param_free_norm(kind, channels)(x)
    if kind == "group":
        out, axes = out.view(4, 32, 2, 8, 8), (2, 3, 4)
    torch.testing.assert_close(out.mean(axes), torch.zeros_like(out.mean(axes)), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.var(axes, correction=0), torch.ones_like(out.var(axes)), atol=1e-3, rtol=0)
    assert not list(param_free_norm(kind, channels).parameters())


def test_group_count_divides_any_width() -> None:
    assert param_free_norm("group", 7)(torch.randn(2, 7, 4, 4)).shape == (2, 7, 4, 4)


def test_nearest_resize_stays_one_hot_and_takes_even_pixels() -> None:
    _, mask = random_inputs(5, (16, 16))
    small = resize_nearest(mask, (8, 8))
    assert torch.equal(small, mask[:, :, ::2, ::2])
    assert resize_nearest(mask, (16, 16)) is mask


@given(st.integers(1, 24), st.integers(1, 24), st.integers(1, 24), st.integers(1, 24))
@settings(max_examples=60)
def test_nearest_resize_is_torchs(height: int, width: int, to_height: int, to_width: int) -> None:
    x = torch.rand(1, 2, height, width)
    found = resize_nearest(x, (to_height, to_width))
    assert torch.equal(found, F.interpolate(x, size=(to_height, to_width), mode="nearest"))
    assert found.is_contiguous()


def test_instance_norm_is_torchs() -> None:
    torch.manual_seed(3)
    x = torch.randn(3, 5, 4, 6, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(3, 5, 4, 6, dtype=torch.float64)
    mine, theirs = instance_norm(x), F.instance_norm(x)
    torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
    (one,) = torch.autograd.grad((mine * weights).sum(), x)
    (other,) = torch.autograd.grad((theirs * weights).sum(), x)
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
