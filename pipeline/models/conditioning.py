"""Spatially-adaptive conditioning layers: normalise without affine, then scale and shift from the layout and its styles.

`SpadeNorm` is the SPADE layer (SPADE, CVPR 2019, section 3: gamma and beta are 3x3 convolutions of the label map).
`SeanNorm` is the SEAN block (SEAN, CVPR 2020, section 3.1; "ACE" in its code): SPADE's modulation blended with one
computed from the style codes broadcast into their regions. Both serve their own families and, as components, the
CA²-SIS decoder (conditioning `spade`, `sean`).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.kept import of_style
from pipeline.models.kernels import folds, is_naive
from pipeline.models.noise import pixel_noise
from pipeline.models.norms import NormKind, param_free_norm

NoiseKind = Literal["always", "train", "off"]


def resize_nearest(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """One-hot (N,K,H,W) -> (N,K,h,w) by nearest neighbour, so that it stays one-hot; free when the size is right."""
    height, width = mask.shape[-2:]
    if (height, width) == tuple(size):
        return mask
    if height % size[0] == 0 and width % size[1] == 0:  # the neighbour is every n-th pixel
        return mask[..., :: height // size[0], :: width // size[1]].contiguous()
    return F.interpolate(mask, size=size, mode="nearest")


class MaskModulation(nn.Module):
    """Gamma and beta of the SPADE layer from the label map: 3x3 conv, ReLU, then a 3x3 conv for each."""

    def __init__(self, channels: int, num_classes: int, *, hidden: int, extra_channels: int = 0) -> None:
        super().__init__()
        self.extra_channels = extra_channels
        self.shared = nn.Conv2d(num_classes + extra_channels, hidden, 3, padding=1)
        self.gamma = nn.Conv2d(hidden, channels, 3, padding=1)
        self.beta = nn.Conv2d(hidden, channels, 3, padding=1)

    def forward(self, mask: Tensor, size: tuple[int, int], extra: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`mask` (N,K,H,W) one-hot, `extra` (N,extra_channels,H',W') or None -> gamma, beta, each (N,C,*size)."""
        features = self.features(mask, size, extra)
        if not folds():
            return self.gamma(features), self.beta(features)
        gamma, beta = F.conv2d(features, *self.stacked(), padding=1).chunk(2, dim=1)
        return gamma, beta

    def features(self, mask: Tensor, size: tuple[int, int], extra: Tensor | None = None) -> Tensor:
        """What gamma and beta are convolutions of: (N,hidden,*size), not negative."""
        layout = resize_nearest(mask, size)  # (N,K,h,w) {0,1}
        if (extra is None) != (self.extra_channels == 0):
            raise ValueError(
                f"this layer was built for {self.extra_channels} extra channels; extra is {type(extra).__name__}"
            )
        if extra is not None:
            layout = torch.cat([layout.to(extra.dtype), resize_nearest(extra, size)], dim=1)  # (N,K+E,h,w)
        return F.relu(self.shared(layout))

    def stacked(self) -> tuple[Tensor, Tensor]:
        """Weight (2C,hidden,3,3) and bias (2C,) that give gamma and beta, one behind the other, in one convolution."""
        return stack_convs(self.gamma, self.beta)


