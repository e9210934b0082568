"""Multi-head self- and cross-attention of the (CA)²-SIS transformer blocks: fused, with the explicit form as oracle.

In cross-attention the queries are pixels, keys and values the K class style codes. The attention loss needs the scaled
scores before softmax, averaged over heads. With heads being contiguous blocks of channels, that average is one dot
product over the full inner width, mean_h(q_h . k_h) s = (q . k) s / heads, so the fused kernel stays in use and no
per-head score map is ever stored.

Keys are few (K codes) beside the inner width, so the query projection folds with them, q_h . k_h = x (W_q,h k_h), and
the values fold with the output projection: heads x K columns instead of the inner width, twice (`attend_codes`). What the
classes of pixels and codes do to the scores is `class_access`'s.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.class_access import ClassAccess, ClassOptions
from pipeline.models.head_maps import heads_observed, show_heads
from pipeline.models.kernels import folds, is_naive
from pipeline.models.norms import layer_norm
from pipeline.models.precision import full_precision, wide
from pipeline.models.tokens import WORTH, Tokens


class Attention(nn.Module):
    """Multi-head attention: q, k, v without bias, output projection with bias, scores times head_width^-0.5."""

    def __init__(
        self, query_dim: int, context_dim: int, *, heads: int, head_width: int, classes: ClassOptions | None = None
    ) -> None:
        """`classes`: the context is codes of classes, and these are what attention knows of them."""
        super().__init__()
        inner = heads * head_width
        self.heads = heads
        self.scale = head_width**-0.5
        self.to_q = nn.Linear(query_dim, inner, bias=False)
        self.to_k = nn.Linear(context_dim, inner, bias=False)
        self.to_v = nn.Linear(context_dim, inner, bias=False)
        self.to_out = nn.Linear(inner, query_dim)
        self.classes: ClassAccess | None = None
        if classes is not None:
            self.classes = ClassAccess(classes, query_dim=query_dim, heads=heads, inner=inner)

    @property
    def reads_layout(self) -> bool:
        """Whether the classes of pixels enter."""
        return self.classes is not None and self.classes.reads_layout

    def access_table(self) -> Tensor | None:
        """The scaled table (heads,K,K) [head, class of the pixel, class of the code] that scores get, where one is learned."""
        return None if self.classes is None else self.classes.access_table()

    def forward(
        self, x: Tensor, context: Tensor | None = None, layout: Tensor | None = None, *, logits: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Attend from tokens to a context (to themselves without one).

        Args:
            x: (N,P,query_dim) float tokens.
            context: (N,K,context_dim) float, or None for self-attention; of n codes a class, (N,K,n*context_dim).
            layout: (N,P,K) {0,1}, the class of each pixel, where `reads_layout`.
            logits: also return the head-averaged scaled scores before softmax.

        Returns:
            (N,P,query_dim) output; (N,P,K) float32 logits or None. The output does not depend on `logits`.
        """
        source = x if context is None else context
        if self.classes is not None:
            source, x = self.classes.split(source), self.classes.joined(x, layout)
        q, k, v = self.to_q(x), self._keys(source), self.to_v(source)
        added = None if self.classes is None else self.classes.addend(layout)  # (N,P,heads or 1,K)
        added = None if added is None else added.transpose(1, 2)  # (N,heads or 1,P,K)
        if is_naive():
            return self._explicit(q, k, v, added, logits)
        mask = None if added is None else added.to(q.dtype)
        out = F.scaled_dot_product_attention(
            self._split(q), self._split(k), self._split(v), attn_mask=mask, scale=self.scale
        )
        out = self.to_out(out.transpose(1, 2).flatten(2))  # (N,P,query_dim)
        if not logits:
            return out, None
        several = self.classes is not None and self.classes.options.codes > 1
        if heads_observed() or several:
            with full_precision(q):
                scores = self._seen(self._split(wide(q)) @ self._split(wide(k)).transpose(2, 3) * self.scale, added)
            show_heads(scores)
            if several:
                return out, scores.mean(dim=1)
        mean = self._mean_logits(q, k)
        return out, mean if added is None or not self._sees_addend else mean + added.mean(dim=1)

    def attend_self(self, tokens: Tokens, norm: nn.LayerNorm) -> Tokens:
        """`tokens` (N,P,D) plus self-attention of their layer norm."""
        weight = torch.cat([self.to_q.weight, self.to_k.weight, self.to_v.weight]).t()  # (D,3 inner)
        q, k, v = tokens.normed_linear(norm, weight, None).chunk(3, dim=-1)
        out = F.scaled_dot_product_attention(self._split(q), self._split(k), self._split(v), scale=self.scale)
        return tokens.plus(out.transpose(1, 2).flatten(2), self.to_out.weight.t(), self.to_out.bias)

    def attend_codes(
        self, tokens: Tokens, norm: nn.LayerNorm, style: Tensor, layout: Tensor | None = None, *, logits: bool
    ) -> tuple[Tokens, Tensor | None]:
        """`tokens` (N,P,D) plus attention of their layer norm to the codes `style`; `style`, `layout`, logits as in `forward`."""
        codes = style if self.classes is None else self.classes.split(style)  # (N,K,context_dim)
        images, count, _ = codes.shape
        if not self._codes_fold(tokens, images, count):
            update, seen = self(layer_norm(tokens.dense, norm), style, layout, logits=logits)
            return Tokens(tokens.dense + update), seen
        with full_precision(codes):
            k = self._keys(wide(codes)).view(images, count, self.heads, -1) * self.scale
            v = self.to_v(wide(codes)).view(images, count, self.heads, -1)
            to_q = self.to_q.weight.view(self.heads, -1, self.to_q.in_features)  # (heads,width,D)
            to_out = self.to_out.weight.view(-1, self.heads, v.shape[-1])  # (D,heads,width)
            queries = torch.einsum("hwd,nkhw->ndhk", to_q, k).flatten(2)  # (N,D,heads*K)
            values = torch.einsum("nkhw,dhw->nhkd", v, to_out).flatten(1, 2)  # (N,heads*K,D)
        scores = tokens.normed_linear(norm, queries, None, precise=True)  # (N,P,heads*K)
        vectors = None if self.classes is None else self.classes.class_vectors()
        if vectors is not None and layout is not None:
            with full_precision(codes):
                scores = scores + layout @ (vectors @ queries)
        scores = scores.unflatten(-1, (self.heads, count))  # (N,P,heads,K)
        added = None if self.classes is None else self.classes.addend(layout)
        weights = (scores if added is None else scores + added).softmax(dim=-1).flatten(2)  # (N,P,heads*K)
        out = tokens.plus(weights, values, self.to_out.bias)
        if not logits:
            return out, None
        scores = self._seen(scores, added)
        show_heads(scores.transpose(1, 2))  # (N,P,heads,K) -> (N,heads,P,K)
        return out, scores.mean(dim=2)

    def _codes_fold(self, tokens: Tokens, images: int, count: int) -> bool:
        """Whether `attend_codes` folds its projections with the codes: by multiply-adds."""
        if not folds():
            return False
        points, width = tokens.points_width
        inner, columns = self.to_q.out_features, self.heads * count
        read = min(width, tokens.rank) if tokens.norm_folds(columns, images) else width
        folded = 2 * images * width * inner * count + points * (read + width) * columns
        return folded < WORTH * 2 * points * inner * (width + count)

    def _keys(self, codes: Tensor) -> Tensor:
        """(N,K,context_dim) -> (N,K,inner)."""
        keys: Tensor = self.to_k(codes)
        return keys if self.classes is None else self.classes.named(keys)

    @property
    def _sees_addend(self) -> bool:
        return self.classes is not None and self.classes.seen

    def _seen(self, scores: Tensor, added: Tensor | None) -> Tensor:
        """What attention loss and maps see of scores (...,codes): (...,classes), with what was learned of classes."""
        scores = scores + added if added is not None and self._sees_addend else scores
        return scores if self.classes is None else self.classes.by_class(scores)

    def _split(self, x: Tensor) -> Tensor:
        """(N,P,inner) -> (N,heads,P,head_width)."""
        batch, tokens, inner = x.shape
        return x.view(batch, tokens, self.heads, inner // self.heads).transpose(1, 2)

    def _mean_logits(self, q: Tensor, k: Tensor) -> Tensor:
        """Head-averaged scaled scores (N,P,K), float32 at least: a loss is computed from them."""
        with full_precision(q):
            logits: Tensor = (wide(q) * (self.scale / self.heads)) @ wide(k).transpose(1, 2)
            return logits

    def _explicit(
        self, q: Tensor, k: Tensor, v: Tensor, added: Tensor | None, logits: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The textbook form: per-head scores, softmax, weighted sum."""
        scores = self._split(q) @ self._split(k).transpose(2, 3) * self.scale  # (N,heads,P,K)
        out = (scores if added is None else scores + added).softmax(dim=-1) @ self._split(v)
        out = self.to_out(out.transpose(1, 2).flatten(2))
        if not logits:
            return out, None
        scores = self._seen(wide(scores), added)
        show_heads(scores)
        return out, scores.mean(dim=1)
