"""The contract of `pipeline.models.contract`, asked of every registered family: registering one is what has it tested.

Each is built from its recipe at preset tiny; `SWITCHED` adds settings of a family under which it can do something else.
"""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch

from pipeline.config import compose
from pipeline.errors import UserError
from pipeline.models.build import build_generator
from pipeline.models.contract import ComposingGenerator, Generator, InstanceGenerator, Synthesis
from pipeline.models.kernels import naive_kernels
from pipeline.schema.base import ModelSection
from pipeline.schema.families import FAMILIES, family_spec
from pipeline.training.objective import REGULARISERS
from tests.pipeline.models.small_models import one_hot, random_inputs

CLASSES, SIDE, BATCH = 5, 32, 2
SIZE = (SIDE, SIDE)
SWITCHED = (
    ("spade", "model.style=vae", "model.encoder={size: 16, layers: 2, width: 4}"),
    ("inade", "model.style=none"),
    ("ca2sis", "model.mapping.enabled=true"),
)
# What a family's row says of the 19 labels of faces and must not of the five classes here.
FIVE_CLASSES = {"semanticstylegan": ("model.merge=none", "model.transparent=[]")}
CASES = [(family,) for family in FAMILIES] + [case for case in SWITCHED if case[0] in FAMILIES]


