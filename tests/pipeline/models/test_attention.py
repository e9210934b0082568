"""Attention against the textbook form, written out with numpy, and the head-averaged logits against their
definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.models.attention import Attention
from pipeline.models.kernels import naive_kernels


def reference(layer: Attention, x: torch.Tensor, context: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """One image, heads as contiguous channel blocks, float64."""
    weights = {name: value.detach().double().numpy() for name, value in layer.named_parameters()}
    tokens, codes = x.double().numpy(), context.double().numpy()
    q, k, v = tokens @ weights["to_q.weight"].T, codes @ weights["to_k.weight"].T, codes @ weights["to_v.weight"].T
    width = q.shape[-1] // layer.heads
    outputs, scores = [], []
    for head in range(layer.heads):
        own = slice(head * width, (head + 1) * width)
        score = q[:, own] @ k[:, own].T / np.sqrt(width)
        shifted = np.exp(score - score.max(axis=-1, keepdims=True))
        outputs.append(shifted / shifted.sum(axis=-1, keepdims=True) @ v[:, own])
        scores.append(score)
    out = np.concatenate(outputs, axis=-1) @ weights["to_out.weight"].T + weights["to_out.bias"]
    return out, np.mean(scores, axis=0)


@pytest.mark.parametrize("self_attention", [False, True])
def test_output_and_logits_are_the_textbooks(self_attention: bool) -> None:
    torch.manual_seed(0)
    layer = Attention(12, 12 if self_attention else 7, heads=3, head_width=5)
    x = torch.randn(2, 9, 12)
    context = x if self_attention else torch.randn(2, 4, 7)
    with torch.no_grad():
        out, logits = layer(x, None if self_attention else context, logits=True)
    assert logits is not None
    for image in range(2):
        expected, scores = reference(layer, x[image], context[image])
        np.testing.assert_allclose(out[image].numpy(), expected, atol=2e-6)
        np.testing.assert_allclose(logits[image].numpy(), scores, atol=2e-6)


def test_explicit_form_agrees_in_value_and_gradient() -> None:
    torch.manual_seed(1)
    layer = Attention(8, 6, heads=2, head_width=4).double()
    x, context = torch.randn(1, 5, 8).double(), torch.randn(1, 3, 6).double()
    results = []
    for naive in (False, True):
        layer.zero_grad()
        layer.to_q.weight.data = layer.to_q.weight.data.clone()
        if naive:
            with naive_kernels():
                out, logits = layer(x, context, logits=True)
        else:
            out, logits = layer(x, context, logits=True)
        (out.square().sum() + logits.square().sum()).backward()
        results.append([out.detach(), logits.detach().double(), *(p.grad.clone() for p in layer.parameters())])
    for fused, explicit in zip(*results, strict=True):
        torch.testing.assert_close(fused, explicit, rtol=1e-6, atol=1e-6)


def test_no_logits_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = Attention(4, 4, heads=1, head_width=4)

    def forbidden(*_args: object) -> torch.Tensor:
        raise AssertionError("logits were computed")

    monkeypatch.setattr(layer, "_mean_logits", forbidden)
    out, logits = layer(torch.randn(1, 3, 4), torch.randn(1, 2, 4))
    assert logits is None and out.shape == (1, 3, 4)


def test_logits_stay_float32_under_autocast() -> None:
    torch.manual_seed(2)
    layer = Attention(8, 8, heads=2, head_width=4)
    x, context = torch.randn(1, 6, 8), torch.randn(1, 3, 8)
    with torch.no_grad():
        exact = layer(x, context, logits=True)[1]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out, logits = layer(x, context, logits=True)
    assert out.dtype == torch.bfloat16 and logits.dtype == torch.float32
    torch.testing.assert_close(logits, exact, rtol=0, atol=0.02)
