"""Value times GELU of gate, the two halves of a projection; keeps the projection alone for the backward pass.

At 256x256 the projection takes hundreds of MiB, far more than any cache. The fast form goes through it in blocks of rows,
all operations of a block before the next, so that it is read and written once, and nothing of its size is held beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.models.kernels import folds

BLOCK = 2**20  # elements of the projection a block, 4 MiB in float32: the fastest on one and on two cores


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
        out = hidden.new_empty(*hidden.shape[:-1], hidden.shape[-1] // 2)
        for rows, result in _blocks(hidden, out):
            value, gate = rows.chunk(2, dim=-1)
            torch.ops.aten.gelu.out(gate, out=result).mul_(value)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        (hidden,) = ctx.saved_tensors
        out = torch.empty_like(hidden)
        for rows, change, result in _blocks(hidden, grad, out):
            value, gate = rows.chunk(2, dim=-1)
            by_value, by_gate = result.chunk(2, dim=-1)
            torch.ops.aten.gelu.out(gate, out=by_value).mul_(change)
            torch.mul(change, value, out=by_gate)
            torch.ops.aten.gelu_backward.grad_input(by_gate, gate, grad_input=by_gate)
        return out


def _blocks(hidden: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Blocks of rows of tensors (...,width): the same rows of each; on a GPU, all rows at once."""
    count = max(1, BLOCK // hidden.shape[-1]) if hidden.device.type == "cpu" else max(1, hidden.numel())
    return zip(*(x.flatten(0, -2).split(count) for x in (hidden, *others)), strict=True)
