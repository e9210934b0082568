"""Normalisation of feature maps and tokens, to float32's own noise in either memory format, whatever their mean.

torch's kernels are not: on a CPU its group norm of channels-last maps subtracts a squared mean from a mean of squares and adds
up pixel after pixel, as its batch norm does, and the backward pass of its group and layer norm subtracts two sums that grow
with the mean. Here each value is first taken relative to a rough mean of its group, which leaves the result and its gradient
as they are, and nothing large to cancel. The rough mean is that of one value in sixteen: so it lies at most sqrt(15)
deviations from the true one, whatever the map shows (the worst is a lone value that the sample hits).

What is contiguous, and small maps turned so, then go through torch's kernel. A large channels-last map, or one with scale and
shift, is normalised here, in blocks, all operations of a block before the next, so that nothing of its size is held beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal, get_args

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from pipeline.errors import UserError
from pipeline.models.kernels import folds
from pipeline.models.precision import wide

NormKind = Literal["batch", "sync_batch", "instance", "group", "layer"]

BLOCK = 2**18  # elements a block, 1 MiB in float32, that a core's cache holds with its scratch; smaller maps are turned
FEW = 2**6  # pixels that torch may add up one by one, as it does in channels-last maps
MANY = 2**10  # pixels whose gradients it may add up one by one into those of scale and shift
SAMPLE = 4  # one pixel in so many counts in the rough mean, of one row in so many
SAMPLE_CHANNELS = SAMPLE**2  # one channel of a token in so many

_GROUPS = 32  # of `group`: GroupNorm's usual count, reduced to a divisor of the channel count where needed


class GroupNorm(nn.GroupNorm):
    """Group norm that also takes a single value a group (a one-pixel map at batch 1), which normalises to the shift."""

    def forward(self, input: Tensor) -> Tensor:
        """(N,C,h,w) -> (N,C,h,w)."""
        if not centres(input):
            return torch.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)
        return normalise(input, self.num_groups, self.weight, self.bias, self.eps)


def instance_norm(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Each channel of each image (N,C,h,w) to mean 0 and variance 1.

    On a CPU as group norm with one channel a group: half as dear as torch's own, which goes through batch norm.
    """
    return normalise(x, x.shape[1], None, None, eps) if centres(x) else F.instance_norm(x, eps=eps)


class InstanceNorm2d(nn.InstanceNorm2d):
    """`instance_norm` as a module, without scale and shift."""

    def forward(self, input: Tensor) -> Tensor:
        """(N,C,h,w) -> (N,C,h,w)."""
        return instance_norm(input, self.eps)


class BatchNorm2d(nn.BatchNorm2d):
    """Batch norm without scale and shift."""

    def forward(self, input: Tensor) -> Tensor:
        """(N,C,h,w) -> (N,C,h,w)."""
        return batch_norm(self, input) if centres(input) else super().forward(input)


class SyncBatchNorm(nn.SyncBatchNorm):
    """Batch norm without scale and shift whose statistics all processes share; in a single one, plain batch norm."""

    def forward(self, input: Tensor) -> Tensor:
        """(N,C,h,w) -> (N,C,h,w)."""
        alone = not dist.is_initialized() or dist.get_world_size() == 1
        return batch_norm(self, input) if alone and centres(input) else super().forward(input)


def batch_norm(norm: BatchNorm2d | SyncBatchNorm, x: Tensor) -> Tensor:
    """x (N,C,h,w) by the statistics of the batch, which enter the running ones, or by the running ones if not training."""
    mean, variance, momentum = norm.running_mean, norm.running_var, norm.momentum
    assert mean is not None and variance is not None and momentum is not None, "built with running statistics"
    if not norm.training:  # torch folds mean and deviation into one number to add, as large as the mean
        return (x - _maps(mean)).mul_(_maps(torch.rsqrt(variance + norm.eps))).to(x.dtype)
    assert norm.num_batches_tracked is not None, "built with running statistics"
    norm.num_batches_tracked.add_(1)
    if x.is_contiguous():
        shift = rough_mean(x.detach(), None)[:1]  # (1,C)
        rest, own_variance = torch.zeros_like(mean), torch.zeros_like(variance)
        out = F.batch_norm(x - _maps(shift), rest, own_variance, training=True, momentum=1.0, eps=norm.eps)
        own_mean = shift[0] + rest
    else:
        count = x.numel() // x.shape[1]
        if count == 1:
            raise ValueError(f"batch norm needs more than one value a channel, got {tuple(x.shape)}")
        moments = Moments.of(x, None)
        own_mean, own_variance = moments.shift[0] + moments.mean[0], moments.variance[0] * (count / (count - 1))
        out = _Normalise.apply(x, moments, None, None, None, norm.eps)
    mean.lerp_(own_mean, momentum)
    variance.lerp_(own_variance, momentum)
    return out


