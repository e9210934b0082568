"""The residual trunk that SPADE and families after it share (SPADE, CVPR 2019, appendix A): blocks, schedule, initialisation."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.errors import UserError

LEAK = 0.2  # negative slope of every leaky ReLU in the release

Condition = tuple[Tensor | None, ...]  # what the norms of a trunk are called with, after the features


def check_size(family: str, size: tuple[int, int], stride: int, *, single: bool = False) -> None:
    """Refuse a size (height, width) that `stride` does not divide, or that leaves one pixel at the coarsest level.

    With `single`, one pixel is enough.
    """
    height, width = size
    if height <= 0 or width <= 0 or height % stride or width % stride:
        raise UserError(
            f"image size {height}x{width} does not suit {family}: both sides must be multiples of its stride {stride}"
        )
    if height * width == stride * stride and not single:
        raise UserError(
            f"image size {height}x{width} leaves {family} a single pixel at stride {stride}; use a larger size"
        )


def initialise(module: nn.Module, gain: float | None) -> None:
    """Xavier-normal weights with `gain`, zero biases, for every conv and linear layer (release: 0.02); None: as torch starts.

    To be called before `apply_spectral_norm`, so that the singular vectors belong to the drawn weights.
    """
    if gain is None:
        return
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.xavier_normal_(part.weight, gain)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


class ConditionedBlock(nn.Module):
    """Residual block (SPADE ResBlk): twice norm, leaky ReLU 0.2, 3x3 conv; shortcut of norm and 1x1 conv if widths differ."""

    def __init__(
        self, in_width: int, out_width: int, make_norm: Callable[[int], nn.Module], *, appended: int = 0
    ) -> None:
        """`make_norm(channels)` gives a conditioned norm, called as norm(x, *condition).

        It may append `appended` channels to its output.
        """
        super().__init__()
        middle = min(in_width, out_width)
        self.norm_0 = make_norm(in_width)
        self.conv_0 = nn.Conv2d(in_width + appended, middle, 3, padding=1)
        self.norm_1 = make_norm(middle)
        self.conv_1 = nn.Conv2d(middle + appended, out_width, 3, padding=1)
        self.learned_shortcut = in_width != out_width
        if self.learned_shortcut:
            self.norm_s = make_norm(in_width)
            self.conv_s = nn.Conv2d(in_width + appended, out_width, 1, bias=False)

    def convs(self) -> list[nn.Module]:
        """The convs that carry spectral norm in the release."""
        return [self.conv_0, self.conv_1, *([self.conv_s] if self.learned_shortcut else [])]

    def forward(self, x: Tensor, condition: Condition) -> Tensor:
        """x (N,in,h,w), condition as the norms take it -> (N,out,h,w)."""
        shortcut = self.conv_s(self.norm_s(x, *condition)) if self.learned_shortcut else x
        inner = self.conv_0(F.leaky_relu(self.norm_0(x, *condition), LEAK))
        inner = self.conv_1(F.leaky_relu(self.norm_1(inner, *condition), LEAK))
        out: Tensor = shortcut + inner
        return out


class UpsamplingTrunk(nn.Module):
    """head, x2, middle_0, middle_1, then `up_blocks` times x2 and a block that halves the width; leaky ReLU, conv, tanh.

    With `middle_upsample` there is one more x2, between middle_0 and middle_1 (the release's "more" and "most"
    upsampling).

    Widths: base_width * 2**up_blocks in head and middle, base_width at the end (release: 1024 ... 64). Upsampling is
    nearest.
    """

    def __init__(
        self,
        base_width: int,
        up_blocks: int,
        middle_upsample: bool,
        make_norm: Callable[[int, bool], nn.Module],
        *,
        appended: int = 0,
        second_middle: bool = True,
    ) -> None:
        """`make_norm(channels, last_block)` gives a conditioned norm, which may append `appended` channels.

        Without `second_middle` there is no middle_1 (OASIS).
        """
        super().__init__()
        widths = [base_width * 2 ** (up_blocks - level) for level in range(up_blocks + 1)]  # e.g. 1024 512 256 128 64
        self.start_width = widths[0]
        self.middle_upsample = middle_upsample
        self.stride = 2 ** (up_blocks + 1 + middle_upsample)

        def inner_norm(channels: int) -> nn.Module:
            return make_norm(channels, False)

        def last_norm(channels: int) -> nn.Module:
            return make_norm(channels, True)

        self.head = ConditionedBlock(widths[0], widths[0], inner_norm, appended=appended)
        self.middle_0 = ConditionedBlock(widths[0], widths[0], inner_norm, appended=appended)
        self.middle_1: ConditionedBlock | None = None
        if second_middle:
            self.middle_1 = ConditionedBlock(widths[0], widths[0], inner_norm, appended=appended)
        self.up = nn.ModuleList(
            ConditionedBlock(
                widths[level],
                widths[level + 1],
                last_norm if level == up_blocks - 1 else inner_norm,
                appended=appended,
            )
            for level in range(up_blocks)
        )
        self.to_image = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def blocks(self) -> list[ConditionedBlock]:
        """All residual blocks, coarsest first."""
        return [
            self.head,
            self.middle_0,
            *([] if self.middle_1 is None else [self.middle_1]),
            *[block for block in self.up if isinstance(block, ConditionedBlock)],
        ]

    def forward(self, start: Tensor, condition: Condition) -> Tensor:
        """start (N,start_width,H/stride,W/stride) -> image (N,3,H,W) in [-1, 1]."""
        x = self.head(start, condition)
        x = self.middle_0(_double(x), condition)
        x = _double(x) if self.middle_upsample else x
        if self.middle_1 is not None:
            x = self.middle_1(x, condition)
        for block in self.up:
            x = block(_double(x), condition)
        return torch.tanh(self.to_image(F.leaky_relu(x, LEAK)))


def _double(x: Tensor) -> Tensor:
    """Nearest upsampling by two: (N,C,h,w) -> (N,C,2h,2w)."""
    return F.interpolate(x, scale_factor=2, mode="nearest")
