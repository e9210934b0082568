"""SCAM's semantic encoder (SCAM, ECCV 2022): image and label map -> several latents a label."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.masked_attention import AbsentAttention, LabelMasks, LatentBlock, positional_code
from pipeline.models.trunk import LEAK
from pipeline.schema.model_scam import LatentEncoderSection


class LatentEncoder(nn.Module):
    """Learned latents, the same for every picture, that attend to the pixels of their label, level after level."""

    label_of: Tensor

    def __init__(self, cfg: LatentEncoderSection, label_of: Tensor, style_dim: int, absent: AbsentAttention) -> None:
        """`label_of` (T,) int64: the label each latent belongs to, in label order."""
        super().__init__()
        self.cfg = cfg
        self.register_buffer("label_of", label_of, persistent=False)
        tokens = len(label_of)
        self.latents = nn.Parameter(torch.randn(tokens, style_dim))  # (T,D)
        widths = [3, *[cfg.width * 2**level for level in range(1, cfg.blocks)]] if cfg.pyramid else [3] * cfg.blocks
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=2, padding=1)
            for before, after in pairwise(widths if cfg.pyramid else ())
        )
        seen = [cfg.positional_width + width if width == 3 else width for width in widths]  # channels that blocks see
        if cfg.coarse_to_fine:
            seen.reverse()
        self.cross = nn.ModuleList(
            LatentBlock(tokens, style_dim, width, cfg.attention_width, cfg.heads, absent) for width in seen
        )
        self.within = nn.ModuleList(
            LatentBlock(tokens, style_dim, style_dim, cfg.attention_width, cfg.self_heads, absent)
            for _ in range(cfg.blocks if cfg.self_attention else 0)
        )

    def pyramid(self, image: Tensor) -> list[Tensor]:
        """image (N,3,H,W) -> what blocks look at, before the positional code: the image, then (N,2^i width,H/2^i,W/2^i)."""
        levels = [image]
        for conv in self.convs:
            levels.append(F.leaky_relu(conv(levels[-1]), LEAK))
        return levels if self.cfg.pyramid else levels * self.cfg.blocks

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """image (N,3,H,W) float32 [-1,1], mask (N,K,H,W) one-hot -> latents (N,T,D)."""
        masks = LabelMasks(mask, self.label_of)
        same_label = self.label_of.unsqueeze(0) == self.label_of.unsqueeze(1)  # (T,T)
        same_label = same_label.unsqueeze(0).expand(image.shape[0], -1, -1)
        latents = self.latents.repeat(image.shape[0], 1, 1)  # (N,T,D)
        levels = self.pyramid(image)
        for number, level in enumerate(reversed(levels) if self.cfg.coarse_to_fine else levels):
            pixels = self._with_position(level).flatten(2).transpose(1, 2)  # (N,h*w,E)
            latents = self.cross[number](latents, pixels, masks.at((level.shape[2], level.shape[3])))
            if self.cfg.self_attention:
                latents = self.within[number](latents, latents, same_label)
        return latents

    def _with_position(self, level: Tensor) -> Tensor:
        """The positional code stands beside the image, and is added to the other levels."""
        size = (level.shape[2], level.shape[3])
        if level.shape[1] != 3:
            return level + positional_code(level.shape[1], size, level)
        code = positional_code(self.cfg.positional_width, size, level)
        return torch.cat([level, code.expand(level.shape[0], -1, -1, -1)], dim=1)