class LayerNorm(nn.LayerNorm):
    """Layer norm over the last dimensions of tokens."""

    def forward(self, input: Tensor) -> Tensor:
        """(...,D) -> (...,D)."""
        return layer_norm(input, self)


def layer_norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    """Layer norm of x (...,D) as `norm` has it, over its last dimension or several.

    Scale and shift come after torch's kernel, which adds up their gradients token after token.
    """
    if not centres(x):
        return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
    last = tuple(range(-len(norm.normalized_shape), 0))
    away = wide(x) - wide(x.detach()[..., ::SAMPLE_CHANNELS]).mean(dim=last, keepdim=True)
    normed = F.layer_norm(away, norm.normalized_shape, eps=norm.eps)
    return torch.addcmul(norm.bias, normed, norm.weight).to(x.dtype)


def param_free_norm(kind: NormKind, channels: int) -> nn.Module:
    """Normalisation of (N,`channels`,h,w) without scale and shift, eps 1e-5.

    `batch` and `sync_batch` keep running statistics (the latter shares batch statistics between processes, and is plain
    batch norm in a single process); `instance` is per image and channel; `group` per image and group; `layer` per
    image.
    """
    if kind == "batch":
        return BatchNorm2d(channels, affine=False)
    if kind == "sync_batch":
        return SyncBatchNorm(channels, affine=False)
    if kind == "instance":
        return InstanceNorm2d(channels)
    if kind == "group":
        return GroupNorm(math.gcd(_GROUPS, channels), channels, affine=False)
    if kind == "layer":
        return GroupNorm(1, channels, affine=False)
    raise UserError(f"norm is {kind!r}; allowed: {', '.join(get_args(NormKind))}")


def centres(x: Tensor) -> bool:
    """Whether `x` is taken relative to a rough mean: on a CPU, in the fast form, where no compiler writes the kernel."""
    return folds() and x.device.type == "cpu" and not torch.compiler.is_compiling()


