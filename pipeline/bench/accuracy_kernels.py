"""The kernels that are held to float64: one list for the accuracy table and for the tests."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.bench.accuracy import CONSTANT, Form, Kernel, Setting
from pipeline.metrics.distribution import Moments
from pipeline.metrics.images import ImageBatch
from pipeline.metrics.reconstruction import SSIM_K1, SSIM_K2, SSIM_SIGMA, SSIM_WINDOW, ssim
from pipeline.metrics.segmenter import standardised, standards
from pipeline.models import sean
from pipeline.models.attention import Attention
from pipeline.models.conditioning import SeanNorm, SpadeNorm
from pipeline.models.gate import gated
from pipeline.models.inade import InadeNorm
from pipeline.models.kernels import kernel_form
from pipeline.models.norms import BatchNorm2d, GroupNorm, InstanceNorm2d, layer_norm
from pipeline.models.spectral import SpectralNorm
from pipeline.models.style_encoder import region_mean
from pipeline.models.tokens import Term, Tokens

RATIOS = (0.0, 10.0, 100.0, 1000.0, CONSTANT)
GAINS = (1.0, 10.0, 100.0)
LAYOUTS = ("contiguous", "channels-last")
BOTH = ("float32", "bf16")
CHANNELS, GROUPS = 16, 8  # of the maps that are normalised
WIDTH, CODES, HEADS = 64, 5, 4  # of tokens; codes an image; attention heads


def _called(module: nn.Module, *inputs: Tensor) -> Tensor:
    out: Tensor = module(*inputs)
    return out


def _in_form(form: str, run: Form = _called) -> Form:
    def call(module: nn.Module, *inputs: Tensor) -> Tensor:
        with kernel_form(form):  # type: ignore[arg-type]
            return run(module, *inputs)

    return call


naive, plain = _in_form("naive"), _in_form("plain")


def _two_pass(dims: Callable[[Tensor], Tensor], back: Callable[[Tensor, Tensor], Tensor]) -> Form:
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


def _grouped(groups: int) -> Form:
    return _two_pass(lambda x: x.unflatten(1, (groups, -1)).flatten(2), lambda y, x: y.reshape(x.shape))


_by_batch = _two_pass(
    lambda x: x.transpose(0, 1).flatten(1), lambda y, x: y.view(x.transpose(0, 1).shape).transpose(0, 1)
)
_by_token = _two_pass(lambda x: x, lambda y, x: y)


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


def _layer_norm(_: Setting) -> nn.LayerNorm:
    norm = nn.LayerNorm(WIDTH)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.bias)
    return norm


def _map(setting: Setting) -> list[Tensor]:
    return [setting.noisy(setting.batch, CHANNELS, setting.side, setting.side)]


def _norm_of_maps(
    name: str, build: Callable[[Setting], nn.Module], best: tuple[Form, ...], before: Form, **axes: object
) -> Kernel:
    given = {"ratios": RATIOS, "layouts": LAYOUTS, "sides": (4, 16, 64, 256), "precisions": BOTH, **axes}
    return Kernel(name, build, _map, _called, best, before, **given)  # type: ignore[arg-type]


class _Folded(nn.Module):
    """Layer norm of tokens made of pixels and attention to codes, then a linear layer; and the projection back."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = _layer_norm(Setting())
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
        self.norm = _layer_norm(Setting())
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


def _region_mean(form: str, groups: int) -> Form:
    return _in_form(form, lambda _, x, mask: region_mean(x, mask.to(x.dtype), groups))


def _region_means(form: str) -> Form:
    return _in_form(form, lambda _, x, mask: sean.region_means(x, mask.to(x.dtype)))


