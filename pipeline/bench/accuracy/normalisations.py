"""Normalisations and second moments: norms of maps and tokens, spectral norm, SSIM, features, covariances."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.bench.accuracy.forms import (
    CHANNELS,
    GAINS,
    GROUPS,
    MAPS,
    RATIOS,
    WIDTH,
    affine_layer_norm,
    by_token,
    called,
    feature_map,
    nothing,
    our_layer_norm,
    two_pass,
)
from pipeline.bench.accuracy.measure import CONSTANT, Axes, Form, Kernel, Setting
from pipeline.metrics.distribution import Moments
from pipeline.metrics.images import ImageBatch
from pipeline.metrics.reconstruction import SSIM_K1, SSIM_K2, SSIM_SIGMA, SSIM_WINDOW, ssim
from pipeline.metrics.segmenter_training import standardised, standards
from pipeline.models.norms import BatchNorm2d, GroupNorm, InstanceNorm2d, LayerNorm
from pipeline.models.spectral import SpectralNorm

LATENTS = 8  # of an image, normalised together


def _grouped(groups: int) -> Form:
    return two_pass(lambda x: x.unflatten(1, (groups, -1)).flatten(2), lambda y, x: y.reshape(x.shape))


_by_batch = two_pass(
    lambda x: x.transpose(0, 1).flatten(1), lambda y, x: y.view(x.transpose(0, 1).shape).transpose(0, 1)
)


def _torch_group(groups: int) -> Form:
    def run(module: nn.Module, x: Tensor) -> Tensor:
        weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
        return F.group_norm(x, groups, weight, bias)

    return run


def _running(module: nn.Module, x: Tensor) -> Tensor:
    mean, variance = (module.get_buffer(name)[:, None, None] for name in ("running_mean", "running_var"))
    return ((x - mean) * torch.rsqrt(variance + 1e-5)).to(x.dtype)


def _group_norm(groups: int) -> Callable[[Setting], nn.Module]:
    def build(_: Setting) -> nn.Module:
        norm = GroupNorm(groups, CHANNELS)
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias)
        return norm

    return build


def _settled(setting: Setting) -> nn.Module:
    """A batch norm whose running statistics are those of its inputs, in inference."""
    norm = BatchNorm2d(CHANNELS, affine=False).eval()
    norm.running_mean.fill_(900.0 if setting.ratio == CONSTANT else setting.ratio)  # type: ignore[union-attr]
    return norm


def _norm_of_maps(name: str, build: Callable[[Setting], nn.Module], best: tuple[Form, ...], before: Form) -> Kernel:
    return Kernel(name, build, feature_map, called, best, before, MAPS)


def _latent_norm(setting: Setting) -> nn.Module:
    norm = LayerNorm((LATENTS, setting.side))
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.bias)
    return norm


def _all_latents(norm: nn.Module, x: Tensor) -> Tensor:
    assert isinstance(norm, LayerNorm)
    rows = x.flatten(1) if x.dtype == torch.float64 else x.flatten(1).float()
    away = rows - rows.mean(dim=-1, keepdim=True)
    normed = away * torch.rsqrt(away.square().mean(dim=-1, keepdim=True) + norm.eps)
    return (normed.view(x.shape) * norm.weight + norm.bias).to(x.dtype)


def _torch_latents(norm: nn.Module, x: Tensor) -> Tensor:
    assert isinstance(norm, LayerNorm)
    return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias)


class _Weight(nn.Module):
    """A conv weight under spectral norm, its power iteration at rest; with a mean, as trained weights may have."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.weight = nn.Parameter(setting.noisy(setting.side, CHANNELS, 3, 3))
        self.norm = SpectralNorm(self.weight)

    def forward(self) -> Tensor:
        """weight / sigma."""
        out: Tensor = self.norm.eval()(self.weight)
        return out


def _divided(module: nn.Module) -> Tensor:
    assert isinstance(module, _Weight)
    weight, norm = module.weight, module.norm
    return weight / torch.dot(norm.u, torch.mv(weight.flatten(1), norm.v))


def _pair(setting: Setting) -> list[Tensor]:
    """Two images in [0, 1] whose values lie around 0.5; the larger the ratio, the closer."""
    spread = 0.0 if setting.ratio == CONSTANT else 0.5 / max(setting.ratio, 3.0) / 3
    shape = (setting.batch, 3, setting.side, setting.side)
    return [(0.5 + spread * torch.randn(shape)).clamp(0, 1) for _ in range(2)]


