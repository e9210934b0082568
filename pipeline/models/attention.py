"""Multi-head self- and cross-attention of the (CA)²-SIS transformer blocks: fused, with the explicit form as oracle.

In cross-attention the queries are pixels, keys and values the K class style codes. The attention loss needs the scaled
scores before softmax, averaged over heads. With heads being contiguous blocks of channels, that average is one dot
product over the full inner width, mean_h(q_h . k_h) s = (q . k) s / heads, so the fused kernel stays in use and no
per-head score map is ever stored.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.kernels import is_naive


def full_precision(x: Tensor) -> AbstractContextManager[Any]:
    """Context without autocast on the device of `x`; what runs on shapes alone (meta device) needs none."""
    return nullcontext() if x.device.type == "meta" else torch.autocast(x.device.type, enabled=False)


class Attention(nn.Module):
    """Multi-head attention: q, k, v without bias, output projection with bias, scores times head_width^-0.5."""

    def __init__(self, query_dim: int, context_dim: int, *, heads: int, head_width: int) -> None:
        super().__init__()
        inner = heads * head_width
        self.heads = heads
        self.scale = head_width**-0.5
        self.to_q = nn.Linear(query_dim, inner, bias=False)
        self.to_k = nn.Linear(context_dim, inner, bias=False)
        self.to_v = nn.Linear(context_dim, inner, bias=False)
        self.to_out = nn.Linear(inner, query_dim)

    def forward(
        self, x: Tensor, context: Tensor | None = None, *, logits: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Attend from tokens to a context (to themselves without one).

        Args:
            x: (N,P,query_dim) float tokens.
            context: (N,K,context_dim) float, or None for self-attention.
            logits: also return the head-averaged scaled scores before softmax.

        Returns:
            (N,P,query_dim) output; (N,P,K) float32 logits or None. The output does not depend on `logits`.
        """
        source = x if context is None else context
        q, k, v = self.to_q(x), self.to_k(source), self.to_v(source)
        if is_naive():
            return self._explicit(q, k, v, logits)
        out = F.scaled_dot_product_attention(self._split(q), self._split(k), self._split(v), scale=self.scale)
        out = self.to_out(out.transpose(1, 2).flatten(2))  # (N,P,query_dim)
        return out, self._mean_logits(q, k) if logits else None

    def _split(self, x: Tensor) -> Tensor:
        """(N,P,inner) -> (N,heads,P,head_width)."""
        batch, tokens, inner = x.shape
        return x.view(batch, tokens, self.heads, inner // self.heads).transpose(1, 2)

    def _mean_logits(self, q: Tensor, k: Tensor) -> Tensor:
        """Head-averaged scaled scores (N,P,K), always float32: a loss is computed from them."""
        with full_precision(q):
            logits: Tensor = (q.float() * (self.scale / self.heads)) @ k.float().transpose(1, 2)
            return logits

    def _explicit(self, q: Tensor, k: Tensor, v: Tensor, logits: bool) -> tuple[Tensor, Tensor | None]:
        """The textbook form: per-head scores, softmax, weighted sum."""
        scores = self._split(q) @ self._split(k).transpose(2, 3) * self.scale  # (N,heads,P,K)
        out = scores.softmax(dim=-1) @ self._split(v)
        out = self.to_out(out.transpose(1, 2).flatten(2))
        return out, scores.float().mean(dim=1) if logits else None
