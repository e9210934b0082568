"""Layers of StyleGAN2 as SemanticStyleGAN uses them: equalised weights, code-styled and unstyled convs, FIR resampling.

Equalised: weights are stored standard normal and multiplied by 1/sqrt(fan-in) when they run, so that one learning rate fits all.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.noise import pixel_noise

SLOPE, GAIN = 0.2, math.sqrt(2.0)  # of the activation everywhere; the gain keeps the variance
EPS = 1e-8  # of pixel norm and demodulation
FIR = (1.0, 3.0, 3.0, 1.0)  # separable low pass


def leak(x: Tensor) -> Tensor:
    """The leaky ReLU alone; `GAIN` goes into the weights before it, which gives the same as a factor behind it."""
    return F.leaky_relu(x, SLOPE)


def pixel_norm(x: Tensor) -> Tensor:
    """x (N,C) divided by the root of its mean square."""
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + EPS)


def low_pass(x: Tensor, gain: float) -> Tensor:
    """The normalised FIR times `gain`, once for each channel of x (N,C,h,w): (C,1,4,4)."""
    taps = x.new_tensor(FIR)
    kernel = torch.outer(taps, taps) * (gain / taps.sum().square())
    return kernel.expand(x.shape[1], 1, -1, -1)


def filtered(x: Tensor, padding: int, *, gain: float = 1.0, stride: int = 1) -> Tensor:
    """x (N,C,h,w) through the FIR times `gain`, with `padding` zeros on all sides."""
    return F.conv2d(x, low_pass(x, gain), stride=stride, padding=padding, groups=x.shape[1])


def doubled(x: Tensor) -> Tensor:
    """x (N,C,h,w) -> (N,C,2h,2w): zeros between, then the FIR times 4."""
    return F.conv_transpose2d(x, low_pass(x, 4.0), stride=2, padding=1, groups=x.shape[1])


class EqualLinear(nn.Module):
    """Linear layer with equalised weight, activated or not; `lr_factor` scales weight and bias when it runs."""

    def __init__(self, in_width: int, out_width: int, *, activated: bool, lr_factor: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_width, in_width) / lr_factor)
        self.bias = nn.Parameter(torch.zeros(out_width))
        self.activated, self.lr_factor = activated, lr_factor

    def forward(self, x: Tensor) -> Tensor:
        """(N,in) -> (N,out)."""
        gain = self.lr_factor * (GAIN if self.activated else 1.0)
        x = F.linear(x, self.weight * (gain / math.sqrt(self.weight.shape[1])), self.bias * gain)
        return leak(x) if self.activated else x


class EqualConv(nn.Module):
    """Conv with equalised weight and no bias."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))

    def forward(self, x: Tensor) -> Tensor:
        """(N,in,h,w) -> (N,out,h',w'), without padding."""
        return F.conv2d(x, self.weight / math.sqrt(self.weight[0].numel()))


class ActivatedConv(nn.Module):
    """Conv with equalised weight, bias, activation."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, padding: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        """(N,in,h,w) -> (N,out,h',w')."""
        weight = self.weight * (GAIN / math.sqrt(self.weight[0].numel()))
        return leak(F.conv2d(x, weight, self.bias * GAIN, stride=self.stride, padding=self.padding))


class Head(nn.Module):
    """Unstyled 1x1 conv with a learned scale an input channel, no demodulation and no activation."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels))
        self.scale = nn.Parameter(torch.ones(in_channels))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N,in,h,w) -> (N,out,h,w)."""
        weight = self.weight * self.scale / math.sqrt(self.weight.shape[1])
        return F.conv2d(x, weight[..., None, None], self.bias)


class RenderConv(nn.Module):
    """3x3 conv of the render net: a learned scale an input channel in place of a style, demodulated, then noise and activation."""

    noise: Tensor

    def __init__(self, in_channels: int, out_channels: int, size: tuple[int, int], *, upsample: bool) -> None:
        """`size` (height, width) of the output, for the fixed noise."""
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.scale = nn.Parameter(torch.ones(in_channels))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.noise_weight = nn.Parameter(torch.zeros(1))
        self.register_buffer("noise", torch.randn(1, 1, *size))
        self.upsample = upsample

    def forward(self, x: Tensor, *, fixed_noise: bool) -> Tensor:
        """(N,in,h,w) -> (N,out,h,w), twice the size where it upsamples; noise of the buffer, or drawn a picture."""
        weight = self.weight * self.scale[:, None, None] / math.sqrt(self.weight[0].numel())
        weight = weight * torch.rsqrt(weight.square().sum(dim=(1, 2, 3), keepdim=True) + EPS)
        weight, bias = weight * GAIN, self.bias * GAIN
        if self.upsample:
            x = filtered(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2), 1, gain=4.0) + bias[:, None, None]
        else:
            x = F.conv2d(x, weight, bias, padding=1)
        noise = self.noise if fixed_noise else pixel_noise(x)
        return leak(x + (self.noise_weight * GAIN) * noise)


class ClassLayer(nn.Module):
    """One styled 1x1 layer of all local generators at once: weights (K,out,in), styled and demodulated an image and class."""

    def __init__(self, num_classes: int, width: int, code_width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_classes, width, width))
        self.bias = nn.Parameter(torch.zeros(num_classes, width))
        self.to_style = nn.Parameter(torch.randn(num_classes, width, code_width))
        self.style_bias = nn.Parameter(torch.ones(num_classes, width))

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """x (K,N,P,in) pixels, code (N,K,D) -> (K,N,P,out)."""
        style = torch.einsum("nkd,ksd->kns", code, self.to_style) / math.sqrt(code.shape[-1])
        style = style + self.style_bias.unsqueeze(1)  # (K,N,in)
        weight = self.weight.unsqueeze(1) * style.unsqueeze(2) / math.sqrt(self.weight.shape[-1])  # (K,N,out,in)
        weight = weight * (GAIN * torch.rsqrt(weight.square().sum(dim=3, keepdim=True) + EPS))
        bias = (self.bias * GAIN)[:, None, None].expand(-1, x.shape[1], 1, -1).flatten(0, 1)  # (K*N,1,out)
        mixed = torch.baddbmm(bias, x.flatten(0, 1), weight.transpose(2, 3).flatten(0, 1))
        return leak(mixed).unflatten(0, (x.shape[0], x.shape[1]))


class ClassHead(nn.Module):
    """`Head` of all local generators at once: weights (K,out,in)."""

    def __init__(self, num_classes: int, in_width: int, out_width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_classes, out_width, in_width))
        self.scale = nn.Parameter(torch.ones(num_classes, in_width))
        self.bias = nn.Parameter(torch.zeros(num_classes, out_width))

    def scaled(self) -> Tensor:
        """The weights as they meet the pixels, (K,out,in)."""
        return self.weight * self.scale.unsqueeze(1) / math.sqrt(self.weight.shape[-1])

    def forward(self, x: Tensor) -> Tensor:
        """x (K,N,P,in) -> (K,N,P,out)."""
        mixed = torch.matmul(x.flatten(1, 2), self.scaled().transpose(1, 2)) + self.bias.unsqueeze(1)
        return mixed.unflatten(1, (x.shape[1], x.shape[2]))
