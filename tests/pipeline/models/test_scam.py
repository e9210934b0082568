"""SCAM: attention within labels against its definition; absent labels, styles as rows, sizes, switches, import, errors."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from pipeline.config import compose
from pipeline.editing.tasks import TASKS, refusal
from pipeline.errors import UserError
from pipeline.models.build import build_discriminator, build_generator
from pipeline.models.interop import load_release
from pipeline.models.kernels import naive_kernels
from pipeline.models.masked_attention import LabelMasks, MaskedAttention, positional_code
from pipeline.models.scam import ScamGenerator, ScamModulation, start_size
from pipeline.schema.model_scam import ScamModel
from tests.pipeline.models.scam_cases import filled
from tests.pipeline.models.small_models import (
    one_hot,
    parameters_without_gradient,
    random_inputs,
    small_config,
    small_generator,
)


def small(num_classes: int = 5, size: tuple[int, int] = (16, 16), **changes: Any) -> ScamGenerator:
    generator = small_generator("scam", num_classes, size, **changes)
    assert isinstance(generator, ScamGenerator)
    return generator


def without_class(mask: Tensor, gone: int) -> Tensor:
    """`mask` with the pixels of class `gone` given to class 0."""
    labels = mask.argmax(dim=1)
    return one_hot(torch.where(labels == gone, 0, labels), mask.shape[1])


def test_contract() -> None:
    generator = small().eval()
    image, mask = random_inputs()
    style = generator.encode_style(image, mask)
    assert tuple(style.shape) == (2, 5, 2 * 6) and generator.capabilities.style == "per_class"
    assert torch.equal(style, generator.encode_style(image, mask)), "encoding is deterministic"
    made = generator.synthesize(mask, style)
    assert made.image.shape == (2, 3, 16, 16) and made.image.abs().max() <= 1 and made.attention == []
    assert torch.equal(made.image, generator.synthesize(mask, style, attention=False).image)
    refused = {task for task in TASKS if refusal(task, generator.capabilities)}
    assert refused == {"sampling", "shape_interpolation"}, "whatever edits styles of classes works"
    twin = copy.deepcopy(generator)
    assert torch.equal(twin.synthesize(mask, style).image, made.image)


@pytest.mark.parametrize(("latents", "background"), [(2, 1), (1, 3), (2, 2)])
def test_a_style_has_the_latents_of_one_label_a_row(latents: int, background: int) -> None:
    generator = small(4, latents=latents, background_latents=background)
    tokens = torch.randn(2, background + 3 * latents, 6)
    rows = generator.rows_of(tokens)
    assert tuple(rows.shape) == (2, 4, max(latents, background) * 6)
    assert torch.equal(generator.latent_rows(rows), tokens)
    first_of_two = background + latents  # of label 2
    assert torch.equal(rows[:, 2, : latents * 6], tokens[:, first_of_two : first_of_two + latents].flatten(1))
    assert rows[:, 0, background * 6 :].abs().sum() == 0 and rows[:, 1, latents * 6 :].abs().sum() == 0


def attend(absent: Any, allowed: Tensor, heads: int = 1) -> tuple[MaskedAttention, Tensor, Tensor]:
    torch.manual_seed(0)
    attention = MaskedAttention(6, 5, 4, heads, absent)
    tokens, source = torch.randn(1, allowed.shape[1], 6), torch.randn(1, allowed.shape[2], 5)
    return attention, tokens, source


@torch.no_grad()
def test_tokens_see_what_the_mask_allows_and_nothing_else() -> None:
    allowed = torch.tensor([[[True, False, True, False], [False, True, False, True]]])
    attention, tokens, source = attend("as_released", allowed)
    made = attention(tokens, source, allowed)
    for row, columns in ((0, [0, 2]), (1, [1, 3])):
        q = attention.to_q(tokens[:, row : row + 1])
        weights = (q @ attention.to_k(source[:, columns]).transpose(1, 2) / 2).softmax(dim=-1)  # sqrt of width 4
        expected = attention.to_out(weights @ attention.to_v(source[:, columns]))
        torch.testing.assert_close(made[:, row : row + 1], expected)
    elsewhere = source.clone()
    elsewhere[:, [1, 3]] += 5
    assert torch.equal(attention(tokens, elsewhere, allowed)[:, 0], made[:, 0])


@torch.no_grad()
@pytest.mark.parametrize("naive", [False, True])
def test_latents_without_pixels_attend_everywhere_as_released_or_nowhere(naive: bool) -> None:
    allowed = torch.tensor([[[True, False, True], [False, False, False]]])
    for absent in ("as_released", "none"):
        attention, tokens, source = attend(absent, allowed, heads=2)
        if naive:
            with naive_kernels():
                made = attention(tokens, source, allowed)
        else:
            made = attention(tokens, source, allowed)
        mean = attention.to_out(attention.to_v(source).mean(dim=1))  # every pixel weighs the same
        expected = mean if absent == "as_released" else attention.to_out.bias.unsqueeze(0)
        torch.testing.assert_close(made[:, 1], expected)
        weights = attention.weights(tokens, source, allowed)[0, :, 1]
        assert torch.equal(weights, torch.full((2, 3), 1 / 3 if absent == "as_released" else 0.0))


@torch.no_grad()
def test_repaired_an_absent_label_keeps_its_own_style_whatever_the_picture() -> None:
    """Norms over all latents together still carry two numbers; without them the encoder gives one style for every photo."""
    styles: dict[str, Tensor] = {}
    for absent in ("as_released", "none"):
        encoder = small(absent_attention=absent).encoder.eval()
        for block in (*encoder.cross, *encoder.within):
            block.norm_0, block.norm_1 = torch.nn.Identity(), torch.nn.Identity()  # type: ignore[assignment]
        image, mask = random_inputs()
        gone = without_class(mask, 3)
        rows = encoder.label_of == 3
        styles[absent] = encoder(image, gone)[:, rows] - encoder(-image, gone)[:, rows]
    assert styles["none"].abs().max() == 0 and styles["as_released"].abs().max() > 1e-3


@torch.no_grad()
def test_masks_are_those_of_the_size_of_the_features() -> None:
    _, mask = random_inputs(3, (8, 8), batch=1)
    masks = LabelMasks(mask, torch.tensor([0, 1, 1, 2]))
    coarse = mask[0, :, ::4, ::4].flatten(1) > 0  # nearest neighbour: every fourth pixel
    assert torch.equal(masks.at((2, 2))[0], coarse[[0, 1, 1, 2]])
    assert masks.at((2, 2)) is masks.at((2, 2)), "made once"


def test_positional_code_by_hand() -> None:
    code = positional_code(8, (1, 3), torch.zeros(1))[0, :, 0]  # x = -1, 0, 1; y = -1; frequencies 1 and 1/100
    x, y = torch.tensor([-1.0, 0.0, 1.0]), torch.tensor([-1.0, -1.0, -1.0])
    expected = [wave(axis * f) for wave, axis in ((torch.sin, x), (torch.sin, y), (torch.cos, x), (torch.cos, y))
                for f in (1.0, 0.01)]  # fmt: skip
    torch.testing.assert_close(code, torch.stack(expected))


@torch.no_grad()
def test_only_the_shape_of_a_label_and_its_latents_reach_a_pixels_modulation() -> None:
    cfg = small_config("scam", duplex=False, noise="off")
    assert isinstance(cfg, ScamModel)
    torch.manual_seed(0)
    layer = ScamModulation(cfg, 9, 8, duplex=False, noise=False)
    _, mask = random_inputs(5, (8, 8), batch=1)
    masks = LabelMasks(mask, torch.tensor([0, 1, 1, 2, 2, 3, 3, 4, 4]))
    x, latents = torch.randn(1, 8, 8, 8), torch.randn(1, 9, 6)
    other = latents.clone()
    other[:, 3:5] += 1  # label 2
    changed = (layer(x, latents, masks)[0] - layer(x, other, masks)[0]).abs().sum(dim=1)[0] > 1e-6  # (8,8)
    assert torch.equal(changed, mask[0, 2] > 0)


@pytest.mark.parametrize("absent", ["as_released", "none"])
def test_fast_and_literal_forms_agree_with_gradients(absent: str) -> None:
    generator = small(absent_attention=absent, noise="off")
    image, mask = random_inputs()
    mask = without_class(mask, 3)
    mask[:, :, :3, :3] = 0  # pixels of no class
    gradients = []
    for naive in (False, True):
        generator.zero_grad()
        if naive:
            with naive_kernels():
                made = generator(image, mask, attention=False).synthesis.image
        else:
            made = generator(image, mask, attention=False).synthesis.image
        (made - image).square().mean().backward()
        gradients.append([made.detach(), *(p.grad for p in generator.parameters() if p.grad is not None)])
    for fast, literal in zip(*gradients, strict=True):
        torch.testing.assert_close(fast, literal, rtol=1e-3, atol=1e-5)


def test_every_parameter_learns() -> None:
    generator = small()
    image, mask = random_inputs(batch=4)
    loss = (generator(image, mask, attention=False).synthesis.image - image).square().mean()
    keys = {key for key, _ in generator.named_parameters() if key.endswith("to_k.bias")}
    assert parameters_without_gradient(generator, loss) == keys  # softmax cancels what all keys share


@given(
    num_classes=st.sampled_from([2, 19, 200]),
    size=st.sampled_from([(16, 16), (23, 16), (16, 45), (8, 4)]),
    absent=st.sampled_from(["as_released", "none"]),
)
@settings(max_examples=8)
def test_any_size_and_classes(num_classes: int, size: tuple[int, int], absent: str) -> None:
    generator = small(num_classes, absent_attention=absent)  # convolutional: it need not be built for the size
    image = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    labels = torch.randint(0, num_classes, (2, *size), generator=torch.Generator().manual_seed(1))
    made = generator(image, one_hot(labels, num_classes), attention=False)
    assert made.synthesis.image.shape == (2, 3, *size)
    made.synthesis.image.square().mean().backward()
    assert all(
        torch.isfinite(parameter.grad).all() for parameter in generator.parameters() if parameter.grad is not None
    )


@pytest.mark.parametrize(
    ("size", "blocks", "start"),
    [((256, 256), 6, (4, 4)), ((256, 170), 6, (3, 2)), ((170, 256), 6, (2, 3)), ((48, 32), 3, (6, 4))],
)
def test_the_first_map_keeps_the_aspect(size: tuple[int, int], blocks: int, start: tuple[int, int]) -> None:
    assert start_size(size, blocks) == start


def test_wrong_sizes_are_named() -> None:
    with pytest.raises(UserError, match=r"4x4 does not suit scam.*at least 4 pixels, and one at least 8"):
        small(size=(4, 4))
    with pytest.raises(UserError, match="3x16 does not suit scam"):
        small().synthesize(torch.zeros(1, 5, 3, 16), torch.zeros(1, 5, 12))


def test_wrong_widths_are_refused() -> None:
    for key, value in (("base_width", 6), ("attention_width", 5), ("latents", 0), ("absent_attention", "zero")):
        with pytest.raises(ValidationError, match=key):
            small_config("scam", **{key: value})
    encoder = small_config("scam").model_dump()["encoder"]
    with pytest.raises(ValidationError, match=r"encoder.attention_width is 5; allowed: multiples of 2 heads"):
        small_config("scam", encoder={**encoder, "attention_width": 5})


SWITCHES: list[dict[str, Any]] = [
    {"latents": 3},
    {"background_latents": 2},
    {"style_dim": 5},
    {"attention_width": 8},
    {"heads": 1},
    {"duplex": False},
    {"absent_attention": "none"},
    {"up_blocks": 1},
    {"base_width": 8},
    {"encoder": {"blocks": 2}},
    {"encoder": {"pyramid": False}},
    {"encoder": {"coarse_to_fine": True}},
    {"encoder": {"positional_width": 8}},
    {"encoder": {"self_attention": False}},
    {"encoder": {"self_heads": 1}},
    {"encoder": {"heads": 2}},
]


@torch.no_grad()
@pytest.mark.parametrize("changes", SWITCHES, ids=str)
def test_every_switch_changes_the_computation(changes: dict[str, Any]) -> None:
    encoder = small_config("scam").model_dump()["encoder"]
    given = {**changes, "encoder": {**encoder, **changes["encoder"]}} if "encoder" in changes else changes
    image, mask = random_inputs()
    mask = without_class(mask, 3)
    plain, switched = (network.eval()(image, mask, attention=False) for network in (small(), small(**given)))
    assert (plain.synthesis.image - switched.synthesis.image).abs().max() > 1e-4


@torch.no_grad()
def test_noise_is_drawn_when_the_config_says_so() -> None:
    image, mask = random_inputs()
    for noise, in_training, in_testing in (("always", True, True), ("train", True, False), ("off", False, False)):
        generator = small(noise=noise)
        for name, parameter in generator.named_parameters():
            if name.endswith("noise_scale"):
                parameter.fill_(0.5)
        for training, drawn in ((True, in_training), (False, in_testing)):
            style = generator.train(training).encode_style(image, mask)
            once, again = (generator.synthesize(mask, style).image for _ in range(2))
            assert torch.equal(once, again) is not drawn


def test_bf16_autocast_and_compiled_graph() -> None:
    generator = small().eval()
    image, mask = random_inputs()
    mask = without_class(mask, 3)
    with torch.no_grad():
        style = generator.encode_style(image, mask)
        made = generator.synthesize(mask, style).image
        compiled = torch.compile(generator.synthesize, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(mask, style).image, made, rtol=0, atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = generator(image, mask, attention=False).synthesis.image
        rough.float().square().mean().backward()
    assert (rough.float() - made).abs().mean() < 0.03
    assert all(
        torch.isfinite(parameter.grad).all() for parameter in generator.parameters() if parameter.grad is not None
    )


def test_paper_row_is_the_published_network_and_recipe() -> None:
    config = compose(["model=scam", "preset=paper"])
    with torch.device("meta"):
        generator = build_generator(config.model, 19, (256, 256))
        discriminator = build_discriminator(config.discriminator, 19)
    assert isinstance(generator, ScamGenerator)
    millions = [
        sum(p.numel() for p in part.parameters()) / 1e6 for part in (generator.encoder, generator, discriminator)
    ]
    assert millions[0] == pytest.approx(14.17, abs=0.005)
    assert millions[1] - millions[0] == pytest.approx(80.71, abs=0.005)
    assert millions[2] == pytest.approx(5.57, abs=0.005)
    assert config.discriminator.kind == "gradient_normalised" and config.discriminator.init_gain is None
    assert (config.train.iterations, config.train.batch_size, config.train.weight_decay) == (50000, 32, 0.01)
    assert (config.train.betas, config.train.ttur, config.train.lr) == ((0.9, 0.999), True, 2e-4)


@pytest.fixture(scope="module")
def states() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    return filled("G"), filled("E", (8, 3, 3))


def test_import_reads_sizes_and_names_wrong_keys(states: tuple[dict[str, Tensor], dict[str, Tensor]]) -> None:
    state, encoder = states
    loaded = load_release("scam", state, encoder=encoder)
    assert isinstance(loaded, ScamGenerator) and not loaded.training and loaded.num_classes == 8
    cfg = loaded.config
    assert (cfg.base_width, cfg.up_blocks, cfg.latents, cfg.background_latents, cfg.style_dim) == (8, 5, 3, 3, 64)
    assert (cfg.attention_width, cfg.duplex, cfg.noise, cfg.absent_attention) == (32, True, "always", "as_released")
    assert (cfg.encoder.width, cfg.encoder.blocks, cfg.encoder.positional_width) == (8, 5, 40)
    assert (cfg.encoder.pyramid, cfg.encoder.coarse_to_fine, cfg.encoder.self_attention) == (True, False, True)
    given = sum(
        value.numel()
        for part in states
        for key, value in part.items()
        if not key.endswith(("inv_freq", "latents_mask"))
    )
    assert sum(parameter.numel() for parameter in loaded.parameters()) == given
    for which, part in enumerate(states):
        for key in random.Random(0).sample(sorted(part), 6):
            missing = {name: value for name, value in part.items() if name != key}
            for wrong in (missing, {**part, key: torch.zeros(*(size + 1 for size in part[key].shape))}):
                with pytest.raises(UserError) as caught:
                    load_release("scam", wrong if which == 0 else state, encoder=wrong if which else encoder)
                assert key in str(caught.value), f"{key}, said: {caught.value}"
        extra = {**part, "extra": torch.zeros(1)}
        with pytest.raises(UserError, match="extra key extra"):
            load_release("scam", extra if which == 0 else state, encoder=extra if which else encoder)


def test_one_checkpoint_of_all_networks_is_read_by_the_beginnings_of_its_keys(
    states: tuple[dict[str, Tensor], dict[str, Tensor]],
) -> None:
    state, encoder = states
    both = {f"model.one.{key}": value for key, value in state.items()}
    both |= {f"model.two.{key}": value for key, value in encoder.items()} | {"judge.conv.weight": torch.zeros(1)}
    together, apart = load_release("scam", both), load_release("scam", state, encoder=encoder)
    for left, right in zip(together.parameters(), apart.parameters(), strict=True):
        assert torch.equal(left, right)
    with pytest.raises(UserError, match=r"key latents is missing; give generator and encoder"):
        load_release("scam", state)
    with pytest.raises(UserError, match="key first_conv.weight is there 2 times"):
        load_release("scam", both | {"mean.first_conv.weight": state["first_conv.weight"]})


def test_an_encoder_of_other_labels_is_refused(states: tuple[dict[str, Tensor], dict[str, Tensor]]) -> None:
    state, encoder = states
    wider = {**state, "first_conv.weight": torch.zeros(128, 7, 3, 3)}
    with pytest.raises(UserError, match="does not part 24 latents into 7 labels"):
        load_release("scam", wider, encoder=encoder)
