"""OASIS's discriminator: a U-Net that says of every pixel which class it shows, or that it is generated.

You Only Need Adversarial Supervision for Semantic Image Synthesis (ICLR 2021). It sees the image alone; the label map is what it is
asked for.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.discriminator import Features, Judge, Views
from pipeline.models.spectral import apply_spectral_norm
from pipeline.models.trunk import LEAK, initialise
from pipeline.schema.discriminator import DiscriminatorConfig

FAKE = 0  # the channel of generated pixels; class k has channel k + 1


class _Block(nn.Module):
    """Residual block of two 3x3 convs, with a 1x1 conv on the shortcut where the width changes."""

    def __init__(self, in_width: int, out_width: int) -> None:
        super().__init__()
        self.conv_0 = nn.Conv2d(in_width, out_width, 3, padding=1)
        self.conv_1 = nn.Conv2d(out_width, out_width, 3, padding=1)
        self.conv_s = nn.Conv2d(in_width, out_width, 1) if in_width != out_width else None

    def convs(self) -> list[nn.Module]:
        """The convs that carry spectral norm in the release."""
        return [self.conv_0, self.conv_1, *([] if self.conv_s is None else [self.conv_s])]

    def shortcut(self, x: Tensor) -> Tensor:
        """(N,in,h,w) -> (N,out,h,w)."""
        return x if self.conv_s is None else self.conv_s(x)


class DownBlock(_Block):
    """Halves the size by average pooling; `first` sees the image, which no activation comes before."""

    def __init__(self, in_width: int, out_width: int, *, first: bool) -> None:
        super().__init__(in_width, out_width)
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        """(N,in,h,w) -> (N,out,h/2,w/2), sides rounded up."""
        inner = self.conv_0(x if self.first else F.leaky_relu(x, LEAK))
        inner = self.conv_1(F.leaky_relu(inner, LEAK))
        shortcut = self.shortcut(_halved(x)) if self.first else _halved(self.shortcut(x))
        return _halved(inner) + shortcut


class UpBlock(_Block):
    """Brings a map to the size of the next finer level, by nearest neighbour, before its convs."""

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """(N,in,h,w) -> (N,out,*size)."""
        inner = F.interpolate(F.leaky_relu(x, LEAK), size=size, mode="nearest")
        inner = self.conv_1(F.leaky_relu(self.conv_0(inner), LEAK))
        out: Tensor = inner + self.shortcut(F.interpolate(x, size=size, mode="nearest"))
        return out


class SegmentationDiscriminator(Judge):
    """`layers` blocks down, as many up with skips, and a 1x1 conv to K + 1 scores a pixel.

    Widths down: w, w, 2w, 2w, 4w, 4w, ... (release: w = 128, six blocks); up: those of the skips, and w/2 at the end.
    """

    mixes_images = False  # it has no norms

    def __init__(self, cfg: DiscriminatorConfig, num_classes: int, unknown: int | None = None) -> None:
        """`unknown`: the class that means "not annotated", which losses leave out; it has a channel all the same."""
        super().__init__()
        self.num_classes, self.unknown = num_classes, unknown
        widths = [cfg.width * 2 ** (level // 2) for level in range(cfg.layers)]
        self.down = nn.ModuleList(
            DownBlock(before, after, first=level == 0)
            for level, (before, after) in enumerate(zip([3, *widths[:-1]], widths, strict=True))
        )
        outputs = [*reversed(widths[:-1]), max(1, widths[0] // 2)]
        inputs = [widths[-1], *(2 * width for width in outputs[:-1])]  # skip of the same width, then what comes up
        self.up = nn.ModuleList(UpBlock(before, after) for before, after in zip(inputs, outputs, strict=True))
        self.score = nn.Conv2d(outputs[-1], num_classes + 1, 1)
        initialise(self, cfg.init_gain)
        if cfg.spectral_norm:
            blocks = [block for block in (*self.down, *self.up) if isinstance(block, _Block)]
            apply_spectral_norm(conv for block in blocks for conv in block.convs())

    def views(self, mask: Tensor) -> Views:
        """Nothing: the label map is no input."""
        return []

    def forward(self, mask: Views, image: Tensor) -> Features:
        """image (N,3,H,W) [-1,1], any size -> one scale: outputs of the blocks, down and up, and the scores (N,K+1,H,W)."""
        x, sizes, found = image, [], []
        for block in self.down:
            sizes.append((x.shape[-2], x.shape[-1]))
            x = block(x)
            found.append(x)
        skips = found[:-1]
        for level, block in enumerate(self.up):
            x = block(x if level == 0 else torch.cat([skips.pop(), x], dim=1), sizes.pop())
            found.append(x)
        return [[*found, self.score(x)]]


def _halved(x: Tensor) -> Tensor:
    """Means of 2x2 pixels; at an odd side the last ones are of what is there."""
    return F.avg_pool2d(x, 2, ceil_mode=True)
