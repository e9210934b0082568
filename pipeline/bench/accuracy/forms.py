"""What kernels and the forms they are compared with share: inputs, weights, and formulas as they are written down."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pipeline.bench.accuracy.measure import CONSTANT, Axes, Form, Setting
from pipeline.models.kernels import Form as KernelForm
from pipeline.models.kernels import kernel_form
from pipeline.models.norms import layer_norm

RATIOS = (0.0, 10.0, 100.0, 1000.0, CONSTANT)
GAINS = (1.0, 10.0, 100.0)
LAYOUTS = ("contiguous", "channels-last")
MAPS = Axes(RATIOS, layouts=LAYOUTS, sides=(4, 16, 64, 256))
POOLED = Axes(RATIOS, layouts=LAYOUTS)
MODULATED = Axes((0.0, 100.0), GAINS, LAYOUTS, sides=(4, 16, 32))
FOLDED = Axes((0.0, 10.0), GAINS, sides=(16, 64))
CHANNELS, GROUPS = 16, 8  # of the maps that are normalised
WIDTH, CODES, HEADS = 64, 5, 4  # of tokens; codes an image; attention heads


def called(module: nn.Module, *inputs: Tensor) -> Tensor:
    """The module's own forward pass."""
    out: Tensor = module(*inputs)
    return out


def in_form(form: KernelForm, run: Form = called) -> Form:
    """`run` inside `kernel_form(form)`."""

    def call(module: nn.Module, *inputs: Tensor) -> Tensor:
        with kernel_form(form):
            return run(module, *inputs)

    return call


naive, plain = in_form("naive"), in_form("plain")


def two_pass(dims: Callable[[Tensor], Tensor], back: Callable[[Tensor, Tensor], Tensor]) -> Form:
    """Mean, then the mean of squared distances to it, along the last dimension of `dims(x)`; scale and shift as the module's."""

    def run(module: nn.Module, x: Tensor) -> Tensor:
        rows = dims(x if x.dtype == torch.float64 else x.float())
        away = rows - rows.mean(dim=-1, keepdim=True)
        normed = back(away * torch.rsqrt(away.square().mean(dim=-1, keepdim=True) + 1e-5), x)
        weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
        if weight is not None and bias is not None:
            shape = (-1, 1, 1) if x.dim() == 4 else (-1,)
            normed = normed * weight.view(shape) + bias.view(shape)
        return normed.to(x.dtype)

    return run


by_token = two_pass(lambda x: x, lambda y, x: y)


def affine_layer_norm(_: Setting) -> nn.LayerNorm:
    """Layer norm of WIDTH channels whose scale and shift do something."""
    norm = nn.LayerNorm(WIDTH)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.bias)
    return norm


def feature_map(setting: Setting) -> list[Tensor]:
    """One map (N,CHANNELS,s,s)."""
    return [setting.noisy(setting.batch, CHANNELS, setting.side, setting.side)]


def nothing(_: Setting) -> nn.Module:
    """For kernels without weights."""
    return nn.Module()


def our_layer_norm(module: nn.Module, x: Tensor) -> Tensor:
    """`pipeline.models.norms.layer_norm` as a form."""
    assert isinstance(module, nn.LayerNorm)
    return layer_norm(x, module)
