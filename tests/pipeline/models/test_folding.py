"""Exact algebra of the fast kernels: folded products against the products taken one by one, in value and gradient."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pipeline.bench.parts import flat
from pipeline.models import gate
from pipeline.models.attention import Attention
from pipeline.models.build import build_discriminator
from pipeline.models.discriminator import discriminate, judge, views_of
from pipeline.models.gate import gated
from pipeline.models.kernels import bound, folds, is_naive, kernel_form, naive_kernels, plain_kernels
from pipeline.models.tokens import Term, Tokens
from tests.pipeline.models.small_models import DISCRIMINATOR, random_inputs


def gradients(result: Tensor, sources: list[Tensor]) -> list[Tensor]:
    """Gradients of a scalar in which every element of `result` counts differently."""
    weights = torch.linspace(-1, 1, result.numel(), dtype=result.dtype).view_as(result)
    return list(torch.autograd.grad((result * weights).sum(), sources))


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def make_tokens(images: int, own_basis: bool, offset: bool) -> tuple[Callable[[], Tokens], list[Tensor]]:
    """A maker of low-rank tokens (images,40,24) of two terms, and the tensors they are made from."""
    pixels, weight = drawn(images, 40, 3), drawn(3, 24)
    attention, codes = drawn(images, 40, 5), drawn(*((images,) if own_basis else ()), 5, 24)
    shift = drawn(24)
    sources = [pixels, weight, attention, codes, *([shift] if offset else [])]
    return lambda: Tokens(None, (Term(pixels, weight),), shift if offset else None).plus(
        attention, codes, None
    ), sources


@given(st.integers(1, 3), st.booleans(), st.booleans(), st.booleans(), st.booleans())
@settings(max_examples=25)
def test_normed_linear_folds_exactly(
    images: int, own_basis: bool, offset: bool, own_weight: bool, biased: bool
) -> None:
    torch.manual_seed(images)
    make, sources = make_tokens(images, own_basis, offset)
    norm = nn.LayerNorm(24).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    weight = drawn(*((images,) if own_weight else ()), 24, 31)
    bias = drawn(31) if biased else None
    everything = [*sources, weight, norm.weight, norm.bias, *([bias] if bias is not None else [])]
    normed = F.layer_norm(make().dense, (24,), norm.weight, norm.bias, norm.eps)
    expected = normed @ weight + (0 if bias is None else bias)
    tokens = make()
    z, folded, shift = tokens._folded(norm, weight, bias)
    found = z @ folded + (shift.unsqueeze(1) if shift.dim() == 2 else shift)
    assert "dense" not in tokens.__dict__
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    for one, other in zip(gradients(found, everything), gradients(expected, everything), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


def test_the_rule_takes_the_cheaper_form() -> None:
    low = Tokens(None, (Term(torch.randn(1, 4000, 8), torch.randn(8, 256)),))
    assert low.norm_folds(256, 1) and not low.norm_folds(1, 4000)  # a weight for every pixel costs more than it saves
    assert not Tokens(None, (Term(torch.randn(1, 4000, 250), torch.randn(250, 256)),)).norm_folds(256, 1)
    assert not Tokens(torch.randn(1, 4000, 256)).norm_folds(256, 1)
    with plain_kernels():
        assert not low.norm_folds(256, 1)


@pytest.mark.parametrize("own_basis", [False, True])
@pytest.mark.parametrize("points", [6, 400])  # nothing folds; everything folds
def test_the_last_projection_folds_exactly(own_basis: bool, points: int) -> None:
    torch.manual_seed(3)
    hidden, basis = drawn(2, points, 32), drawn(*((2,) if own_basis else ()), 32, 24)
    pixels, entry, shift, later = drawn(2, points, 4), drawn(4, 24), drawn(24), drawn(24)
    weight, bias = drawn(24, 3), drawn(3)
    sources = [hidden, basis, pixels, entry, shift, later, weight, bias]
    expected = (pixels @ entry + shift + hidden @ basis + later) @ weight + bias
    tokens = Tokens(None, (Term(pixels, entry),), shift).plus(hidden, basis, later)
    found = tokens.linear(weight, bias)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    for one, other in zip(gradients(found, sources), gradients(expected, sources), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("count", [3, 60])  # few codes: folded; many: queries and keys
def test_attention_to_codes_is_the_explicit_attention(count: int) -> None:
    torch.manual_seed(4)
    layer, norm = Attention(16, 10, heads=4, head_width=4), nn.LayerNorm(16)
    pixels, entry, codes = (torch.randn(*s, requires_grad=True) for s in ((2, 90, 5), (5, 16), (2, count, 10)))
    sources = [pixels, entry, codes, *layer.parameters(), *norm.parameters()]
    tokens = Tokens(None, (Term(pixels, entry),))
    assert layer._codes_fold(tokens, 2, count) is (count == 3)
    found, logits = layer.attend_codes(tokens, norm, codes, logits=True)
    with naive_kernels():
        dense = pixels @ entry
        update, scores = layer(norm(dense), codes, logits=True)
    assert logits is not None and scores is not None
    torch.testing.assert_close(found.dense, dense + update, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logits, scores, rtol=1e-5, atol=1e-5)
    one = gradients(torch.cat([found.dense.flatten(), logits.flatten()]), sources)
    other = gradients(torch.cat([(dense + update).flatten(), scores.flatten()]), sources)
    for mine, theirs in zip(one, other, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("block", [24, 36, gate.BLOCK], ids=["2 rows", "3 rows", "all"])
def test_gate_keeps_less_and_computes_the_same(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "BLOCK", block)
    torch.manual_seed(5)
    hidden = drawn(2, 7, 12)
    fast = gated(hidden)
    with plain_kernels():
        plain = gated(hidden)
    torch.testing.assert_close(fast, plain, rtol=0, atol=0)
    torch.testing.assert_close(gradients(fast, [hidden]), gradients(plain, [hidden]), rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(gated, (drawn(3, 8),))


def test_a_layout_pooled_once_serves_every_pass() -> None:
    torch.manual_seed(8)
    discriminator = build_discriminator(DISCRIMINATOR, 5).eval().requires_grad_(False)
    real, mask = random_inputs(size=(32, 32))
    views = views_of(discriminator, mask)
    assert isinstance(views, list) and [x.shape[-1] for x in views] == [32, 16]
    for function in (judge, discriminate):
        one, other = (function(discriminator, form, real.roll(1, 3), real) for form in (mask, views))
        for mine, theirs in zip(flat(one), flat(other), strict=True):
            assert torch.equal(mine, theirs)
    with naive_kernels():
        assert views_of(discriminator, mask) is mask, "the releases pool it in every pass"


@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
def test_judging_the_fake_alone_changes_no_number(norm: str) -> None:
    torch.manual_seed(6)
    cfg = DISCRIMINATOR.model_copy(update={"norm": norm})
    discriminator = build_discriminator(cfg, 5).train().requires_grad_(False)
    real, mask = random_inputs(size=(32, 32))
    fake = torch.rand_like(real).requires_grad_(True)
    state = {name: value.clone() for name, value in discriminator.state_dict().items()}
    results = []
    for function in (discriminate, judge):
        discriminator.load_state_dict(state)
        features, others = function(discriminator, mask, fake, real)
        total = torch.stack([x.square().mean() for scale in features for x in scale]).sum()
        (gradient,) = torch.autograd.grad(total, fake)
        after = [value.clone() for value in discriminator.state_dict().values()]
        results.append(
            ([x.detach() for s in features for x in s], [x.detach() for s in others for x in s], gradient, after)
        )
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-6)


def test_a_bound_function_keeps_its_form_in_another_thread() -> None:
    seen: list[bool] = []
    with naive_kernels():
        call = bound(lambda: seen.append(is_naive()))
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert seen == [True] and folds() and not is_naive()
    with kernel_form("plain"):
        assert not folds() and not is_naive()
