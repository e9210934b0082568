"""Fused and folded kernels: matrices multiplied together before they meet the pixels, loops and maps that are left out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.bench.accuracy.forms import (
    CHANNELS,
    CODES,
    FOLDED,
    GAINS,
    HEADS,
    MODULATED,
    POOLED,
    WIDTH,
    affine_layer_norm,
    by_token,
    feature_map,
    in_form,
    naive,
    nothing,
    our_layer_norm,
    plain,
)
from pipeline.bench.accuracy.measure import Axes, Form, Kernel, Setting
from pipeline.models import sean
from pipeline.models.attention import Attention
from pipeline.models.conditioning import SeanNorm, SpadeNorm
from pipeline.models.gate import gated
from pipeline.models.inade import InadeNorm
from pipeline.models.kernels import Form as KernelForm
from pipeline.models.style_encoder import region_mean
from pipeline.models.tokens import Term, Tokens


class _Folded(nn.Module):
    """Layer norm of tokens made of pixels and attention to codes, then a linear layer; and the projection back."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = affine_layer_norm(Setting())
        self.enter = nn.Linear(4, WIDTH)
        self.values = nn.Linear(CODES, WIDTH)
        self.leave = nn.Linear(WIDTH, 4 * WIDTH)

    def tokens(self, pixels: Tensor, attention: Tensor) -> Tokens:
        return Tokens(None, (Term(pixels, self.enter.weight.t()),), self.enter.bias).plus(
            attention, self.values.weight.t(), self.values.bias
        )


def _dense(module: nn.Module, pixels: Tensor, attention: Tensor) -> Tensor:
    assert isinstance(module, _Folded)
    return module.enter(pixels) + module.values(attention)


def _normed_linear(module: nn.Module, *inputs: Tensor) -> Tensor:
    assert isinstance(module, _Folded)
    tokens = module.tokens(*inputs)
    assert tokens.norm_folds(4 * WIDTH, 1)
    return tokens.normed_linear(module.norm, module.leave.weight.t(), module.leave.bias)


def _normed_linear_plain(norm: Form) -> Form:
    def run(module: nn.Module, *inputs: Tensor) -> Tensor:
        assert isinstance(module, _Folded)
        out: Tensor = module.leave(norm(module.norm, _dense(module, *inputs)))
        return out

    return run


def _pixels(setting: Setting) -> list[Tensor]:
    points = setting.side**2
    return [setting.noisy(setting.batch, points, 4), torch.randn(setting.batch, points, CODES).softmax(dim=-1)]


