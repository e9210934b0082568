"""The discriminator on picture and mask: two StyleGAN2 stacks whose ends are added (SemanticStyleGAN, section 3.3)."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from pipeline.models.semanticstylegan.layers import ActivatedConv, EqualConv, EqualLinear, filtered
from pipeline.models.semanticstylegan.synthesis import stage_width
from pipeline.models.trunk import check_size
from pipeline.schema.model_semanticstylegan import StyleganDiscriminator

SMALLEST = 4  # pixels: the short side is halved down to this


class DownBlock(nn.Module):
    """Residual block that halves the size: 3x3, low pass and 3x3 of stride 2; beside it low pass and 1x1 of stride 2."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.first = ActivatedConv(in_channels, in_channels, 3, padding=1)
        self.second = ActivatedConv(in_channels, out_channels, 3, stride=2, padding=0)
        self.skip = EqualConv(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N,in,h,w) -> (N,out,h/2,w/2)."""
        main = self.second(filtered(self.first(x), 2))
        beside: Tensor = self.skip(filtered(x, 1, stride=2))  # the 1x1 conv reads every second pixel only
        return (main + beside) / math.sqrt(2.0)


class MaskedDiscriminator(nn.Module):
    """Score of pictures with their masks, or of pictures alone."""

    def __init__(self, cfg: StyleganDiscriminator, num_classes: int, size: tuple[int, int]) -> None:
        """`num_classes`: channels of the masks; `size` (height, width) of pictures."""
        super().__init__()
        self.group = cfg.deviation_group
        halvings = max(0, int(math.log2(min(size) / SMALLEST)))
        check_size("semanticstylegan", size, 2**halvings)
        sides = [min(size) // 2**level for level in range(halvings + 1)]
        widths = [stage_width(cfg.max_width, cfg.width_budget, side) for side in sides]
        self.image_branch = _branch(3, widths)
        self.mask_branch = _branch(num_classes, widths)
        end = stage_width(cfg.max_width, cfg.width_budget, SMALLEST)
        self.last = ActivatedConv(widths[-1] + 1, end, 3, padding=1)
        pixels = (size[0] // 2**halvings) * (size[1] // 2**halvings)
        self.hidden = EqualLinear(end * pixels, end, activated=True)
        self.score = EqualLinear(end, 1, activated=False)

    def forward(self, image: Tensor, mask: Tensor | None) -> Tensor:
        """image (N,3,H,W) [-1,1], mask (N,K,H,W): one-hot * 2 - 1, or the generator's own channels -> scores (N,1)."""
        x = self.image_branch(image)
        if mask is not None:
            x = x + self.mask_branch(mask)
        x = self.last(torch.cat([x, deviation(x, self.group)], dim=1))
        score: Tensor = self.score(self.hidden(x.flatten(1)))
        return score


def deviation(x: Tensor, group: int) -> Tensor:
    """Minibatch deviation (Karras et al., ICLR 2018): x (N,C,h,w) -> (N,1,h,w), the mean standard deviation within groups.

    Groups of min(N, group) images, which are N / group apart; N must be divisible.
    """
    size = min(x.shape[0], group)
    grouped = x.view(size, -1, *x.shape[1:])  # (group,N/group,C,h,w)
    spread = (grouped.var(dim=0, correction=0) + 1e-8).sqrt().mean(dim=(1, 2, 3))  # (N/group,)
    return spread.repeat(size)[:, None, None, None].expand(-1, 1, *x.shape[2:])


def _branch(channels: int, widths: list[int]) -> nn.Sequential:
    blocks = [DownBlock(before, after) for before, after in pairwise(widths)]
    return nn.Sequential(ActivatedConv(channels, widths[0], 1, padding=0), *blocks)
