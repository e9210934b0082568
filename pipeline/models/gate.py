"""Value times GELU of gate, the two halves of a projection; keeps the projection alone for the backward pass."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.models.kernels import folds


def gated(hidden: Tensor) -> Tensor:
    """`hidden` (...,2D) -> (...,D): first half times GELU (exact) of the second."""
    if folds() and hidden.requires_grad and torch.is_grad_enabled():
        out: Tensor = _Gated.apply(hidden)
        return out
    value, gate = hidden.chunk(2, dim=-1)
    return value * F.gelu(gate)


class _Gated(torch.autograd.Function):
    """The plain form keeps GELU's output as well; here it is computed again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(hidden)
        value, gate = hidden.chunk(2, dim=-1)
        return F.gelu(gate).mul_(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        (hidden,) = ctx.saved_tensors
        value, gate = hidden.chunk(2, dim=-1)
        out = torch.empty_like(hidden)
        by_value, by_gate = out.chunk(2, dim=-1)
        torch.mul(F.gelu(gate), grad, out=by_value)
        torch.ops.aten.gelu_backward(grad * value, gate, grad_input=by_gate)
        return out
