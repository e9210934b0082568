"""Building blocks of the (CA)²-SIS decoder: residual block, gated feed-forward, conditioned transformer block.

A decoder stage is a residual block followed by a transformer block; the sub-layer between self-attention and
feed-forward is where class styles enter: cross-attention as published, or one of the ablation's stand-ins (see
`StyleModulated`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pipeline.models.attention import Attention
from pipeline.models.clade_norm import CladeNorm
from pipeline.models.class_access import ClassOptions, pixel_classes
from pipeline.models.conditioning import SeanNorm, SpadeNorm, resize_nearest
from pipeline.models.gate import gated
from pipeline.models.kernels import bound, is_naive
from pipeline.models.norms import GroupNorm, NormKind
from pipeline.models.tokens import Term, Tokens
from pipeline.schema.model_ca2sis import Conditioning

NORM_GROUPS = 32  # group count of the decoder's group norms; source: release


def group_norm(channels: int, eps: float) -> GroupNorm:
    """Group norm with 32 groups, or the largest common divisor where the channels are fewer or not a multiple."""
    return GroupNorm(math.gcd(NORM_GROUPS, channels), channels, eps=eps)


class ResidualBlock(nn.Module):
    """Norm, SiLU, [nearest upsampling x2], 3x3 conv, norm, SiLU, 3x3 conv, plus the [upsampled] input.

    The input goes through a 1x1 conv where the width changes.
    """

    def __init__(self, in_channels: int, out_channels: int, *, upsample: bool) -> None:
        super().__init__()
        self.upsample = upsample
        self.norm1 = group_norm(in_channels, eps=1e-5)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = group_norm(out_channels, eps=1e-5)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip: nn.Module = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N,C,h,w) -> (N,C',h,w), or (N,C',2h,2w) when upsampling."""
        h = F.silu(self.norm1(x))
        if self.upsample:
            h = F.interpolate(h, scale_factor=2.0, mode="nearest")
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        h = self.conv1(h)
        h = self.conv2(F.silu(self.norm2(h)))
        out: Tensor = self.skip(x) + h
        return out