def normalise(x: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """x (N,C,h,w) to mean 0 and variance 1 in each of `groups` of channels, times `weight` (C,), plus `bias` (C,)."""
    pixels = x.shape[2] * x.shape[3]
    large = pixels > FEW and x.numel() > BLOCK
    turned = pixels > FEW and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    if large and (turned or weight is not None):
        out: Tensor = _Normalise.apply(x, Moments.of(x, groups), groups, weight, bias, eps)
        return out
    grouped = x.unflatten(1, (groups, -1))  # (N,G,C/G,h,w)
    away = (grouped - _sample(grouped.detach()).mean(dim=(2, 3, 4), keepdim=True)).flatten(1, 2)
    away = away.contiguous() if turned else away
    if weight is None or bias is None or pixels <= MANY:
        out = torch.group_norm(away, groups, weight, bias, eps)
    else:
        out = torch.addcmul(_maps(bias), torch.group_norm(away, groups, eps=eps), _maps(weight)).to(x.dtype)
    return out.contiguous(memory_format=torch.channels_last) if turned else out


def _sample(x: Tensor) -> Tensor:
    """One pixel in sixteen of x (...,h,w), or all where they are few."""
    return x if x.shape[-2] * x.shape[-1] <= FEW else x[..., ::SAMPLE, ::SAMPLE]


def rough_mean(x: Tensor, groups: int | None) -> Tensor:
    """(N,C) mean of a sixteenth of x (N,C,h,w) in each group of channels; None: of each channel over the batch."""
    return _pooled(_sample(x).mean(dim=(2, 3)), groups)


class Moments:
    """Mean and variance of a map's groups, or over the batch; the mean is `shift`, a rough one, plus `mean`.

    Each is (N,C), equal within a group, in float32 for narrower maps.
    """

    def __init__(self, shift: Tensor, mean: Tensor, variance: Tensor) -> None:
        self.shift, self.mean, self.variance = shift, mean, variance

    @classmethod
    @torch.no_grad()
    def of(cls, x: Tensor, groups: int | None) -> Moments:
        """Those of x (N,C,h,w) in `groups` of channels; None: of each channel over the batch."""
        shift = wide(rough_mean(x, groups))
        first, second = (shift.new_zeros(shift.shape, dtype=torch.float64) for _ in range(2))
        for images, (part,) in _blocks(x):
            away = part - _maps(shift[images])
            first[images] += away.sum(dim=(2, 3))
            second[images] += away.square_().sum(dim=(2, 3))
        pixels = x.shape[2] * x.shape[3]
        mean = _pooled(first / pixels, groups)
        variance = (_pooled(second / pixels, groups) - mean.square()).clamp_(min=0.0)
        return cls(shift, mean.to(shift.dtype), variance.to(shift.dtype))


class _Normalise(torch.autograd.Function):
    """(x - mean) / deviation * weight + bias; keeps x alone for the backward pass, as torch's norms do."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        moments: Moments,
        groups: int | None,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
    ) -> Tensor:
        shift, mean = moments.shift, moments.mean
        inverse = torch.rsqrt(moments.variance + eps)  # (N,C)
        ctx.save_for_backward(x, shift, mean, inverse, weight)
        ctx.groups = groups
        scale = inverse if weight is None else inverse * weight
        rest = -mean * scale if bias is None else bias - mean * scale
        out = torch.empty_like(x)
        for images, (part, result) in _blocks(x, out):
            away = result if out.dtype == shift.dtype else shift.new_empty(result.shape)
            torch.sub(part, _maps(shift[images]), out=away)
            torch.addcmul(_maps(rest[images]), away, _maps(scale[images]), out=away)
            if away is not result:
                result.copy_(away)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, shift, mean, inverse, weight = ctx.saved_tensors
        turned = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
        grad = grad.contiguous(memory_format=torch.channels_last if turned else torch.contiguous_format)
        by_shift, by_scale = (shift.new_zeros(shift.shape, dtype=torch.float64) for _ in range(2))
        for images, (part, change) in _blocks(x, grad):
            away = part - _maps(shift[images])
            by_shift[images] += wide(change).sum(dim=(2, 3))
            by_scale[images] += away.mul_(change).sum(dim=(2, 3))
        by_scale = (by_scale - mean * by_shift) * inverse  # (N,C), with respect to the normalised map
        grad_weight, grad_bias = by_scale.sum(dim=0), by_shift.sum(dim=0)
        scale = inverse
        if weight is not None:
            scale, by_scale, by_shift = inverse * weight, by_scale * weight, by_shift * weight
        pixels = x.shape[2] * x.shape[3]
        slope = -_pooled(by_scale / pixels, ctx.groups) * inverse.square()
        rest = -_pooled(by_shift / pixels, ctx.groups) * inverse - slope * mean
        slope, rest = slope.to(shift.dtype), rest.to(shift.dtype)
        out = torch.empty_like(x)
        for images, (part, change, result) in _blocks(x, grad, out):
            away = part - _maps(shift[images])
            torch.addcmul(_maps(rest[images]), away, _maps(slope[images]), out=away)
            torch.addcmul(away, wide(change), _maps(scale[images]), out=result if out.dtype == away.dtype else away)
            if out.dtype != away.dtype:
                result.copy_(away)
        if weight is None:
            return out, None, None, None, None, None
        return out, None, None, grad_weight.to(weight.dtype), grad_bias.to(weight.dtype), None


def _pooled(statistic: Tensor, groups: int | None) -> Tensor:
    """(N,C), its mean over what is normalised together in place of each value."""
    if groups is None:
        return statistic.mean(dim=0, keepdim=True).expand_as(statistic)
    images, channels = statistic.shape
    if groups == channels:
        return statistic
    return statistic.view(images, groups, -1).mean(dim=2, keepdim=True).expand(-1, -1, channels // groups).flatten(1)


def _maps(x: Tensor) -> Tensor:
    """(...,C) -> (...,C,1,1)."""
    return x[..., None, None]


def _blocks(*maps: Tensor) -> Iterator[tuple[slice, tuple[Tensor, ...]]]:
    """Blocks of maps (N,C,h,w), the same of each, and the images they belong to: several whole ones, or rows of one."""
    images, channels, height, width = maps[0].shape
    count = max(1, BLOCK // (channels * height * width))
    rows = height if count > 1 else max(1, BLOCK // (channels * width))
    for first in range(0, images, count):
        chosen = slice(first, first + count)
        for top in range(0, height, rows):
            yield chosen, tuple(x[chosen, :, top : top + rows] for x in maps)