def _exact_region_mean(groups: int) -> Form:
    """`region_mean` without its cast to float32, for float64."""

    def run(_: nn.Module, x: Tensor, mask: Tensor) -> Tensor:
        own = [x.unflatten(1, (groups, -1))[:, k * groups // CODES] for k in range(CODES)]  # (N,c,s,s) each
        m = mask.to(x.dtype)
        sums = torch.stack([(part * m[:, k : k + 1]).sum(dim=(2, 3)) for k, part in enumerate(own)], dim=1)
        return sums / (m.sum(dim=(2, 3))[..., None] + 1e-5)

    return run


def _conditioned(form: str) -> Form:
    return _in_form(form, lambda module, x, mask, *style: module(x, mask.to(x.dtype), *style))


def _map_mask_codes(setting: Setting) -> list[Tensor]:
    return [*_map(setting), regions(setting), torch.randn(setting.batch, CODES, 12)]


def _map_mask_noise(setting: Setting) -> list[Tensor]:
    return [*_map(setting), regions(setting), torch.randn(setting.batch, CODES, 2, 3)]


def _inade(_: Setting) -> nn.Module:
    norm = InadeNorm(CHANNELS, CODES, 3, "instance")
    nn.init.normal_(norm.bias)
    return norm


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


def _nothing(_: Setting) -> nn.Module:
    return nn.Module()


def _norm(module: nn.Module, x: Tensor) -> Tensor:
    assert isinstance(module, nn.LayerNorm)
    return layer_norm(x, module)


def _tokens(setting: Setting) -> list[Tensor]:
    return [setting.noisy(setting.batch, setting.side**2, WIDTH)]


def _wide(setting: Setting) -> list[Tensor]:
    return [setting.noisy(setting.batch, setting.side**2, 2 * WIDTH)]


def _hidden(setting: Setting) -> list[Tensor]:
    return [setting.gain * x for x in _wide(setting)]


FOLDED = {"ratios": (0.0, 10.0), "gains": GAINS, "precisions": BOTH, "sides": (16, 64)}
MODULATED = {"ratios": (0.0, 100.0), "gains": GAINS, "layouts": LAYOUTS, "sides": (4, 16, 32), "precisions": BOTH}

KERNELS: tuple[Kernel, ...] = (
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
        _layer_norm,
        _tokens,
        _norm,
        (_by_token, lambda norm, x: F.layer_norm(x, (WIDTH,), norm.weight, norm.bias)),
        lambda norm, x: F.layer_norm(x, (WIDTH,), norm.weight, norm.bias),
        ratios=RATIOS,
        precisions=BOTH,
    ),
    Kernel(
        "folded tokens: layer norm and linear layer",
        lambda _: _Folded(),
        _pixels,
        _normed_linear,
        (_normed_linear_plain(_by_token), _normed_linear_plain(_norm)),
        **FOLDED,
    ),
    Kernel(
        "folded tokens: last projection",
        lambda _: _Projected(),
        _wide,
        _projected,
        (_projected_plain,),
        **FOLDED,
    ),
    Kernel(
        "attention to codes",
        lambda _: _Attending(),
        _pixels_and_codes,
        _attend_codes,
        (naive, plain),
        draws=4,
        **FOLDED,
    ),
    Kernel("gate", _nothing, _hidden, lambda _, x: gated(x), (_gate_plain,), gains=GAINS, precisions=BOTH),
    Kernel(
        "region means, grouped",
        _nothing,
        _map_and_regions,
        _region_mean("fast", CODES),
        (_exact_region_mean(CODES), _region_mean("naive", CODES), _region_mean("plain", CODES)),
        ratios=RATIOS,
        layouts=LAYOUTS,
        precisions=BOTH,
    ),
    Kernel(
        "region means",
        _nothing,
        _map_and_regions,
        _region_means("fast"),
        (_region_means("naive"),),
        ratios=RATIOS,
        layouts=LAYOUTS,
        precisions=BOTH,
    ),
    Kernel(
        "SPADE layer",
        lambda _: SpadeNorm(CHANNELS, CODES, hidden=8, norm="instance"),
        lambda setting: [*_map(setting), regions(setting)],
        _conditioned("fast"),
        (_conditioned("naive"), _conditioned("plain")),
        **MODULATED,
    ),
    Kernel(
        "SEAN block",
        lambda _: SeanNorm(CHANNELS, CODES, 12, hidden=8, norm="instance", noise="off"),
        _map_mask_codes,
        _conditioned("fast"),
        (_conditioned("naive"), _conditioned("plain")),
        draws=4,
        **MODULATED,
    ),
    Kernel(
        "INADE layer",
        _inade,
        _map_mask_noise,
        _conditioned("fast"),
        (_conditioned("naive"),),
        **MODULATED,
    ),
    Kernel(
        "spectral norm",
        _Weight,
        lambda _: [],
        _called,
        (_divided,),
        ratios=RATIOS,
        gains=GAINS,
        sides=(4, 64, 256),
        batches=(1,),
    ),
    Kernel(
        "SSIM",
        _nothing,
        _pair,
        _ssim,
        (_ssim_window_by_window,),
        gradient=False,
        ratios=RATIOS,
        sides=(16, 64, 160),
    ),
    Kernel(
        "standardised features",
        _nothing,
        _rows,
        _standardised,
        (_standardised_two_pass,),
        gradient=False,
        ratios=RATIOS,
        batches=(1,),
    ),
    Kernel(
        "covariance",
        _nothing,
        _rows,
        _covariance,
        (_covariance_two_pass,),
        gradient=False,
        ratios=RATIOS,
        batches=(1,),
    ),
)