class GatedFeedForward(nn.Module):
    """One projection to twice the hidden width; its first half times GELU (exact) of the second; projection back."""

    def __init__(self, dim: int, multiplier: int) -> None:
        super().__init__()
        self.project = nn.Linear(dim, 2 * multiplier * dim)
        self.out = nn.Linear(multiplier * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(N,P,dim) -> (N,P,dim)."""
        out: Tensor = self.out(gated(self.project(x)))
        return out

    def add_to(self, tokens: Tokens, norm: nn.LayerNorm) -> Tokens:
        """`tokens` (N,P,dim) plus the feed-forward of their layer norm."""
        hidden = tokens.normed_linear(norm, self.project.weight.t(), self.project.bias)
        return tokens.plus(gated(hidden), self.out.weight.t(), self.out.bias)


class StyleModulated(nn.Module):
    """The `spade`, `sean` and `clade` conditionings of the CA²-SIS decoder: modulation in place of cross-attention.

    Style codes are first projected to `style_channels`. `sean` then is the SEAN block. `spade` is the SPADE layer
    computed from the label map concatenated with the projected codes broadcast into their regions: published SPADE has
    one global style, which would leave this arm unable to reconstruct and the comparison silent on conditioning. `clade`
    is the same without any convolution: a class looks scale and shift up in a table, to which a linear layer of its
    projected code is added, so that both are constant inside a region. With `style_channels` 0, `spade` and `clade` are
    modulation by the label map alone, and no style enters.
    """

    def __init__(
        self,
        kind: Conditioning,
        dim: int,
        *,
        num_classes: int,
        style_dim: int,
        style_channels: int,
        hidden: int,
        norm: NormKind,
    ) -> None:
        super().__init__()
        self.project = nn.Linear(style_dim, style_channels) if style_channels else None
        self.norm: SpadeNorm | SeanNorm | CladeNorm
        if kind == "spade":
            self.norm = SpadeNorm(dim, num_classes, hidden=hidden, norm=norm, extra_channels=style_channels)
        elif kind == "clade":
            self.norm = CladeNorm(dim, num_classes, norm=norm, style_channels=style_channels)
        else:
            # noise off: the decoder is deterministic under every conditioning, so arms differ in conditioning alone
            self.norm = SeanNorm(dim, num_classes, style_channels, hidden=hidden, norm=norm, noise="off")
        self.to_out = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor, size: tuple[int, int], style: Tensor, mask: Tensor) -> Tensor:
        """tokens (N,h*w,dim), style (N,K,S), mask (N,K,H,W) one-hot -> (N,h*w,dim), to be added to the tokens."""
        x = tokens.transpose(1, 2).unflatten(2, size)  # (N,dim,h,w)
        codes = self.project(style) if self.project is not None else None  # (N,K,E)
        if isinstance(self.norm, SeanNorm):
            assert codes is not None, "the config section refuses sean without style channels"
            x = self.norm(x, mask, codes)
        elif isinstance(self.norm, CladeNorm):
            x = self.norm(x, mask, codes=codes)
        elif codes is None:
            x = self.norm(x, mask)
        else:
            layout = resize_nearest(mask, size)
            spread = torch.einsum("nke,nkhw->nehw", codes, layout.to(codes.dtype))  # (N,E,h,w)
            x = self.norm(x, mask, spread)
        out: Tensor = self.to_out(x.flatten(2).transpose(1, 2))
        return out


@dataclass(frozen=True)
class TransformerOptions:
    """What the transformer block of one stage is made of."""

    heads: int
    head_width: int
    depth: int  # layers
    feed_forward: int  # multiple of the inner width
    self_attention: bool
    conditioning: Conditioning
    num_classes: int
    style_dim: int  # width of a class's style: of all its codes
    classes: ClassOptions  # of cross-attention
    modulation_hidden: int
    modulation_style_channels: int
    modulation_norm: NormKind
    checkpointing: bool

    @property
    def inner(self) -> int:
        """Token width."""
        return self.heads * self.head_width


class TransformerLayer(nn.Module):
    """Pre-norm layer with residuals: [self-attention], conditioning, gated feed-forward."""

    def __init__(self, options: TransformerOptions) -> None:
        super().__init__()
        dim = options.inner
        self.norm1 = nn.LayerNorm(dim) if options.self_attention else None
        self.self_attention: Attention | None = None
        if options.self_attention:
            self.self_attention = Attention(dim, dim, heads=options.heads, head_width=options.head_width)
        attends = options.conditioning == "cross_attention"
        self.norm2 = nn.LayerNorm(dim) if attends else None
        self.cross_attention: Attention | None = None
        if attends:
            code_dim = options.style_dim // options.classes.codes
            self.cross_attention = Attention(
                dim, code_dim, heads=options.heads, head_width=options.head_width, classes=options.classes
            )
        self.modulation: StyleModulated | None = None
        if options.conditioning in ("spade", "sean", "clade"):  # brings its own normalisation
            self.modulation = StyleModulated(
                options.conditioning,
                dim,
                num_classes=options.num_classes,
                style_dim=options.style_dim,
                style_channels=options.modulation_style_channels,
                hidden=options.modulation_hidden,
                norm=options.modulation_norm,
            )
        self.norm3 = nn.LayerNorm(dim)
        self.feed_forward = GatedFeedForward(dim, options.feed_forward)

    def forward(
        self, tokens: Tensor, size: tuple[int, int], style: Tensor, mask: Tensor, logits: bool
    ) -> tuple[Tensor, Tensor | None]:
        """tokens (N,h*w,dim), style (N,K,S), mask (N,K,H,W) -> tokens, and cross-attention's logits (N,h*w,K) if asked for."""
        scores: Tensor | None = None
        if self.self_attention is not None and self.norm1 is not None:
            tokens = tokens + self.self_attention(self.norm1(tokens))[0]
        if self.cross_attention is not None and self.norm2 is not None:
            layout = pixel_classes(mask, size) if self.cross_attention.reads_layout else None
            update, scores = self.cross_attention(self.norm2(tokens), style, layout, logits=logits)
            tokens = tokens + update
        if self.modulation is not None:
            tokens = tokens + self.modulation(tokens, size, style, mask)
        return tokens + self.feed_forward(self.norm3(tokens)), scores

    def update(
        self, tokens: Tokens, size: tuple[int, int], style: Tensor, mask: Tensor, logits: bool
    ) -> tuple[Tokens, Tensor | None]:
        """As `forward`, on tokens that need not be multiplied out."""
        scores: Tensor | None = None
        if self.self_attention is not None and self.norm1 is not None:
            tokens = self.self_attention.attend_self(tokens, self.norm1)
        if self.cross_attention is not None and self.norm2 is not None:
            layout = pixel_classes(mask, size) if self.cross_attention.reads_layout else None
            tokens, scores = self.cross_attention.attend_codes(tokens, self.norm2, style, layout, logits=logits)
        if self.modulation is not None:
            tokens = Tokens(tokens.dense + self.modulation(tokens.dense, size, style, mask))
        return self.feed_forward.add_to(tokens, self.norm3), scores


class TransformerBlock(nn.Module):
    """Group norm, 1x1 conv to the inner width, layers over pixel tokens, zero-initialised 1x1 conv back, plus the input."""

    def __init__(self, channels: int, options: TransformerOptions) -> None:
        super().__init__()
        self.checkpointing = options.checkpointing
        self.norm = group_norm(channels, eps=1e-6)
        self.project_in = nn.Conv2d(channels, options.inner, 1)
        self.layers = nn.ModuleList(TransformerLayer(options) for _ in range(options.depth))
        self.project_out = nn.Conv2d(options.inner, channels, 1)
        nn.init.zeros_(self.project_out.weight)
        if self.project_out.bias is not None:
            nn.init.zeros_(self.project_out.bias)

    def forward(self, x: Tensor, style: Tensor, mask: Tensor, *, attention: bool) -> tuple[Tensor, list[Tensor]]:
        """x (N,C,h,w), style (N,K,S), mask (N,K,H,W) -> x (N,C,h,w), and per layer logits (N,K,h,w) if `attention`."""
        run = self._run_naive if is_naive() else self._run
        if torch.is_grad_enabled() and (self.checkpointing or is_naive()):
            return checkpoint(bound(run), x, style, mask, attention, use_reentrant=False)
        return run(x, style, mask, attention)

    def _run(self, x: Tensor, style: Tensor, mask: Tensor, attention: bool) -> tuple[Tensor, list[Tensor]]:
        size = (x.shape[2], x.shape[3])
        pixels = self.norm(x).permute(0, 2, 3, 1).flatten(1, 2)  # (N,h*w,C), row by row; no copy in channels-last
        tokens = Tokens(None, (Term(pixels, self.project_in.weight.flatten(1).t()),), self.project_in.bias)
        maps: list[Tensor] = []
        for layer in self._layers():
            tokens, scores = layer.update(tokens, size, style, mask, attention)
            if scores is not None:
                maps.append(scores.transpose(1, 2).unflatten(2, size))  # (N,K,h,w)
        change = tokens.linear(self.project_out.weight.flatten(1).t(), self.project_out.bias)  # (N,h*w,C)
        return x + change.transpose(1, 2).unflatten(2, size), maps

    def _run_naive(self, x: Tensor, style: Tensor, mask: Tensor, attention: bool) -> tuple[Tensor, list[Tensor]]:
        """Layer after layer on the tokens themselves, as the release does."""
        size = (x.shape[2], x.shape[3])
        tokens = self.project_in(self.norm(x)).flatten(2).transpose(1, 2)  # (N,h*w,inner), pixels row by row
        maps: list[Tensor] = []
        for layer in self._layers():
            tokens, scores = layer(tokens, size, style, mask, attention)
            if scores is not None:
                maps.append(scores.transpose(1, 2).unflatten(2, size))  # (N,K,h,w)
        return x + self.project_out(tokens.transpose(1, 2).unflatten(2, size)), maps

    def cross_attentions(self) -> list[Attention]:
        """Of every layer that has one."""
        return [layer.cross_attention for layer in self._layers() if layer.cross_attention is not None]

    def _layers(self) -> list[TransformerLayer]:
        return [layer for layer in self.layers if isinstance(layer, TransformerLayer)]
