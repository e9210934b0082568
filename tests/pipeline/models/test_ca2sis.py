"""The (CA)²-SIS generator: every switch changes the computation, sound at any size and class count, exact in its
promises."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from pipeline.errors import UserError
from pipeline.models.attention import Attention
from pipeline.models.blocks import GatedFeedForward, ResidualBlock
from pipeline.models.ca2sis import build
from pipeline.models.kernels import naive_kernels
from pipeline.schema.model_ca2sis import Ca2sisModel
from tests.pipeline.models.ca2sis_cases import CONF, RELEASE, inputs, make, merged, one_hot, small

SWITCHES: dict[str, dict[str, Any]] = {
    "spade": {"conditioning": "spade"},
    "spade by mask alone": {"conditioning": "spade", "modulation": {"hidden": 8, "style_channels": 0}},
    "sean": {"conditioning": "sean"},
    "clade": {"conditioning": "clade"},
    "clade by mask alone": {"conditioning": "clade", "modulation": {"hidden": 8, "style_channels": 0}},
    "no conditioning": {"conditioning": "none"},
    "conditioning per stage": {"conditioning": ["cross_attention", "spade", "sean"]},
    "modulation norm": {"conditioning": "spade", "modulation": {"hidden": 8, "style_channels": 4, "norm": "instance"}},
    "class grouping": {"encoder": {"grouping": "class"}},
    "shared": {"encoder": {"grouping": "shared"}},
    "shared, matched": {"encoder": {"grouping": "shared_matched"}},
    "two groups": {"encoder": {"grouping": 2, "width": 2}},
    "one resolution": {"encoder": {"pooled_strides": [4]}},
    "feature width": {"encoder": {"width": 3}},
    "encoder depth": {"encoder": {"depth": 4}},
    "style dimension": {"encoder": {"style_dim": 5}},
    "global pooling": {"encoder": {"pooling": "global"}},
    "conv embedder": {"mask_embedder": {"kind": "conv"}},
    "no embedder": {"mask_embedder": {"kind": "none"}},
    "embedder reduction": {"mask_embedder": {"reduction": 4}},
    "background embedded": {"exclude_background": False},
    "no self-attention": {"attention": {"self_attention": []}},
    "self-attention everywhere": {"attention": {"self_attention": [0, 1, 2]}},
    "heads": {"attention": {"heads": 1}},
    "head width": {"attention": {"head_width": 4}},
    "last heads": {"attention": {"last_heads": 1}},
    "last head width": {"attention": {"last_head_width": 8}},
    "feed-forward": {"feed_forward": 2},
    "layers": {"depth": 2},
    "stages": {"stages": 2},
    "base width": {"base_width": 8},
}


def attend(generator: Any, image: Tensor, mask: Tensor) -> Tensor:
    with torch.no_grad():
        result: Tensor = generator(image, mask, attention=True).synthesis.image
    return result


@pytest.mark.parametrize("name", SWITCHES)
def test_every_switch_changes_the_computation(name: str) -> None:
    classes = 6
    image, mask = inputs(classes)
    reference = make(classes)
    changed = make(classes, **SWITCHES[name])
    shared = {key: value for key, value in reference.state_dict().items() if key in changed.state_dict()}
    fitting = {key: value for key, value in shared.items() if value.shape == changed.state_dict()[key].shape}
    changed.load_state_dict(fitting, strict=False)  # equal weights wherever both have them: only the switch differs
    one, other = attend(reference, image, mask), attend(changed, image, mask)
    assert other.shape == one.shape and bool(torch.isfinite(other).all())
    assert (one - other).abs().max() > 1e-4


def test_mapping_adds_a_network_and_a_capability() -> None:
    plain, mapped = make(), make(mapping={"enabled": True})
    assert not plain.capabilities.sampling and plain.capabilities.noise_width == 0
    assert mapped.capabilities.sampling and mapped.capabilities.noise_width == 6
    with pytest.raises(UserError, match=r"model\.mapping\.enabled"):
        plain.sample_style(inputs()[1], torch.zeros(2, 6))


def test_mapping_zeroes_absent_classes_and_agrees_with_its_loop() -> None:
    generator = make(mapping={"enabled": True})
    _, mask = inputs()
    mask[:, 0] += mask[:, 3]
    mask[:, 3] = 0
    noise = torch.randn(2, 6)
    with torch.no_grad():
        style = generator.sample_style(mask, noise)
        with naive_kernels():
            expected = generator.sample_style(mask, noise)
    torch.testing.assert_close(style, expected, rtol=1e-5, atol=1e-6)
    assert bool((style[:, 3] == 0).all()) and bool((style[:, :3].abs().amax(dim=2) > 0).all())
    assert not torch.allclose(style[0], style[1])


@pytest.mark.parametrize("conditioning", ["cross_attention", "spade", "sean", "clade"])
def test_style_reaches_the_image_under_every_conditioning(conditioning: str) -> None:
    generator = make(conditioning=conditioning)
    image, mask = inputs()
    with torch.no_grad():
        style = generator.encode_style(image, mask)
        one, other = generator.synthesize(mask, style).image, generator.synthesize(mask, style.flip(0)).image
    assert (one - other).abs().max() > 1e-3


@pytest.mark.parametrize(
    "overrides", [{"conditioning": "none"}, {"conditioning": "spade", "modulation": {"style_channels": 0}}]
)
def test_style_has_no_other_route(overrides: dict[str, Any]) -> None:
    generator = make(**overrides)
    image, mask = inputs()
    with torch.no_grad():
        style = generator.encode_style(image, mask)
        one, other = generator.synthesize(mask, style).image, generator.synthesize(mask, style.flip(0)).image
    assert torch.equal(one, other)
    assert generator.capabilities.attention is False


@pytest.mark.parametrize("kind", ["linear", "conv", "none"])
def test_shape_enters_through_the_embedding_alone(kind: str) -> None:
    """With cross-attention, the embedding decides the layout: an interpolated one gives an image between."""
    generator = make(mask_embedder={"kind": kind})
    image, mask = inputs()
    with torch.no_grad():
        style = generator.encode_style(image, mask)
        shape = generator.embed_shape(mask)
        assert shape.shape == (2, 4, 4 * 6)
        swapped = generator.synthesize_embedded(mask, shape.flip(0), style).image
        assert torch.equal(swapped, generator.synthesize(mask.flip(0), style).image)
        middle = generator.synthesize_embedded(mask, (shape + shape.flip(0)) / 2, style).image
    assert not torch.allclose(middle, swapped, atol=1e-4)


def test_background_has_no_embedding_unless_asked_for() -> None:
    _, mask = inputs()
    assert make().embed_shape(mask).shape[1] == 4
    assert make(exclude_background=False).embed_shape(mask).shape[1] == 5


def test_linear_embedding_in_closed_form() -> None:
    generator = make()
    _, mask = inputs()
    layer = generator.embedder.embed
    expected = mask[:, 1:, ::2, ::2].flatten(2) @ layer.weight.T + layer.bias
    torch.testing.assert_close(generator.embed_shape(mask), expected)


@pytest.mark.parametrize("conditioning", ["cross_attention", ["cross_attention", "sean", "cross_attention"]])
def test_logits_are_free_of_side_effects_and_absent_when_off(
    conditioning: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = make(conditioning=conditioning, depth=2)
    image, mask = inputs()
    with torch.no_grad():
        style = generator.encode_style(image, mask)
        on = generator.synthesize(mask, style, attention=True)

        def forbidden(*_args: object) -> Tensor:
            raise AssertionError("logits were computed")

        monkeypatch.setattr(Attention, "_mean_logits", forbidden)
        off = generator.synthesize(mask, style, attention=False)
    assert torch.equal(on.image, off.image)
    assert off.attention == []
    sizes = [(4, 6), (8, 12), (16, 24)] if conditioning == "cross_attention" else [(4, 6), (16, 24)]
    assert [tuple(scores.shape) for scores in on.attention] == [(2, 5, *size) for size in sizes for _ in range(2)]


@pytest.mark.parametrize("conditioning", ["cross_attention", "spade", "sean", "clade"])
def test_loops_give_the_same_image_logits_and_gradients(conditioning: str) -> None:
    generator = make(conditioning=conditioning)
    image, mask = inputs()
    results = []
    for naive in (False, True):
        generator.zero_grad()
        if naive:
            with naive_kernels():
                done = generator(image, mask, attention=True)
                (
                    done.synthesis.image.square().mean() + sum(a.square().mean() for a in done.synthesis.attention)
                ).backward()
        else:
            done = generator(image, mask, attention=True)
            (done.synthesis.image.square().mean() + sum(a.square().mean() for a in done.synthesis.attention)).backward()
        gradients = {name: p.grad.clone() for name, p in generator.named_parameters() if p.grad is not None}
        results.append((done.synthesis.image.detach(), [a.detach() for a in done.synthesis.attention], gradients))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=0, atol=1e-5)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=0, atol=1e-5)
    assert results[0][2].keys() == results[1][2].keys()
    for name, gradient in results[0][2].items():
        torch.testing.assert_close(
            gradient, results[1][2][name], rtol=1e-3, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}"
        )


def test_checkpointing_changes_nothing_but_memory() -> None:
    image, mask = inputs()
    gradients = []
    for checkpointing in (False, True):
        generator = make(checkpointing=checkpointing).train()
        done = generator(image, mask, attention=True)
        (done.synthesis.image.square().mean() + done.synthesis.attention[0].mean()).backward()
        gradients.append([p.grad for p in generator.parameters() if p.grad is not None])
    assert len(gradients[0]) > 50
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)


def test_every_parameter_is_trained() -> None:
    """Under every conditioning no parameter is dead: each gets a gradient from image and logits."""
    image, mask = inputs()
    for conditioning in ("cross_attention", "spade", "sean", "clade", "none"):
        generator = make(conditioning=conditioning).train()
        done = generator(image, mask, attention=True)
        (done.synthesis.image.square().mean() + sum(a.square().mean() for a in done.synthesis.attention)).backward()
        dead = {name for name, p in generator.named_parameters() if p.grad is None}
        expected = (
            {n for n, _ in generator.named_parameters() if n.startswith("encoder.")}
            if conditioning == "none"
            else set()
        )
        assert dead == expected, conditioning


@settings(max_examples=25)
@example(200, 2, 1, "cross_attention", "linear", "release", False, True)
@example(200, 1, 2, "sean", "conv", "class", True, False)
@example(2, 1, 1, "spade", "none", "shared", True, True)
@given(
    classes=st.sampled_from([2, 3, 7]),
    rows=st.integers(1, 6),
    columns=st.integers(1, 6),
    conditioning=st.sampled_from(["cross_attention", "spade", "sean", "clade", "none"]),
    kind=st.sampled_from(["linear", "conv", "none"]),
    grouping=st.sampled_from(["release", "class", "shared", "shared_matched", 2]),
    background=st.booleans(),
    training=st.booleans(),
)
def test_sound_at_any_size_and_class_count(
    classes: int, rows: int, columns: int, conditioning: str, kind: str, grouping: Any, background: bool, training: bool
) -> None:
    """Batch 1, absent classes, all-background masks: finite images and gradients, in range."""
    size = (4 * rows, 4 * columns)
    generator = make(
        classes,
        size,
        conditioning=conditioning,
        mask_embedder={"kind": kind},
        encoder={"grouping": grouping, "width": 2},
    ).train(training)
    image = torch.rand(1, 3, *size) * 2 - 1
    labels = torch.zeros(1, *size, dtype=torch.int64) if background else torch.randint(0, min(classes, 3), (1, *size))
    done = generator(image, one_hot(labels, classes), attention=True)
    assert done.synthesis.image.shape == (1, 3, *size) and done.style.shape == (1, classes, 16)
    assert done.synthesis.image.abs().max() <= 1
    total = done.synthesis.image.sum() + sum(a.sum() for a in done.synthesis.attention)
    total.backward()
    assert bool(torch.isfinite(total))
    assert all(bool(torch.isfinite(p.grad).all()) for p in generator.parameters() if p.grad is not None)


def test_bf16_autocast_is_close_and_returns_float32() -> None:
    generator = make()
    image, mask = inputs()
    exact = attend(generator, image, mask)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        done = generator(image, mask, attention=True)
    assert done.synthesis.image.dtype == done.style.dtype == torch.float32
    assert {scores.dtype for scores in done.synthesis.attention} == {torch.float32}
    difference = (done.synthesis.image - exact).abs()
    assert difference.max() < 0.1 and difference.mean() < 0.01
    assert difference.max() > 0  # autocast was on


@pytest.mark.slow
def test_compiled_network_gives_the_same_image() -> None:
    generator = make(stages=2, attention={"self_attention": [0]}, encoder={"depth": 2, "pooled_strides": [2]})
    image, mask = inputs()
    exact = attend(generator, image, mask)
    compiled = torch.compile(generator, fullgraph=True)
    torch.testing.assert_close(attend(compiled, image, mask), exact, rtol=0, atol=1e-5)


def test_released_init_starts_as_residual_blocks() -> None:
    """The transformer blocks' output projection starts at zero: at step 0 they pass their input on."""
    generator = build(small(), 5, (16, 24))
    x = torch.randn(2, 8, 4, 6)
    image, mask = inputs()
    style = generator.encode_style(image, mask)
    out, _ = generator.stages[0].transformer(x, style, mask, attention=False)
    assert torch.equal(out, x)


