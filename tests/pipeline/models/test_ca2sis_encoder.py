"""The style encoder: which codes a class's features reach under every grouping, pooling in closed form, widths and
refusals."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.errors import UserError
from pipeline.models.kernels import naive_kernels, plain_kernels
from pipeline.models.style_encoder import StyleEncoder, build_style_encoder, group_slices, region_mean
from tests.pipeline.models.ca2sis_cases import inputs, small

K = 6


def encoder(seed: int = 0, **section: Any) -> StyleEncoder:
    torch.manual_seed(seed)
    values = {"width": 4, "depth": 4, "pooled_strides": [8, 4, 2], **section}
    return build_style_encoder(small(encoder=values).encoder, K).eval()


def moved_classes(network: StyleEncoder, stage: str, group: int) -> list[set[int]]:
    """Per level, the classes whose codes change when feature group `group` behind `stage` is perturbed."""
    image, _ = inputs(K, (32, 32))
    mask = torch.full((2, K, 32, 32), 1.0)  # every class everywhere: no pixel is out of reach

    def perturb(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
        changed = output.clone().unflatten(1, (network.groups, -1))
        noise = torch.randn(changed[:, group].shape, generator=torch.Generator().manual_seed(3))
        changed[:, group] += noise
        return changed.flatten(1, 2)

    with torch.no_grad():
        before = network.level_codes(network.first(image), mask)
        module = network.get_submodule(stage)
        handle = module.register_forward_hook(perturb)
        after = network.level_codes(network.first(image), mask)
        handle.remove()
    return [{k for k in range(K) if not torch.equal(a[:, k], b[:, k])} for a, b in zip(before, after, strict=True)]


@pytest.mark.parametrize("group", range(K))
@pytest.mark.parametrize("stage", ["first", "down.1", "down.3"])
def test_class_grouping_keeps_classes_apart(stage: str, group: int) -> None:
    assert moved_classes(encoder(grouping="class"), stage, group) == [{group}] * 3


def test_release_grouping_drifts_as_measured_in_the_release() -> None:
    """From the deepest layer, group g reaches class g at the first level and floor(g / 2) at every further one."""
    network = encoder(grouping="release")
    for group in range(K):
        assert moved_classes(network, "down.3", group) == [{group}, {group // 2}, {group // 4}]


def test_release_grouping_of_19_classes() -> None:
    """The measured chain of the release: group 5 of the deepest layer moves classes 5, 2, 1, 0, 0."""
    torch.manual_seed(0)
    section = small(
        encoder={"grouping": "release", "width": 1, "depth": 6, "pooled_strides": [32, 16, 8, 4, 2]}
    ).encoder
    network = build_style_encoder(section, 19).eval()
    image = torch.rand(1, 3, 64, 64) * 2 - 1
    mask = torch.ones(1, 19, 64, 64)
    with torch.no_grad():
        before = network.level_codes(network.first(image), mask)

        def perturb(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
            changed = output.clone().unflatten(1, (19, -1))
            changed[:, 5] += 1.0 + torch.rand(changed[:, 5].shape)
            return changed.flatten(1, 2)

        handle = network.down[5].register_forward_hook(perturb)
        after = network.level_codes(network.first(image), mask)
        handle.remove()
    moved = [(a != b).flatten(2).any(dim=2)[0].nonzero().flatten().tolist() for a, b in zip(before, after, strict=True)]
    assert moved == [[5], [2], [1], [0], [0]]


def test_release_skips_reach_the_upper_groups() -> None:
    """Skip features are stacked behind: a skip's group g lands in class (K + g) // 2 of the next level."""
    network = encoder(grouping="release")
    image, _ = inputs(K, (32, 32))
    with torch.no_grad():
        skip = network.down[1](network.down[0](network.first(image)))  # of the last level, at stride 4
        stack = torch.cat([skip, skip], dim=1)
        changed = stack.clone().unflatten(1, (2 * K, -1))
        changed[:, K + 3] += torch.rand(changed[:, K + 3].shape)
        layer = network.up[2]
        delta = (layer(stack) != layer(changed.flatten(1, 2))).unflatten(1, (K, -1)).flatten(2).any(dim=2)
    assert delta[0].nonzero().flatten().tolist() == [(K + 3) // 2]


@pytest.mark.parametrize("grouping", ["shared", "shared_matched", 1])
def test_shared_features_reach_every_class(grouping: Any) -> None:
    assert moved_classes(encoder(grouping=grouping), "down.3", 0) == [set(range(K))] * 3


@pytest.mark.parametrize(("groups", "members"), [(2, [0, 1, 2]), (3, [0, 1]), (4, [0, 1])])
def test_integer_groups_hold_neighbouring_classes(groups: int, members: list[int]) -> None:
    network = encoder(grouping=groups)
    for group, own in enumerate(group_slices(K, groups)):
        assert moved_classes(network, "down.2", group) == [set(range(K)[own])] * 3
    assert list(range(K)[group_slices(K, groups)[0]]) == members


@given(classes=st.integers(2, 200), data=st.data())
def test_group_slices_partition_the_classes(classes: int, data: st.DataObject) -> None:
    groups = data.draw(st.integers(1, classes))
    slices = group_slices(classes, groups)
    assert [k for own in slices for k in range(classes)[own]] == list(range(classes))
    for group, own in enumerate(slices):
        assert all(k * groups // classes == group for k in range(classes)[own])
        assert own.stop > own.start


def test_as_many_groups_as_classes_is_class_grouping() -> None:
    one, other = encoder(grouping="class"), encoder(grouping=K)
    other.load_state_dict(one.state_dict())
    image, mask = inputs(K, (32, 32))
    assert torch.equal(one(image, mask), other(image, mask))


def test_class_and_release_differ_in_order_alone() -> None:
    one, other = encoder(grouping="class"), encoder(grouping="release")
    assert [p.shape for p in one.parameters()] == [p.shape for p in other.parameters()]
    image, mask = inputs(K, (32, 32))
    level = small().encoder.style_dim
    with torch.no_grad():
        a, b = one(image, mask), other(image, mask)
    assert torch.equal(a[..., :level], b[..., :level])  # no skip enters the first level
    assert not torch.allclose(a[..., level:], b[..., level:])


@pytest.mark.parametrize(("classes", "width"), [(2, 4), (19, 4), (19, 1), (151, 2)])
def test_matched_width_is_the_closest(classes: int, width: int) -> None:
    section = small(
        encoder={"grouping": "shared_matched", "width": width, "depth": 4, "pooled_strides": [8, 4, 2]}
    ).encoder
    matched = build_style_encoder(section, classes)
    grouped = build_style_encoder(section.model_copy(update={"grouping": "class"}), classes)
    target = sum(p.numel() for p in grouped.parameters())
    channels = matched.first[0].out_channels

    def count(total: int) -> int:
        arguments = {"groups": 1, "interleave": True, "depth": 4, "pooled_strides": (8, 4, 2), "style_dim": 8}
        return sum(
            p.numel()
            for p in StyleEncoder(
                classes, channels=total, pooling="masked", codes_per_class=1, **arguments
            ).parameters()
        )

    own = count(channels)
    assert matched.parameter_ratio == pytest.approx(own / target)
    assert abs(own - target) <= min(abs(count(channels + 1) - target), abs(count(max(channels - 1, 1)) - target))


def test_matched_ratio_of_the_release_is_within_one_per_cent() -> None:
    from tests.pipeline.models.ca2sis_cases import RELEASE

    values = {**RELEASE["encoder"], "grouping": "shared_matched"}
    with torch.device("meta"):
        network = build_style_encoder(small(encoder=values).encoder, 19)
    assert network.parameter_ratio == pytest.approx(1.0083, abs=5e-5)


def test_region_mean_in_closed_form() -> None:
    features = torch.arange(2 * 4, dtype=torch.float32).reshape(1, 4, 1, 2)  # two groups of two channels, two pixels
    mask = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])
    pooled = region_mean(features, mask, groups=2)
    np.testing.assert_allclose(pooled[0], np.array([[0.0, 2.0], [5.0, 7.0]]) / (1 + 1e-5), rtol=1e-6)


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_region_mean_agrees_with_its_loop(groups: int) -> None:
    _, mask = inputs(K, (8, 12))
    features = torch.randn(2, 12, 8, 12, requires_grad=True)
    found = {}
    for form in (naive_kernels, plain_kernels, contextlib.nullcontext):
        with form():
            pooled = region_mean(features, mask, groups)
        weights = torch.linspace(-1, 1, pooled.numel()).view_as(pooled)
        found[form] = (pooled.detach(), *torch.autograd.grad((pooled * weights).sum(), features))
    for form in (plain_kernels, contextlib.nullcontext):
        torch.testing.assert_close(found[form], found[naive_kernels], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("grouping", ["release", "class", "shared", "shared_matched", 2, 4])
def test_encoder_agrees_with_its_loops(grouping: Any) -> None:
    network = encoder(grouping=grouping)
    image, mask = inputs(K, (32, 48))
    with torch.no_grad(), naive_kernels():
        expected = network(image, mask)
    with torch.no_grad():
        torch.testing.assert_close(network(image, mask), expected, rtol=1e-5, atol=1e-6)


def test_absent_class_gets_the_tanh_of_its_bias() -> None:
    network = encoder(grouping="release")
    image, mask = inputs(K, (32, 32))
    mask[:, 0] += mask[:, 4]
    mask[:, 4] = 0
    codes = network(image, mask)
    biases = torch.cat([network.codes[str(stride)].bias[4] for stride in (8, 4, 2)])
    torch.testing.assert_close(codes[:, 4], biases.tanh().expand(2, -1))
    assert not torch.allclose(codes[0, 0], codes[1, 0])


def test_global_pooling_ignores_the_mask() -> None:
    image, mask = inputs(K, (32, 32))
    pooled, masked = encoder(pooling="global"), encoder(pooling="masked")
    assert torch.equal(pooled(image, mask), pooled(image, mask.roll(1, dims=1)))
    assert not torch.equal(masked(image, mask), masked(image, mask.roll(1, dims=1)))


def test_pooled_strides_choose_levels_and_spare_unused_ones() -> None:
    full, coarse, fine = encoder(), encoder(pooled_strides=[8]), encoder(pooled_strides=[2])
    assert (len(full.up), len(coarse.up), len(fine.up)) == (3, 1, 3)
    assert [network.code_width for network in (full, coarse, fine)] == [24, 8, 8]
    assert len(encoder(pooled_strides=[8, 4, 2, 1]).up) == 4


@settings(max_examples=15)
@given(height=st.integers(1, 40), width=st.integers(1, 40))
def test_any_image_size(height: int, width: int) -> None:
    image, mask = inputs(K, (height, width))
    codes = encoder()(image, mask)
    assert codes.shape == (2, K, 24) and bool(torch.isfinite(codes).all())


@pytest.mark.parametrize("groups", [5, 8, 100])
def test_impossible_group_counts_are_refused(groups: int) -> None:
    """5 does not divide the 24 channels; 8 and 100 exceed the 6 classes."""
    with pytest.raises(UserError, match=rf"model\.encoder\.grouping={groups}"):
        encoder(grouping=groups)