def stack_convs(gamma: nn.Conv2d, beta: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Weights (2C,in,3,3) and biases (2C,) of two convolutions of the same input."""
    assert gamma.bias is not None and beta.bias is not None, "built with biases"
    return torch.cat([gamma.weight, beta.weight]), torch.cat([gamma.bias, beta.bias])


class SpadeNorm(nn.Module):
    """The SPADE layer: param-free norm of x, times (1 + gamma(mask)), plus beta(mask) (SPADE, equation 1)."""

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        hidden: int = 128,
        norm: NormKind = "batch",
        extra_channels: int = 0,
    ) -> None:
        """`hidden`: width between map and gamma/beta (release: 128); `extra_channels`: further map channels."""
        super().__init__()
        self.norm = param_free_norm(norm, channels)
        self.modulation = MaskModulation(channels, num_classes, hidden=hidden, extra_channels=extra_channels)

    def forward(self, x: Tensor, mask: Tensor, extra: Tensor | None = None) -> Tensor:
        """x (N,C,h,w), mask (N,K,H,W) one-hot, extra (N,E,H',W') or None -> (N,C,h,w).

        Mask and extra are resized to x by nearest neighbour; extra is concatenated behind the mask.
        """
        gamma, beta = self.modulation(mask, (x.shape[-2], x.shape[-1]), extra)
        modulated: Tensor = self.norm(x) * (1 + gamma) + beta
        return modulated


class StyleModulation(nn.Module):
    """Gamma and beta of the SEAN block from style codes: a linear layer a class, ReLU, spread over the region, 3x3 convs.

    The published code broadcasts into an S-channel map and convolves that. Because the map is piecewise constant,
    conv(broadcast(code)) equals a convolution of the K-channel one-hot map with weights folded with the codes, which is
    cheaper wherever K is small beside S; the cheaper of the two exact forms runs, and the published loop stays under
    `naive_kernels()`.
    """

    def __init__(self, channels: int, num_classes: int, style_dim: int) -> None:
        super().__init__()
        self.class_weight = nn.Parameter(torch.empty(num_classes, style_dim, style_dim))  # (K, out, in)
        self.class_bias = nn.Parameter(torch.zeros(num_classes, style_dim))  # (K, out)
        self.gamma = nn.Conv2d(style_dim, channels, 3, padding=1)
        self.beta = nn.Conv2d(style_dim, channels, 3, padding=1)
        bound = 1.0 / math.sqrt(style_dim)  # torch's default for a linear layer
        nn.init.uniform_(self.class_weight, -bound, bound)

    def forward(self, mask: Tensor, style: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """`mask` (N,K,H,W) one-hot, `style` (N,K,S) -> gamma, beta, each (N,C,*size); pixels of no class get zero codes."""
        layout = resize_nearest(mask, size)  # (N,K,h,w) {0,1}
        if is_naive():
            spread = self._spread_naive(layout, style)
            return self.gamma(spread), self.beta(spread)
        weight, bias = stack_convs(self.gamma, self.beta)
        source, weight = self.source_and_weight(layout, style, weight)
        gamma, beta = (convolve(source, weight) + bias.view(1, -1, 1, 1)).chunk(2, dim=1)
        return gamma, beta

    def source_and_weight(self, layout: Tensor, style: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """A map and weights whose convolution is that of the broadcast codes with `weight` (O,S,3,3).

        Either the codes in their regions (N,S,h,w) and `weight` itself, or the one-hot `layout` (N,K,h,w) and weights folded
        with the codes, one set an image (N,O,K,3,3): whichever takes fewer multiply-adds.
        """
        codes, weight = self.codes_and_weight(style, weight, layout.shape[2] * layout.shape[3])
        return self.source(layout, codes, weight), weight

    def codes_and_weight(self, style: Tensor, weight: Tensor, pixels: int) -> tuple[Tensor, Tensor]:
        """Codes (N,K,S), and `weight` as `source_and_weight` gives it for a layout of so many pixels."""
        codes = F.relu(torch.einsum("nks,kts->nkt", style, self.class_weight) + self.class_bias)  # (N,K,S)
        num_classes, style_dim = codes.shape[1], codes.shape[2]
        cheaper = num_classes * (style_dim + pixels) < style_dim * pixels  # multiply-adds an output channel and tap
        if folds() and cheaper:
            return codes, torch.einsum("nks,osyx->nokyx", codes, weight)
        return codes, weight

    @staticmethod
    def source(layout: Tensor, codes: Tensor, weight: Tensor) -> Tensor:
        """What `weight` is convolved with: the layout where it is folded with the codes (N,O,K,3,3), else codes in regions."""
        if weight.dim() == 5:
            return layout.to(codes.dtype)
        return torch.einsum("nks,nkhw->nshw", codes, layout.to(codes.dtype))

    def _spread_naive(self, layout: Tensor, style: Tensor) -> Tensor:
        """The literal loop over images and classes present at this resolution; -> (N,S,h,w)."""
        spread = style.new_zeros(layout.shape[0], style.shape[-1], *layout.shape[-2:])
        for image in range(layout.shape[0]):
            for class_id in range(layout.shape[1]):
                region = layout[image, class_id] > 0  # (h,w) bool
                if region.any():
                    code = F.relu(
                        F.linear(style[image, class_id], self.class_weight[class_id], self.class_bias[class_id])
                    )
                    spread[image, :, region] = code.to(spread.dtype).unsqueeze(1)
        return spread


def convolve(x: Tensor, weight: Tensor) -> Tensor:
    """3x3 convolution of `x` (N,C,h,w) with `weight` (O,C,3,3), or (N,O,C,3,3), one set an image -> (N,O,h,w)."""
    if weight.dim() == 4:
        return F.conv2d(x, weight, padding=1)
    images, outputs = weight.shape[:2]
    out = F.conv2d(x.reshape(1, -1, *x.shape[2:]), weight.flatten(0, 1), padding=1, groups=images)
    return out.view(images, outputs, *x.shape[2:])


class SeanNorm(nn.Module):
    """The SEAN block (section 3.1): noise, param-free norm, modulation blended from style codes and mask.

    "ACE" in the code of the release. gamma = a_gamma * gamma_style + (1 - a_gamma) * gamma_mask with a_gamma = sigmoid(learned
    scalar); beta likewise with its own.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        style_dim: int,
        *,
        hidden: int = 128,
        use_style: bool = True,
        norm: NormKind = "batch",
        noise: NoiseKind = "always",
    ) -> None:
        """`use_style` False leaves the mask branch alone (the release's last block).

        `noise`: when the learned noise is added (release: always, also when testing).
        """
        super().__init__()
        self.noise = noise
        self.norm = param_free_norm(norm, channels)
        self.modulation = MaskModulation(channels, num_classes, hidden=hidden)
        if noise != "off":
            self.noise_scale = nn.Parameter(torch.zeros(channels))  # (C,) learned strength, starts at no noise
        self.style_modulation: StyleModulation | None = None
        if use_style:
            self.style_modulation = StyleModulation(channels, num_classes, style_dim)
            self.blend_gamma = nn.Parameter(torch.zeros(1))  # sigmoid(0): both branches count half
            self.blend_beta = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, mask: Tensor, style: Tensor) -> Tensor:
        """x (N,C,h,w), mask (N,K,H,W) one-hot, style (N,K,S) (unused without the style branch) -> (N,C,h,w)."""
        size = (x.shape[-2], x.shape[-1])
        if self.style_modulation is not None and folds():
            return self._at_once(self.style_modulation, x, mask, style)
        gamma, beta = self.modulation(mask, size)
        if self.style_modulation is not None:
            style_gamma, style_beta = self.style_modulation(mask, style, size)
            a_gamma, a_beta = torch.sigmoid(self.blend_gamma), torch.sigmoid(self.blend_beta)
            gamma = a_gamma * style_gamma + (1 - a_gamma) * gamma
            beta = a_beta * style_beta + (1 - a_beta) * beta
        modulated: Tensor = self.norm(self._with_noise(x)) * (1 + gamma) + beta
        return modulated

    def _at_once(self, by_style: StyleModulation, x: Tensor, mask: Tensor, style: Tensor) -> Tensor:
        """As `forward`: blending weights go into the convolutions, both branches are one convolution where they can be."""
        size = (x.shape[-2], x.shape[-1])
        layout = resize_nearest(mask, size)  # (N,K,h,w) {0,1}
        codes, style_weight, weight, bias = of_style(
            self, style, size[0] * size[1], lambda: self._blended(by_style, x.shape[1], style, size[0] * size[1])
        )
        source, features = by_style.source(layout, codes, style_weight), self.modulation.features(mask, size)
        if style_weight.dim() == 4 or style_weight.shape[0] == 1:
            both = F.conv2d(torch.cat([source.to(features.dtype), features], dim=1), weight, bias, padding=1)
        else:
            both = F.conv2d(features, weight, bias, padding=1) + convolve(source, style_weight)
        scale, shift = both.chunk(2, dim=1)  # (N,C,h,w) each
        return torch.addcmul(shift, self.norm(self._with_noise(x)), scale)

    def _blended(
        self, by_style: StyleModulation, channels: int, style: Tensor, pixels: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Codes, weight of the style branch, weight of both branches (of the mask's alone where they stay two), bias.

        All that does not depend on the layout.
        """
        a_gamma, a_beta = torch.sigmoid(self.blend_gamma), torch.sigmoid(self.blend_beta)
        share = torch.cat([a_gamma.expand(channels), a_beta.expand(channels)])  # (2C,) of the style branch
        ones = torch.cat([torch.ones_like(share[:channels]), torch.zeros_like(share[:channels])])  # of 1 + gamma
        style_weight, style_bias = stack_convs(by_style.gamma, by_style.beta)
        mask_weight, mask_bias = self.modulation.stacked()
        bias = share * style_bias + (1 - share) * mask_bias + ones
        share = share.view(-1, 1, 1, 1)
        codes, style_weight = by_style.codes_and_weight(style, share * style_weight, pixels)
        mask_weight = (1 - share) * mask_weight
        if style_weight.dim() == 5 and style_weight.shape[0] > 1:
            return codes, style_weight, mask_weight, bias
        one = style_weight[0] if style_weight.dim() == 5 else style_weight
        return codes, style_weight, torch.cat([one, mask_weight], dim=1), bias

    def _with_noise(self, x: Tensor) -> Tensor:
        """x plus one standard normal map an image, scaled per channel."""
        if self.noise == "off" or (self.noise == "train" and not self.training):
            return x
        return x + pixel_noise(x) * self.noise_scale.to(x.dtype).view(1, -1, 1, 1)