def test_gated_feed_forward_in_closed_form() -> None:
    layer = GatedFeedForward(1, 1)
    for parameter, value in zip(layer.parameters(), ([[2.0], [3.0]], [0.0, 0.0], [[5.0]], [1.0]), strict=True):
        parameter.data = torch.tensor(value)
    x = 0.5
    gate = 3 * x * 0.5 * (1 + torch.erf(torch.tensor(3 * x / 2**0.5)))
    torch.testing.assert_close(layer(torch.tensor([[[x]]])).item(), (5 * 2 * x * gate + 1).item())


def test_residual_block_without_convolutions_is_its_input_upsampled() -> None:
    block = ResidualBlock(4, 4, upsample=True)
    torch.nn.init.zeros_(block.conv2.weight)
    torch.nn.init.zeros_(block.conv2.bias)
    x = torch.randn(1, 4, 3, 2)
    assert torch.equal(block(x), x.repeat_interleave(2, 2).repeat_interleave(2, 3))


@pytest.mark.parametrize("size", [(16, 18), (18, 16), (2, 16), (0, 16)])
def test_indivisible_sizes_are_refused_with_size_and_stride(size: tuple[int, int]) -> None:
    with pytest.raises(UserError, match=rf"{size[0]}x{size[1]}.*divisible by 4.*stages=3"):
        build(small(), 5, size)