def _ssim(_: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return ssim(ImageBatch(x, "unit"), ImageBatch(y, "unit"))


def _ssim_window_by_window(_: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """As Wang et al. write it: in every window weighted means, then weighted products of distances to them."""
    taps = torch.exp(-((torch.arange(SSIM_WINDOW, dtype=x.dtype) - SSIM_WINDOW // 2) ** 2) / (2 * SSIM_SIGMA**2))
    weight = torch.outer(taps, taps).flatten() / taps.sum() ** 2  # (121,)
    a, b = (image.unfold(2, SSIM_WINDOW, 1).unfold(3, SSIM_WINDOW, 1).flatten(4) for image in (x, y))
    mean_a, mean_b = a @ weight, b @ weight
    a, b = a - mean_a[..., None], b - mean_b[..., None]
    c1, c2 = SSIM_K1**2, SSIM_K2**2
    similarity = (2 * mean_a * mean_b + c1) * (2 * ((a * b) @ weight) + c2)
    similarity = similarity / ((mean_a**2 + mean_b**2 + c1) * ((a * a) @ weight + (b * b) @ weight + c2))
    return similarity.mean(dim=(1, 2, 3))


def _rows(setting: Setting) -> list[Tensor]:
    return [setting.noisy(setting.side**2, 8)]


def _standardised(_: nn.Module, features: Tensor) -> Tensor:
    return standardised(features, *standards(features))


def _standardised_two_pass(_: nn.Module, features: Tensor) -> Tensor:
    away = features - features.mean(dim=0)
    return away / away.square().mean(dim=0).sqrt().clamp_min(1e-6)


def _covariance(_: nn.Module, features: Tensor) -> Tensor:
    moments = Moments(features.shape[1])
    for part in features.split(7):
        moments.update(part.numpy())
    return torch.from_numpy(moments.covariance)


def _covariance_two_pass(_: nn.Module, features: Tensor) -> Tensor:
    away = features - features.mean(dim=0)
    return away.t() @ away / (len(features) - 1)


def _tokens(setting: Setting) -> list[Tensor]:
    return [setting.noisy(setting.batch, setting.side**2, WIDTH)]


NORMALISATIONS: tuple[Kernel, ...] = (
    _norm_of_maps(
        "instance norm",
        lambda _: InstanceNorm2d(CHANNELS),
        (_grouped(CHANNELS), lambda _, x: F.instance_norm(x), _torch_group(CHANNELS)),
        _torch_group(CHANNELS),
    ),
    _norm_of_maps("group norm", _group_norm(GROUPS), (_grouped(GROUPS), _torch_group(GROUPS)), _torch_group(GROUPS)),
    _norm_of_maps("layer norm of maps", _group_norm(1), (_grouped(1), _torch_group(1)), _torch_group(1)),
    _norm_of_maps(
        "batch norm",
        lambda _: BatchNorm2d(CHANNELS, affine=False),
        (_by_batch, lambda _, x: F.batch_norm(x, None, None, training=True)),
        lambda _, x: F.batch_norm(x, None, None, training=True),
    ),
    _norm_of_maps(
        "batch norm, running statistics",
        _settled,
        (_running,),
        lambda norm, x: F.batch_norm(x, norm.running_mean, norm.running_var),
    ),
    Kernel(
        "layer norm of tokens",
        affine_layer_norm,
        _tokens,
        our_layer_norm,
        (by_token, lambda norm, x: F.layer_norm(x, (WIDTH,), norm.weight, norm.bias)),
        lambda norm, x: F.layer_norm(x, (WIDTH,), norm.weight, norm.bias),
        axes=Axes(RATIOS),
    ),
    Kernel(
        "layer norm of latents together",
        _latent_norm,
        lambda setting: [setting.noisy(setting.batch, LATENTS, setting.side)],
        called,
        (_all_latents, _torch_latents),
        _torch_latents,
        axes=Axes(RATIOS, sides=(4, 64, 256)),
    ),
    Kernel(
        "spectral norm",
        _Weight,
        lambda _: [],
        called,
        (_divided,),
        axes=Axes(RATIOS, GAINS, sides=(4, 64, 256), batches=(1,), precisions=("float32",)),
    ),
    Kernel(
        "SSIM",
        nothing,
        _pair,
        _ssim,
        (_ssim_window_by_window,),
        axes=Axes(RATIOS, sides=(16, 64, 160), precisions=("float32",)),
        gradient=False,
    ),
    Kernel(
        "standardised features",
        nothing,
        _rows,
        _standardised,
        (_standardised_two_pass,),
        axes=Axes(RATIOS, batches=(1,), precisions=("float32",)),
        gradient=False,
    ),
    Kernel(
        "covariance",
        nothing,
        _rows,
        _covariance,
        (_covariance_two_pass,),
        axes=Axes(RATIOS, batches=(1,), precisions=("float32",)),
        gradient=False,
    ),
)
