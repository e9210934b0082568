"""A small encoder from photo to codes: where inversion starts (ours, in the manner of pSp and ReStyle)."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.semanticstylegan.layers import SLOPE
from pipeline.schema.model_semanticstylegan import CodeEncoder

SMALLEST = 4  # pixels of the short side that the convs end at


class PhotoEncoder(nn.Module):
    """Stride-2 convs down to 4 pixels, one hidden layer, and all codes as differences from the mean code."""

    def __init__(self, cfg: CodeEncoder, codes: int, code_width: int, size: tuple[int, int]) -> None:
        super().__init__()
        halvings = max(1, int(math.log2(min(size) / SMALLEST)))
        widths = [cfg.width * min(2**level, 8) for level in range(halvings + 1)]
        self.stem = nn.Conv2d(3, widths[0], 3, padding=1)
        self.down = nn.ModuleList(
            nn.Conv2d(before, after, 4, stride=2, padding=1) for before, after in pairwise(widths)
        )
        pixels = (size[0] >> halvings) * (size[1] >> halvings)
        self.hidden = nn.Linear(widths[-1] * pixels, 2 * code_width)
        self.heads = nn.Linear(2 * code_width, codes * code_width)
        self.codes = codes
        nn.init.zeros_(self.heads.bias)
        nn.init.normal_(self.heads.weight, std=0.1 / math.sqrt(2 * code_width))  # it starts near the mean code

    def forward(self, image: Tensor) -> Tensor:
        """image (N,3,H,W) [-1,1] -> (N,C,D), to be added to the mean code."""
        x = F.leaky_relu(self.stem(image), SLOPE)
        for conv in self.down:
            x = F.leaky_relu(conv(x), SLOPE)
        x = F.leaky_relu(self.hidden(x.flatten(1)), SLOPE)
        codes: Tensor = self.heads(x).unflatten(1, (self.codes, -1))
        return codes


def settled(parameters: nn.Module) -> bool:
    """Whether the weights of a module have values (they have none on the meta device)."""
    return not any(parameter.is_meta for parameter in parameters.parameters())


def mean_of(mapping: nn.Module, width: int, count: int, device: torch.device) -> Tensor:
    """Mean of w (D,) over `count` z, drawn on the CPU with seed 0: the same for equal weights."""
    z = torch.randn(count, width, generator=torch.Generator(device="cpu").manual_seed(0), device="cpu")
    with torch.no_grad():
        mean: Tensor = mapping(z.to(device)).mean(dim=0)
    return mean
