"""How the classes of pixels and codes enter cross-attention (`model.attention.masking`, `class_keys`, several codes a class).

In the release the layout reaches attention through the tokens alone: a pixel must tell its class from what the coarsest
stage made of the mask. Here the scaled score of head h between a pixel of class c and a code of class k gets an addend:

    bias     b where c = k: a number, or scale times one learned scalar a head
    hard     minus infinity where c != k: imposed, as in SCAM (ECCV 2022)
    access   scale times T[h, c, k], a learned table, from 0
    query    none: scale times a learned vector of class c joins the normalised token before the query projection, from 0

A pixel of no class gets no addend: its attention is the released one. Every class has a code (an absent one its learned
default), so under `hard` no softmax is empty. What is learned has a scale of its own, because Adam moves a parameter by
about its learning rate an update, whatever the parameter stands for.

The attention loss sees the scores before `bias` and `hard`, which it could not tell from its own success, and with what
is learned by `access` and `query`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.models.conditioning import resize_nearest
from pipeline.models.kernels import folds
from pipeline.models.precision import full_precision
from pipeline.schema.model_ca2sis import AttentionSection, Masking


@dataclass(frozen=True)
class ClassOptions:
    """What the cross-attention of a decoder knows of classes."""

    num_classes: int
    codes: int  # a class
    masking: Masking
    bias: float | Literal["learned"]
    bias_scale: float
    access_scale: float
    access_rank: int | None
    query_scale: float
    keys: bool

    @classmethod
    def of(cls, section: AttentionSection, num_classes: int, codes: int) -> ClassOptions:
        """The options of a config section. Raises UserError for a rank that saves nothing."""
        rank = section.access_rank
        if section.masking == "access" and rank is not None and rank >= num_classes:
            raise UserError(
                f"model.attention.access_rank={rank}: with {num_classes} classes allowed are 1 to {num_classes - 1}, "
                f"or null (the whole table)"
            )
        return cls(
            num_classes,
            codes,
            section.masking,
            section.bias,
            section.bias_scale,
            section.access_scale,
            rank,
            section.query_scale,
            section.class_keys,
        )


def pixel_classes(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """One-hot `mask` (N,K,H,W) -> (N,h*w,K) {0,1} at a stage's size, pixels row by row; all 0 for a pixel of no class."""
    return resize_nearest(mask, size).flatten(2).transpose(1, 2)


class ClassAccess(nn.Module):
    """The classes of one cross-attention layer: of its codes, and of the pixels that look at them."""

    def __init__(self, options: ClassOptions, *, query_dim: int, heads: int, inner: int) -> None:
        super().__init__()
        self.options = options
        classes, rank = options.num_classes, options.access_rank
        learns = options.masking == "access"
        self.table = nn.Parameter(torch.zeros(heads, classes, classes)) if learns and rank is None else None
        self.table_pixels: nn.Parameter | None = None  # (heads,K,r), from 0, so that the table starts from 0
        self.table_codes: nn.Parameter | None = None  # (heads,K,r)
        if learns and rank is not None:
            self.table_pixels = nn.Parameter(torch.zeros(heads, classes, rank))
            self.table_codes = nn.Parameter(torch.randn(heads, classes, rank) / math.sqrt(rank))
        adapts = options.masking == "bias" and options.bias == "learned"
        self.strength = nn.Parameter(torch.zeros(heads)) if adapts else None
        self.vectors = nn.Parameter(torch.zeros(classes, query_dim)) if options.masking == "query" else None
        self.keys = nn.Parameter(torch.zeros(classes, inner)) if options.keys else None

    @property
    def reads_layout(self) -> bool:
        """Whether the class of a pixel is asked for."""
        return self.options.masking != "none"

    @property
    def seen(self) -> bool:
        """Whether the addend is part of the scores that the attention loss sees."""
        return self.options.masking == "access"

    def split(self, style: Tensor) -> Tensor:
        """Rows of a class (N,K,n*S) -> codes (N,K*n,S), those of a class together."""
        return style if self.options.codes == 1 else style.unflatten(2, (self.options.codes, -1)).flatten(1, 2)

    def named(self, keys: Tensor) -> Tensor:
        """Keys (N,K*n,inner) plus the vector of their class, where there are such vectors."""
        return keys if self.keys is None else keys + self.keys.repeat_interleave(self.options.codes, dim=0)

    def by_class(self, scores: Tensor) -> Tensor:
        """Scores of codes (...,K*n) -> of classes (...,K): the logarithm of the mean over a class's codes of exp(score).

        A softmax over these gives a class the attention that all its codes get together; n equal codes score as one.
        """
        codes = self.options.codes
        return scores if codes == 1 else scores.unflatten(-1, (-1, codes)).logsumexp(dim=-1) - math.log(codes)

    def class_vectors(self) -> Tensor | None:
        """Scaled vectors (K,query_dim) that join the tokens of their class under `query`."""
        return None if self.vectors is None else self.options.query_scale * self.vectors

    def joined(self, x: Tensor, layout: Tensor | None) -> Tensor:
        """Normalised tokens (N,P,query_dim) plus the vector of their pixel's class, under `query`."""
        vectors = self.class_vectors()
        if vectors is None or layout is None:
            return x
        return x + (layout @ vectors if folds() else _looked_up(vectors, layout)).to(x.dtype)

    def access_table(self) -> Tensor | None:
        """The scaled table (heads,K,K) [head, class of pixel, class of code] under `access`; float32."""
        if self.table is not None:
            return self.options.access_scale * self.table
        if self.table_pixels is None or self.table_codes is None:
            return None
        with full_precision(self.table_pixels):
            return self.options.access_scale * (self.table_pixels @ self.table_codes.mT)

    def addend(self, layout: Tensor | None) -> Tensor | None:
        """What the classes `layout` (N,P,K) of the pixels add to scaled scores: (N,P,heads or 1,K*n) float32, or None."""
        table = self.access_table()
        if layout is None or self.options.masking in ("none", "query"):
            return None
        if table is not None:
            added = self._from_table(table, layout)
        elif self.options.masking == "hard":
            anywhere = layout.sum(dim=-1, keepdim=True) == 0  # a pixel of no class
            added = torch.zeros_like(layout).masked_fill((layout == 0) & ~anywhere, -math.inf).unsqueeze(2)
        else:
            added = layout.unsqueeze(2) * self._bias(layout)
        return added if self.options.codes == 1 else added.repeat_interleave(self.options.codes, dim=-1)

    def _bias(self, layout: Tensor) -> Tensor:
        """(heads or 1,1): what is added to the own class."""
        if self.strength is not None:
            return (self.options.bias_scale * self.strength).unsqueeze(1)
        assert self.options.bias != "learned", "a learned bias has its parameter"
        return layout.new_full((1, 1), self.options.bias)

    def _from_table(self, table: Tensor, layout: Tensor) -> Tensor:
        """Rows of `table` (heads,K,K) for pixels of `layout` (N,P,K): (N,P,heads,K).

        Fast as a product, which is cheaper to differentiate than looking up.
        """
        rows = table.transpose(0, 1).flatten(1)  # (K,heads*K)
        with full_precision(layout):
            added = layout @ rows if folds() else _looked_up(rows, layout)
        return added.unflatten(-1, (table.shape[0], -1))


def _looked_up(rows: Tensor, layout: Tensor) -> Tensor:
    """Of `rows` (K,D), the one of each pixel's class: (N,P,D); zero where a pixel has none."""
    return rows[layout.argmax(dim=-1)] * layout.sum(dim=-1, keepdim=True)
