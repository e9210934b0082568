"""Pixel tokens of a transformer block, held as coefficients times a basis until somebody needs the product.

Tokens of the (CA)²-SIS decoder are wide (512) but often of low rank: they come from a 1x1 convolution of C channels,
and cross-attention adds sums of heads x K rows, the value codes behind the output projection, weighted by attention.
A linear layer after a layer norm then takes coefficients and folded weights instead of tokens and weights, and the last
projection of a block folds with the feed-forward's. Both are exact: (Z A) W = Z (A W), and the variance of Z A over D
channels is z (A A^T / D) z^T once A's rows are centred. Whichever form takes fewer multiply-adds runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from pipeline.models.kernels import folds
from pipeline.models.norms import layer_norm
from pipeline.models.precision import full_precision, wide

WORTH = 0.8  # folding must save a fifth of the multiply-adds: it takes more, and smaller, operations
# Columns below which some BLAS (seen: MKL on an AMD EPYC, up to 8) sum rows.T @ grad in one long chain: ten times the error
# of grad.T @ rows.
NARROW = 12


@dataclass(frozen=True)
class Term:
    """One summand: coefficients (N,P,r) times a basis, (r,D) or one an image (N,r,D)."""

    coefficients: Tensor
    basis: Tensor

    @property
    def rank(self) -> int:
        """r."""
        return self.basis.shape[-2]

    @property
    def bases(self) -> int:
        """1, or N where each image has its own."""
        return batch_of(self.basis)


@dataclass(frozen=True)
class Tokens:
    """Tokens (N,P,D) = `whole` + sum of `terms` + `offset`; at least one part is there."""

    whole: Tensor | None  # (N,P,D)
    terms: tuple[Term, ...] = ()
    offset: Tensor | None = None  # (D,)
    # `dense` once it is known. Not functools.cached_property: its lock, up to Python 3.11, is a graph break for torch.compile.
    _product: list[Tensor] = field(default_factory=list, compare=False, repr=False)

    def plus(self, coefficients: Tensor, basis: Tensor, offset: Tensor | None) -> Tokens:
        """These tokens plus `coefficients` (N,P,r) @ `basis` ((N,)r,D) + `offset` (D,)."""
        if self._multiplied_out:
            return Tokens(self.dense, (Term(coefficients, basis),), offset)
        joint = self.offset if offset is None else offset if self.offset is None else self.offset + offset
        return Tokens(self.whole, (*self.terms, Term(coefficients, basis)), joint)

    @property
    def dense(self) -> Tensor:
        """The tokens themselves (N,P,D), computed once."""
        if not self._product:
            self._product.append(self._multiply_out())
        return self._product[0]

    def _multiply_out(self) -> Tensor:
        total, offset = self.whole, self.offset
        for term in self.terms:
            part = times(term.coefficients, term.basis, offset)
            total, offset = part if total is None else total + part, None
        assert total is not None, "tokens have at least one part"
        return total if offset is None else total + offset

    def normed_linear(
        self, norm: nn.LayerNorm, weight: Tensor, bias: Tensor | None, *, precise: bool = False
    ) -> Tensor:
        """Layer norm of the tokens, then `weight` ((N,)D,O) and `bias` (O,) -> (N,P,O); `precise`: float32 in any case."""
        if self.norm_folds(weight.shape[-1], batch_of(weight)):
            normed, weight, bias = self._folded(norm, weight, bias)
        else:
            normed = layer_norm(self.dense, norm)
        if not precise:
            return times(normed, weight, bias)
        with full_precision(weight):
            return times(wide(normed), wide(weight), bias)

    def norm_folds(self, outputs: int, weights: int) -> bool:
        """Whether `normed_linear` to `outputs` channels takes folded weights (`weights`: N if one an image, else 1)."""
        if not folds() or self.whole is not None or self._multiplied_out:
            return False
        points, width = self.points_width
        rank = self.rank
        bases = max(term.bases for term in self.terms)
        folding = max(bases, weights) * rank * width * outputs + bases * rank * rank * width
        return folding + points * rank * (rank + outputs) < WORTH * points * width * (rank + outputs)

    def linear(self, weight: Tensor, bias: Tensor | None) -> Tensor:
        """`weight` (D,O) and `bias` (O,) -> (N,P,O); a term whose basis folds with the weight is never multiplied out."""
        if self._multiplied_out:
            return times(self.dense, weight, bias)
        points, width = self.points_width
        outputs = weight.shape[1]
        kept: list[Term] = []
        folded: list[Term] = []
        for term in self.terms:
            cost = term.bases * term.rank * width * outputs + points * term.rank * outputs
            pays = folds() and cost < WORTH * points * term.rank * width
            (folded if pays else kept).append(term)
        shift = bias
        if self.offset is not None and folded:
            with full_precision(weight):
                moved = wide(self.offset) @ wide(weight)  # (O,)
                shift = moved if bias is None else moved + wide(bias)
        rest = Tokens(self.whole, tuple(kept), None if folded else self.offset)
        out: Tensor | None = None
        if self.whole is not None or kept:
            out, shift = times(rest.dense, weight, shift), None
        for term in folded:
            with full_precision(weight):
                basis = wide(term.basis) @ wide(weight)  # ((N,)r,O)
            part = times(term.coefficients, basis, shift)
            out, shift = part if out is None else out + part, None
        assert out is not None, "tokens have at least one part"
        return out

    def _folded(self, norm: nn.LayerNorm, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Coefficients (N,P,R) divided by the tokens' deviation, and the weight and bias to apply to them; float32."""
        width = weight.shape[-2]
        with full_precision(weight):
            bases = [wide(term.basis) for term in self.terms]
            parts = [wide(term.coefficients) for term in self.terms]
            if self.offset is not None:
                bases.append(wide(self.offset).unsqueeze(0))
                parts.append(torch.ones_like(parts[0][..., :1]))
            if any(basis.dim() == 3 for basis in bases):
                images = parts[0].shape[0]
                bases = [basis if basis.dim() == 3 else basis.expand(images, -1, -1) for basis in bases]
            basis = torch.cat(bases, dim=-2)  # ((N,)R,D)
            centred = basis - basis.mean(dim=-1, keepdim=True)  # tokens minus their mean over channels
            gram = centred @ centred.mT / width  # ((N,)R,R)
            folded = (centred * norm.weight) @ wide(weight)  # ((N,)R,O)
            shift = norm.bias @ wide(weight)  # (O,) or (N,O)
            shift = shift if bias is None else shift + bias
            z = torch.cat(parts, dim=-1)  # (N,P,R)
            variance = ((z @ gram) * z).sum(dim=-1, keepdim=True)  # (N,P,1); rounding can take it below zero
            z = z * torch.rsqrt(variance.clamp(min=0.0) + norm.eps)
        return z, folded, shift

    @property
    def _multiplied_out(self) -> bool:
        return bool(self._product)

    @property
    def rank(self) -> int:
        """Columns that all coefficients have together, the offset's among them; D where a part is whole."""
        return self.points_width[1] if self.whole is not None else sum(term.rank for term in self.terms) + 1

    @property
    def points_width(self) -> tuple[int, int]:
        """N x P, D."""
        if self.whole is not None:
            return self.whole.shape[0] * self.whole.shape[1], self.whole.shape[2]
        first = self.terms[0]
        return first.coefficients.shape[0] * first.coefficients.shape[1], first.basis.shape[-1]


def batch_of(matrix: Tensor) -> int:
    """1 for (r,D), N for (N,r,D)."""
    return 1 if matrix.dim() == 2 else matrix.shape[0]


def times(x: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    """`x` (N,P,r) @ `matrix` ((N,)r,O) + `bias` (O,) or (N,O) -> (N,P,O)."""
    if matrix.dim() == 3 and matrix.shape[0] == 1:
        matrix = matrix[0]
        bias = bias if bias is None else bias.flatten()
    if matrix.dim() == 2 and (bias is None or bias.dim() == 1):
        if matrix.shape[1] < NARROW:
            matrix = matrix.t().contiguous().t()  # by columns: its gradient is then grad.T @ rows, transposed
        rows = x.flatten(0, -2)
        product = rows @ matrix if bias is None else torch.addmm(bias, rows, matrix)
        return product.unflatten(0, x.shape[:-1])
    if bias is None:
        return x @ matrix
    shift = (bias.unsqueeze(1) if bias.dim() == 2 else bias).to(x.dtype)  # (N,1,O) or (O,)
    return x @ matrix + shift if matrix.dim() == 2 else torch.baddbmm(shift, x, matrix)