class _Projected(nn.Module):
    """A feed-forward's second layer and the block's projection after it."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(2 * WIDTH, WIDTH)
        self.project = nn.Linear(WIDTH, 4)


def _projected(module: nn.Module, hidden: Tensor) -> Tensor:
    assert isinstance(module, _Projected)
    tokens = Tokens(None, (Term(hidden, module.out.weight.t()),), module.out.bias)
    return tokens.linear(module.project.weight.t(), module.project.bias)


def _projected_plain(module: nn.Module, hidden: Tensor) -> Tensor:
    assert isinstance(module, _Projected)
    out: Tensor = module.project(module.out(hidden))
    return out


class _Attending(nn.Module):
    """Cross-attention of normalised pixel tokens to codes."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(4, WIDTH)
        self.norm = affine_layer_norm(Setting())
        self.attention = Attention(WIDTH, 10, heads=HEADS, head_width=WIDTH // HEADS)

    def forward(self, pixels: Tensor, codes: Tensor) -> Tensor:
        """The tokens as they are written down; attention in whatever form is current."""
        tokens = self.enter(pixels)
        update, logits = self.attention(self.norm(tokens), codes, logits=True)
        assert logits is not None
        return torch.cat([tokens + update, logits.to(tokens.dtype)], dim=-1)


def _attend_codes(module: nn.Module, pixels: Tensor, codes: Tensor) -> Tensor:
    assert isinstance(module, _Attending)
    tokens = Tokens(None, (Term(pixels, module.enter.weight.t()),), module.enter.bias)
    out, logits = module.attention.attend_codes(tokens, module.norm, codes, logits=True)
    assert logits is not None
    return torch.cat([out.dense, logits.to(out.dense.dtype)], dim=-1)


def _pixels_and_codes(setting: Setting) -> list[Tensor]:
    codes = (setting.batch, CODES, 10)
    return [setting.noisy(setting.batch, setting.side**2, 4), torch.randn(codes).tanh()]


def _gate_plain(_: nn.Module, hidden: Tensor) -> Tensor:
    value, gate = hidden.chunk(2, dim=-1)
    return value * F.gelu(gate)


def regions(setting: Setting) -> Tensor:
    """One-hot regions (N,CODES,s,s), bool: cells of 2x2 pixels, the last class absent."""
    cells = torch.randint(0, CODES - 1, (setting.batch, setting.side // 2, setting.side // 2))
    labels = cells.repeat_interleave(2, 1).repeat_interleave(2, 2)
    return F.one_hot(labels, CODES).permute(0, 3, 1, 2).bool().contiguous()


def _map_and_regions(setting: Setting) -> list[Tensor]:
    return [setting.noisy(setting.batch, 3 * CODES, setting.side, setting.side), regions(setting)]


def _region_mean(form: KernelForm, groups: int) -> Form:
    return in_form(form, lambda _, x, mask: region_mean(x, mask.to(x.dtype), groups))


def _region_means(form: KernelForm) -> Form:
    return in_form(form, lambda _, x, mask: sean.region_means(x, mask.to(x.dtype)))


def _conditioned(form: KernelForm) -> Form:
    return in_form(form, lambda module, x, mask, *style: module(x, mask.to(x.dtype), *style))


def _map_mask_codes(setting: Setting) -> list[Tensor]:
    return [*feature_map(setting), regions(setting), torch.randn(setting.batch, CODES, 12)]


def _map_mask_noise(setting: Setting) -> list[Tensor]:
    return [*feature_map(setting), regions(setting), torch.randn(setting.batch, CODES, 2, 3)]


def _inade(_: Setting) -> nn.Module:
    norm = InadeNorm(CHANNELS, CODES, 3, "instance")
    nn.init.normal_(norm.bias)
    return norm


def _wide(setting: Setting) -> list[Tensor]:
    return [setting.noisy(setting.batch, setting.side**2, 2 * WIDTH)]


def _hidden(setting: Setting) -> list[Tensor]:
    return [setting.gain * x for x in _wide(setting)]


FUSED: tuple[Kernel, ...] = (
    Kernel(
        "folded tokens: layer norm and linear layer",
        lambda _: _Folded(),
        _pixels,
        _normed_linear,
        (_normed_linear_plain(by_token), _normed_linear_plain(our_layer_norm)),
        axes=FOLDED,
    ),
    Kernel(
        "folded tokens: last projection",
        lambda _: _Projected(),
        _wide,
        _projected,
        (_projected_plain,),
        axes=FOLDED,
    ),
    Kernel(
        "attention to codes",
        lambda _: _Attending(),
        _pixels_and_codes,
        _attend_codes,
        (naive, plain),
        axes=FOLDED,
        draws=4,
    ),
    Kernel("gate", nothing, _hidden, lambda _, x: gated(x), (_gate_plain,), axes=Axes(gains=GAINS)),
    Kernel(
        "region means, grouped",
        nothing,
        _map_and_regions,
        _region_mean("fast", CODES),
        (_region_mean("naive", CODES), _region_mean("plain", CODES)),
        axes=POOLED,
    ),
    Kernel(
        "region means",
        nothing,
        _map_and_regions,
        _region_means("fast"),
        (_region_means("naive"),),
        axes=POOLED,
    ),
    Kernel(
        "SPADE layer",
        lambda _: SpadeNorm(CHANNELS, CODES, hidden=8, norm="instance"),
        lambda setting: [*feature_map(setting), regions(setting)],
        _conditioned("fast"),
        (_conditioned("naive"), _conditioned("plain")),
        axes=MODULATED,
    ),
    Kernel(
        "SEAN block",
        lambda _: SeanNorm(CHANNELS, CODES, 12, hidden=8, norm="instance", noise="off"),
        _map_mask_codes,
        _conditioned("fast"),
        (_conditioned("naive"), _conditioned("plain")),
        axes=MODULATED,
        draws=4,
    ),
    Kernel(
        "INADE layer",
        _inade,
        _map_mask_noise,
        _conditioned("fast"),
        (_conditioned("naive"),),
        axes=MODULATED,
    ),
)
