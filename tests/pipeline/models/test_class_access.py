"""How classes enter cross-attention: every switch in closed form, exact in all its forms, sound at any size and count."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from pipeline.errors import UserError
from pipeline.metrics.cost import flops_per_image
from pipeline.models.ca2sis import Ca2sisGenerator
from pipeline.models.class_access import ClassAccess, ClassOptions, pixel_classes
from pipeline.models.head_maps import observed_heads
from pipeline.models.kernels import naive_kernels, plain_kernels
from pipeline.schema.model_ca2sis import AttentionSection
from tests.pipeline.models.ca2sis_cases import RELEASE, inputs, make, one_hot, small

SWITCHES: dict[str, dict[str, Any]] = {
    "bias": {"attention": {"masking": "bias", "bias": 4.0}},
    "bias learned": {"attention": {"masking": "bias", "bias": "learned"}},
    "hard": {"attention": {"masking": "hard"}},
    "access": {"attention": {"masking": "access"}},
    "access of rank 1": {"attention": {"masking": "access", "access_rank": 1}},
    "query": {"attention": {"masking": "query"}},
    "class keys": {"attention": {"class_keys": True}},
    "attention pooling": {"encoder": {"pooling": "attention"}},
    "three codes": {"encoder": {"pooling": "attention", "codes_per_class": 3}},
    "three codes, hard": {
        "encoder": {"pooling": "attention", "codes_per_class": 3},
        "attention": {"masking": "hard", "class_keys": True},
    },
    "three codes, access": {
        "encoder": {"pooling": "attention", "codes_per_class": 3},
        "attention": {"masking": "access"},
    },
}
LEARNED = {"table", "table_pixels", "strength", "vectors", "keys"}  # start from 0


def learned(generator: Ca2sisGenerator) -> dict[str, Tensor]:
    """The parameters that the switches bring, by name."""
    return {name: p for name, p in generator.named_parameters() if ".classes." in name or ".regions." in name}


def moved(num_classes: int = 5, size: tuple[int, int] = (16, 24), **overrides: Any) -> Ca2sisGenerator:
    """A small generator whose class parameters are off their start."""
    generator = make(num_classes, size, **overrides)
    torch.manual_seed(7)
    for name, parameter in learned(generator).items():
        if name.rpartition(".")[2] in LEARNED:
            spread = (
                0.5 if name.endswith("keys") else 0.02 if name.endswith("vectors") else 0.05
            )  # scaled by 30 but for keys
            torch.nn.init.normal_(parameter, std=spread)
    return generator


def with_gaps(mask: Tensor) -> Tensor:
    """`mask` with pixels of no class and without its last class."""
    mask = mask.clone()
    mask[:, 0] += mask[:, -1]
    mask[:, -1] = 0
    mask[:, :, 2:7, 3:9] = 0
    return mask


def run(generator: Ca2sisGenerator, image: Tensor, mask: Tensor) -> tuple[Tensor, list[Tensor], dict[str, Tensor]]:
    """Image, logits, and gradients by parameter."""
    generator.zero_grad()
    done = generator(image, mask, attention=True).synthesis
    (done.image.square().mean() + sum((a.square().mean() for a in done.attention), torch.zeros(()))).backward()
    gradients = {name: p.grad.clone() for name, p in generator.named_parameters() if p.grad is not None}
    return done.image.detach(), [a.detach() for a in done.attention], gradients


@pytest.mark.parametrize("name", SWITCHES)
def test_every_switch_changes_the_computation(name: str) -> None:
    image, mask = inputs()
    reference, changed = make(), moved(**SWITCHES[name])
    ours = changed.state_dict()
    changed.load_state_dict({k: v for k, v in reference.state_dict().items() if v.shape == ours[k].shape}, strict=False)
    with torch.no_grad():
        one, other = reference(image, mask, attention=True), changed(image, mask, attention=True)
    assert (one.synthesis.image - other.synthesis.image).abs().max() > 1e-4
    assert [a.shape for a in one.synthesis.attention] == [a.shape for a in other.synthesis.attention]


@pytest.mark.parametrize("name", ["bias learned", "access", "access of rank 1", "query", "class keys"])
def test_what_is_learned_starts_as_the_released_network(name: str) -> None:
    image, mask = inputs()
    reference, changed = make(), make(**SWITCHES[name])
    changed.load_state_dict(reference.state_dict(), strict=False)
    with torch.no_grad():
        one, other = reference(image, mask, attention=True), changed(image, mask, attention=True)
    torch.testing.assert_close(other.synthesis.image, one.synthesis.image, rtol=0, atol=1e-6)
    torch.testing.assert_close(other.synthesis.attention, one.synthesis.attention, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", SWITCHES)
def test_fast_plain_and_naive_forms_and_checkpointing_agree(name: str) -> None:
    image, mask = inputs()
    mask = with_gaps(mask)
    generator = moved(**SWITCHES[name])
    fast = run(generator, image, mask)
    others = []
    for form in (naive_kernels, plain_kernels):
        with form():
            others.append(run(generator, image, mask))
    again = moved(**SWITCHES[name], checkpointing=True)
    others.append(run(again, image, mask))
    assert learned(generator).keys() <= fast[2].keys()
    for other in others:
        torch.testing.assert_close(other[0], fast[0], rtol=0, atol=2e-5)
        torch.testing.assert_close(other[1], fast[1], rtol=0, atol=2e-5)
        assert other[2].keys() == fast[2].keys()
        for key, gradient in fast[2].items():
            torch.testing.assert_close(other[2][key], gradient, rtol=1e-3, atol=2e-6, msg=lambda t, k=key: f"{k}: {t}")


@pytest.mark.parametrize("name", SWITCHES)
def test_every_new_parameter_is_trained_from_its_start(name: str) -> None:
    image, mask = inputs()
    generator = make(**SWITCHES[name]).train()
    parameters = learned(generator)
    done = generator(image, mask, attention=False)  # the image alone: no help from the attention loss
    (done.synthesis.image - image).square().mean().backward()
    still = {key for key, p in parameters.items() if p.grad is None or not bool(p.grad.any())}
    # A factor beside one that starts from 0 moves from the second update on; hard attention to one code has no choice.
    expected = {key for key in parameters if key.endswith("table_codes")}
    assert still == expected
    assert parameters or name in ("bias", "hard")


def test_hard_attention_to_one_code_is_that_code_wherever_the_scores_point() -> None:
    image, mask = inputs()
    generator = moved(**SWITCHES["hard"]).train()
    done = generator(image, mask, attention=False)
    done.synthesis.image.square().mean().backward()
    queries = [p.grad for name, p in generator.named_parameters() if "cross_attention.to_q" in name]
    assert len(queries) == 3 and not any(bool(gradient.any()) for gradient in queries)


@settings(max_examples=12)
@example("three codes, hard", 2, 1, 1, True)
@example("three codes, access", 200, 1, 2, False)
@example("hard", 200, 2, 1, True)
@example("query", 200, 1, 1, False)
@given(
    name=st.sampled_from(sorted(SWITCHES)),
    classes=st.sampled_from([2, 3, 7]),
    rows=st.integers(1, 5),
    columns=st.integers(1, 5),
    background=st.booleans(),
)
def test_sound_at_any_size_and_class_count(name: str, classes: int, rows: int, columns: int, background: bool) -> None:
    """Batch 1, absent classes, pixels of no class, one class alone: finite images and gradients."""
    size = (4 * rows, 4 * columns)
    generator = moved(classes, size, **SWITCHES[name]).train()
    image = torch.rand(1, 3, *size) * 2 - 1
    labels = torch.zeros(1, *size, dtype=torch.int64) if background else torch.randint(0, min(classes, 3), (1, *size))
    mask = one_hot(labels, classes)
    mask[..., : size[1] // 2] = 0
    picture, logits, gradients = run(generator, image, mask)
    assert bool(torch.isfinite(picture).all()) and picture.abs().max() <= 1
    assert all(bool(torch.isfinite(level).all()) and level.shape[1] == classes for level in logits)
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients.values())


@pytest.mark.parametrize("name", SWITCHES)
def test_bf16_autocast_is_close_with_float32_logits(name: str) -> None:
    image, mask = inputs()
    mask = with_gaps(mask)
    generator = moved(**SWITCHES[name])
    exact = run(generator, image, mask)
    for form in (None, plain_kernels):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            if form is None:
                rough = run(generator, image, mask)
            else:
                with form():
                    rough = run(generator, image, mask)
        assert {level.dtype for level in rough[1]} == {torch.float32} and rough[0].dtype == torch.float32
        difference = (rough[0] - exact[0]).abs()
        assert 0 < difference.mean() < 0.01 and difference.max() < 0.15
        assert all(bool(torch.isfinite(gradient).all()) for gradient in rough[2].values())


def options(classes: int = 3, codes: int = 1, **changes: Any) -> ClassOptions:
    section = AttentionSection.model_validate({**RELEASE["attention"], **changes})
    return ClassOptions.of(section, classes, codes)


PIXELS = torch.tensor([[[1.0, 0, 0], [0, 0, 1], [0, 0, 0]]])  # of class 0, of class 2, of none


def addend(table: ClassAccess) -> Tensor:
    added = table.addend(PIXELS)
    assert added is not None
    return added.detach()[0].transpose(0, 1)  # (heads,P,K)


def test_addends_in_closed_form() -> None:
    low = -math.inf
    sizes = {"query_dim": 4, "heads": 2, "inner": 4}
    bias = addend(ClassAccess(options(masking="bias", bias=2.5), **sizes))
    assert bias.tolist() == [[[2.5, 0, 0], [0, 0, 2.5], [0, 0, 0]]]
    hard = addend(ClassAccess(options(masking="hard", codes=2), **sizes))
    assert hard.tolist() == [[[0, 0, low, low, low, low], [low, low, low, low, 0, 0], [0] * 6]]
    scalars = ClassAccess(options(masking="bias", bias="learned", bias_scale=10.0), **sizes)
    assert scalars.strength is not None
    scalars.strength.data = torch.tensor([0.5, -1.0])
    assert addend(scalars)[:, 0].tolist() == [[5, 0, 0], [-10, 0, 0]]
    access = ClassAccess(options(masking="access", access_scale=2.0), **sizes)
    assert access.table is not None
    access.table.data = torch.arange(18.0).view(2, 3, 3)
    assert addend(access).tolist() == [[[0, 2, 4], [12, 14, 16], [0, 0, 0]], [[18, 20, 22], [30, 32, 34], [0, 0, 0]]]
    with naive_kernels():
        assert torch.equal(addend(access), 2 * torch.stack([access.table.data[:, 0], access.table.data[:, 2],
                                                            torch.zeros(2, 3)], dim=1))  # fmt: skip


def test_a_table_of_low_rank_is_the_product_of_its_factors() -> None:
    access = ClassAccess(options(masking="access", access_rank=2, access_scale=3.0), query_dim=4, heads=2, inner=4)
    assert access.table_pixels is not None and access.table_codes is not None
    assert access.table_codes.shape == (2, 3, 2) and not bool(access.table_pixels.any())
    torch.nn.init.normal_(access.table_pixels)
    table = access.access_table()
    assert table is not None
    expected = 3.0 * torch.einsum("hcr,hkr->hck", access.table_pixels, access.table_codes)
    torch.testing.assert_close(table, expected)
    with pytest.raises(UserError, match=r"access_rank=3: with 3 classes allowed are 1 to 2"):
        options(masking="access", access_rank=3)


def test_a_query_vector_is_a_table_made_from_the_keys() -> None:
    """q(x + e) . k = q(x) . k + q(e) . k: the same information, by another way."""
    image, mask = inputs()
    plain, changed = make(), moved(**SWITCHES["query"])
    changed.load_state_dict(plain.state_dict(), strict=False)
    with torch.no_grad():
        style = plain.encode_style(image, mask)
        before = plain.synthesize(mask, style).attention[0]
        after = changed.synthesize(mask, style).attention[0]
        layer = changed.stages[0].transformer.layers[0].cross_attention
        vectors = layer.to_q(layer.classes.class_vectors())  # (K,inner)
        table = vectors @ layer.to_k(style).transpose(1, 2) * layer.scale / layer.heads  # (N,K,K)
        expected = before + (pixel_classes(mask, (4, 6)) @ table).transpose(1, 2).unflatten(2, (4, 6))
    torch.testing.assert_close(after, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["bias", "hard", "access"])
def test_the_loss_sees_scores_before_what_is_imposed_and_with_what_is_learned(name: str) -> None:
    image, mask = inputs()
    plain, changed = make(), moved(**SWITCHES[name])
    changed.load_state_dict(plain.state_dict(), strict=False)
    with torch.no_grad():
        style = plain.encode_style(image, mask)
        with observed_heads() as heads:
            after = changed.synthesize(mask, style).attention[0]  # the first stage: its input is the same
        before = plain.synthesize(mask, style).attention[0]
    torch.testing.assert_close(heads[0].mean(dim=1).transpose(1, 2).unflatten(2, (4, 6)), after, rtol=0, atol=1e-5)
    if name != "access":
        torch.testing.assert_close(after, before, rtol=0, atol=1e-6)
        return
    table = changed.stages[0].transformer.layers[0].cross_attention.classes.access_table().mean(dim=0)
    expected = before + (pixel_classes(mask, (4, 6)) @ table).transpose(1, 2).unflatten(2, (4, 6))
    torch.testing.assert_close(after, expected, rtol=0, atol=1e-5)


def test_scores_of_several_codes_are_the_logarithm_of_their_joint_attention() -> None:
    access = ClassAccess(options(classes=2, codes=2), query_dim=4, heads=1, inner=4)
    scores = torch.tensor([1.0, 3.0, 2.0, 2.0])  # two codes of each of two classes
    classes = access.by_class(scores)
    shares = scores.softmax(0).view(2, 2).sum(1)
    torch.testing.assert_close(classes.softmax(0), shares)
    assert classes[1].item() == pytest.approx(2.0)  # equal codes score as one


def test_codes_of_a_class_are_attended_to_apart_and_edited_together() -> None:
    generator = moved(**SWITCHES["three codes"])
    image, mask = inputs()
    with torch.no_grad():
        style = generator.encode_style(image, mask)
        assert style.shape == (2, 5, 3 * 16)
        codes = style.unflatten(2, (3, 16))
        assert (codes[:, :, 0] - codes[:, :, 1]).abs().amax(dim=2).min() > 1e-3
        permuted = codes[:, :, [2, 0, 1]].flatten(2)
        one, other = generator.synthesize(mask, style).image, generator.synthesize(mask, permuted).image
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5)  # attention does not ask which of them comes first


def test_region_attention_tells_parts_of_a_region_apart_and_its_mean_cannot() -> None:
    """Two tones in one class: attention pooling with opposite queries gives each its own summary."""
    encoder = make(encoder={"pooling": "attention", "codes_per_class": 2}).encoder
    pool = encoder.regions["2"]
    features = torch.zeros(1, 5 * pool.queries.shape[2], 2, 2)
    features[..., 0, :], features[..., 1, :] = 1.0, 3.0
    mask = torch.zeros(1, 5, 2, 2)
    mask[:, 1] = 1
    with torch.no_grad():
        pool.queries[:, 0], pool.queries[:, 1] = -50.0, 50.0
        pooled = pool(features, mask, 5)
    torch.testing.assert_close(pooled[0, 1, 0], torch.ones(pool.queries.shape[2]))
    torch.testing.assert_close(pooled[0, 1, 1], torch.full((pool.queries.shape[2],), 3.0))
    assert not bool(pooled[0, [0, 2, 3, 4]].any())  # absent classes


@pytest.mark.parametrize("grouping", ["shared", 2, "class"])
def test_attention_pooling_knows_the_feature_group_of_a_class(grouping: Any) -> None:
    generator = make(encoder={"pooling": "attention", "codes_per_class": 2, "grouping": grouping, "width": 4})
    image, mask = inputs()
    with torch.no_grad():
        fast = generator.encode_style(image, with_gaps(mask))
        with naive_kernels():
            slow = generator.encode_style(image, with_gaps(mask))
    torch.testing.assert_close(fast, slow, rtol=0, atol=1e-5)


def test_cost_of_the_switches() -> None:
    """A table is looked up, so it costs no multiplication; several codes cost keys and values."""
    image, mask = inputs(batch=1)
    plain = flops_per_image(make(), image, mask)
    for name in ("bias", "hard", "access", "query", "class keys"):
        assert flops_per_image(make(**SWITCHES[name]), image, mask) == plain, name
    assert flops_per_image(make(**SWITCHES["three codes"]), image, mask) > 1.05 * plain


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"attention": {"masking": "soft"}}, "none"),
        ({"attention": {"bias": 0.0}}, "greater than 0"),
        ({"attention": {"bias": math.inf}}, "finite"),
        ({"attention": {"access_scale": -1.0}}, "greater than 0"),
        ({"attention": {"access_rank": 0}}, "greater than or equal to 1"),
        ({"encoder": {"codes_per_class": 2}}, "codes_per_class is 2; allowed with pooling masked: 1"),
        ({"attention": {"masking": "hard"}, "conditioning": "spade"}, "attention.masking is on; it needs a stage"),
        ({"attention": {"class_keys": True}, "conditioning": "none"}, "attention.class_keys is on; it needs a stage"),
    ],
)
def test_values_without_a_meaning_are_refused(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        small(**overrides)