def test_another_size_than_built_for_is_refused() -> None:
    generator = make()
    image, mask = inputs(5, (16, 16))
    with pytest.raises(UserError, match=r"\(N, 5, 16, 24\)"):
        generator.encode_style(image, mask)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"conditioning": ["spade", "sean"]}, "conditioning names 2 stages; allowed: one value, or 3"),
        ({"conditioning": "film"}, "conditioning"),
        ({"attention": {"self_attention": [3]}}, "allowed: ascending stage indices 0 to 2"),
        ({"attention": {"self_attention": [1, 0]}}, "ascending"),
        ({"mask_embedder": {"reduction": 3}}, "powers of two"),
        ({"mask_embedder": {"reduction": 8}}, "at most 4"),
        ({"encoder": {"pooled_strides": [2, 4]}}, "descending"),
        ({"encoder": {"pooled_strides": [8]}}, "allowed at depth 3"),
        ({"encoder": {"pooled_strides": []}}, "pooled_strides"),
        ({"encoder": {"grouping": 0}}, "grouping"),
        ({"encoder": {"grouping": True}}, "grouping"),
        ({"conditioning": "sean", "modulation": {"style_channels": 0}}, "style_channels"),
        ({"modulation": {"norm": "sync_batch"}}, "norm"),
        ({"depth": 1.0}, "depth"),
        ({"heads": 8}, "heads"),
    ],
)
def test_wrong_values_are_refused(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        small(**overrides)


def test_equal_stages_are_one_value() -> None:
    assert small(conditioning=["sean"] * 3) == small(conditioning="sean")
    assert small(conditioning=["sean"] * 3).stage_conditioning == ("sean",) * 3


@pytest.mark.parametrize(
    ("preset", "size", "parameters"), [("tiny", 32, 1_272_507), ("small", 64, 5_734_331), ("medium", 128, 24_571_451)]
)
def test_recipes_are_complete_rows(preset: str, size: int, parameters: int) -> None:
    row = yaml.safe_load((CONF / "recipe" / "ca2sis" / f"{preset}.yaml").read_text(encoding="utf-8"))["model"]
    cfg = Ca2sisModel.model_validate(merged(row))
    with torch.device("meta"):
        generator = build(cfg, 19, (size, size))
    assert sum(p.numel() for p in generator.parameters()) == parameters


def test_paper_recipe_is_the_released_network() -> None:
    row = yaml.safe_load((CONF / "recipe" / "ca2sis" / "paper.yaml").read_text(encoding="utf-8"))["model"]
    assert Ca2sisModel.model_validate(merged(row)) == Ca2sisModel.model_validate(RELEASE)
    cfg = Ca2sisModel.model_validate(merged(row, {"mapping": {"enabled": True}}))
    with torch.device("meta"):
        generator = build(cfg, 19, (256, 256))
    assert sum(p.numel() for p in generator.parameters()) == 77_229_243  # counted in the release