@pytest.fixture(params=CASES, ids=" ".join)
def case(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return tuple(request.param)


@cache
def _built(case: tuple[str, ...], size: tuple[int, int]) -> Generator:
    family, *switches = case
    model = compose(["preset=tiny", f"model={family}", f"size={SIDE}", *FIVE_CLASSES.get(family, ()), *switches]).model
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_generator(model, CLASSES, size)


def made(case: tuple[str, ...], size: tuple[int, int] = SIZE) -> Generator:
    """The generator of a case, in eval mode, its own copy."""
    return copy.deepcopy(_built(case, size)).eval()


def inputs(size: tuple[int, int] = SIZE) -> tuple[torch.Tensor, torch.Tensor]:
    return random_inputs(CLASSES, size, BATCH)


def synthesized(generator: Generator, mask: torch.Tensor, style: torch.Tensor, *, attention: bool = False) -> Synthesis:
    """With torch's generator in one state: what a family draws while it synthesises is then the same again."""
    torch.manual_seed(7)
    return generator.synthesize(mask, style, attention=attention)


def test_the_style_has_the_declared_shape_and_encoding_is_deterministic(case: tuple[str, ...]) -> None:
    generator, (image, mask) = made(case), inputs()
    style = generator.encode_style(image, mask)
    codes = (2 + 2 * CLASSES,) if isinstance(generator, ComposingGenerator) else ()
    beginnings = {"per_class": (CLASSES,), "per_instance": (CLASSES,), "global": (), "none": (0,), "codes": codes}
    beginning = (BATCH, *beginnings[generator.capabilities.style])
    assert tuple(style.shape[: len(beginning)]) == beginning
    assert style.dim() == (3 if generator.capabilities.style in ("per_class", "per_instance", "codes") else 2)
    assert style.dtype == torch.float32 and bool(torch.isfinite(style).all())
    torch.manual_seed(1)
    assert torch.equal(style, generator.encode_style(image, mask))
    composing = generator.capabilities.style == "codes"
    assert isinstance(generator, ComposingGenerator) == composing == (generator.capabilities.layout == "own")
    assert family_spec(case[0]).inverts == composing
    assert isinstance(generator, InstanceGenerator) or generator.capabilities.style != "per_instance"


def test_the_config_section_says_what_plans_must_know_of_the_network(case: tuple[str, ...]) -> None:
    generator = made(case)
    assert isinstance(generator.config, ModelSection)
    assert generator.config.has_attention == generator.capabilities.attention
    assert generator.config.samples == generator.capabilities.sampling


def test_the_image_has_the_layout_s_size_and_stays_in_range(case: tuple[str, ...]) -> None:
    generator, (image, mask) = made(case), inputs()
    style = generator.encode_style(image, mask)
    plain = synthesized(generator, mask, style, attention=False)
    assert tuple(plain.image.shape) == (BATCH, 3, *SIZE) and plain.image.dtype == torch.float32
    assert bool(torch.isfinite(plain.image).all()) and plain.image.abs().max() <= 1
    assert plain.attention == []
    asked = synthesized(generator, mask, style, attention=True)
    torch.testing.assert_close(asked.image, plain.image, rtol=0, atol=1e-5)
    assert bool(asked.attention) == generator.capabilities.attention
    for level in asked.attention:
        assert tuple(level.shape[:2]) == (BATCH, CLASSES)
        assert level.shape[-2] <= SIDE and level.shape[-1] <= SIDE and bool(torch.isfinite(level).all())


def test_capabilities_are_kept_and_others_refused(case: tuple[str, ...]) -> None:
    generator, (image, mask) = made(case), inputs()
    can, style = generator.capabilities, generator.encode_style(image, mask)
    noise = torch.randn(BATCH, can.noise_width, generator=torch.Generator().manual_seed(3))
    if can.sampling:
        assert can.noise_width > 0
        drawn = generator.sample_style(mask, noise)
        assert can.style == "none" or drawn.shape == style.shape
        assert torch.equal(drawn, generator.sample_style(mask, noise)), "the noise is all that is random"
        assert not torch.equal(drawn, generator.sample_style(mask, noise + 1.0))
        assert tuple(synthesized(generator, mask, drawn).image.shape) == (BATCH, 3, *SIZE)
    else:
        assert can.noise_width == 0 and generator.sampling_parameters() == []
        with pytest.raises((NotImplementedError, UserError)):  # a UserError names the setting that would allow it
            generator.sample_style(mask, noise)
    if can.shape_embedding:
        torch.manual_seed(7)
        embedded = generator.synthesize_embedded(mask, generator.embed_shape(mask), style)
        torch.testing.assert_close(embedded.image, synthesized(generator, mask, style).image)
    else:
        with pytest.raises((NotImplementedError, UserError)):
            generator.embed_shape(mask)
    own = {id(parameter) for parameter in generator.parameters()}
    assert {id(parameter) for parameter in generator.sampling_parameters()} <= own
    assert can.learned == bool(own) == family_spec(case[0]).learned


def test_sizes_that_the_stride_does_not_divide_are_refused(case: tuple[str, ...]) -> None:
    stride = made(case).stride
    assert SIDE % stride == 0
    if stride == 1:
        return
    odd = (SIDE + stride // 2, SIDE)
    with pytest.raises(UserError, match=f"{odd[0]}x{odd[1]}"):
        made(case, odd)
    generator = made(case)
    mask = torch.nn.functional.pad(inputs()[1], (0, 0, 0, 1))
    with pytest.raises(UserError, match=str(SIDE + 1)):
        generator.synthesize(mask, generator.encode_style(*inputs()))


def test_oblong_pictures_work(case: tuple[str, ...]) -> None:
    oblong = (SIDE, 2 * SIDE)
    generator, (image, mask) = made(case, oblong), inputs(oblong)
    found = synthesized(generator, mask, generator.encode_style(image, mask), attention=True)
    assert tuple(found.image.shape) == (BATCH, 3, *oblong)


def test_the_training_pass_gives_gradients_and_terms_that_the_objective_knows(case: tuple[str, ...]) -> None:
    generator, (image, mask) = made(case).train(), inputs()
    result = generator(image, mask, attention=generator.capabilities.attention)
    assert tuple(result.synthesis.image.shape) == (BATCH, 3, *SIZE)
    assert bool(result.synthesis.attention) == generator.capabilities.attention
    assert set(result.regularisers) <= set(REGULARISERS), (
        "a term the objective does not know would be dropped in silence"
    )
    for term in result.regularisers.values():
        assert term.shape == () and bool(torch.isfinite(term))
    if not generator.capabilities.learned:
        return
    total = (result.synthesis.image - image).square().mean() + sum(result.regularisers.values(), torch.zeros(()))
    if result.synthesis.layout is not None:
        total = total + result.synthesis.layout.square().mean()
    total.backward()  # type: ignore[no-untyped-call]
    later = {id(parameter) for parameter in generator.sampling_parameters()}  # what stage two trains
    for name, parameter in generator.named_parameters():
        if id(parameter) not in later:
            assert parameter.grad is not None, f"{name} takes no part in the image"
            assert bool(torch.isfinite(parameter.grad).all()), name


def test_absent_classes_are_nothing_to_stumble_over(case: tuple[str, ...]) -> None:
    """A picture of one class, in the style of another picture without it."""
    generator, (image, _) = made(case), inputs()
    first, last = (one_hot(torch.full((BATCH, *SIZE), label), CLASSES) for label in (0, CLASSES - 1))
    for layout, reference in ((first, first), (first, last)):
        style = generator.encode_style(image, reference)
        found = synthesized(generator, layout, style).image
        assert bool(torch.isfinite(style).all()) and bool(torch.isfinite(found).all())
    if generator.capabilities.learned:
        generator.train()(image, first, attention=False).synthesis.image.square().mean().backward()
        gradients = [parameter.grad for parameter in generator.parameters() if parameter.grad is not None]
        assert gradients and all(bool(torch.isfinite(gradient).all()) for gradient in gradients)


@torch.no_grad()
def test_a_picture_does_not_depend_on_the_others_of_its_batch(case: tuple[str, ...]) -> None:
    generator, (image, mask) = made(case), inputs()
    style = generator.encode_style(image, mask)
    torch.manual_seed(8)
    if not torch.equal(generator.synthesize(mask, style).image, synthesized(generator, mask, style).image):
        pytest.skip("the family draws while it synthesises")
    together = synthesized(generator, mask, generator.encode_style(image, mask)).image
    alone = synthesized(generator, mask[1:], generator.encode_style(image[1:], mask[1:])).image
    torch.testing.assert_close(alone, together[1:], rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_naive_kernels_give_the_same_image(case: tuple[str, ...]) -> None:
    generator, (image, mask) = made(case), inputs()
    fast = synthesized(generator, mask, generator.encode_style(image, mask)).image
    with naive_kernels():
        literal = synthesized(generator, mask, generator.encode_style(image, mask)).image
    torch.testing.assert_close(fast, literal, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_copies_and_state_dicts_carry_everything(case: tuple[str, ...]) -> None:
    """EMA copies the module and checkpoints its state dict; both give the same image, running statistics included."""
    generator, (image, mask) = made(case).train(), inputs()
    for _ in range(2):
        generator(image, mask, attention=False)
    generator.eval()
    twin = made(case)
    twin.load_state_dict(generator.state_dict())
    expected = synthesized(generator, mask, generator.encode_style(image, mask)).image
    for other in (twin, copy.deepcopy(generator)):
        assert torch.equal(expected, synthesized(other, mask, other.encode_style(image, mask)).image)
