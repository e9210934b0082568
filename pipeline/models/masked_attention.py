"""Attention within labels (SCAM, ECCV 2022): masked attention, the block around it, and the positional code.

A latent belongs to one label. Latents see pixels of their label, pixels see latents of theirs. The mask is the label map at the
size of the features, so a small label has no pixel there: `absent_attention` says what its latents then attend to.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.conditioning import resize_nearest
from pipeline.models.kernels import is_naive
from pipeline.models.norms import LayerNorm
from pipeline.models.trunk import LEAK

AbsentAttention = Literal["as_released", "none"]

SHUT = -10000.0  # what the release puts in the place of a masked score
WAVELENGTH = 10000.0  # of the slowest channel of the positional code, as in the transformer


class LabelMasks:
    """Which pixels each latent may see, at any size; made once a size and batch."""

    def __init__(self, mask: Tensor, label_of: Tensor) -> None:
        """`mask` (N,K,H,W) one-hot; `label_of` (T,) int64, the label each latent belongs to."""
        self._mask, self._label_of = mask, label_of
        self._made: dict[tuple[int, int], Tensor] = {}

    def at(self, size: tuple[int, int]) -> Tensor:
        """(N,T,h*w) bool: whether the pixel has the latent's label, pixels row by row."""
        if size not in self._made:
            layout = resize_nearest(self._mask, size).flatten(2) > 0  # (N,K,h*w)
            self._made[size] = layout.index_select(1, self._label_of)
        return self._made[size]


class MaskedAttention(nn.Module):
    """Multi-head attention with biases everywhere, from tokens to the entries a mask allows."""

    def __init__(self, to_width: int, from_width: int, width: int, heads: int, absent: AbsentAttention) -> None:
        """`width`: of queries, keys and values, all heads together."""
        super().__init__()
        self.heads, self.absent = heads, absent
        self.scale = (width // heads) ** -0.5
        self.to_q = nn.Linear(to_width, width)
        self.to_k = nn.Linear(from_width, width)
        self.to_v = nn.Linear(from_width, width)
        self.to_out = nn.Linear(width, to_width)

    def forward(self, tokens: Tensor, source: Tensor, allowed: Tensor | None) -> Tensor:
        """tokens (N,T,to_width), source (N,P,from_width), allowed (N,T,P) bool or None for all -> (N,T,to_width)."""
        v = self._split(self.to_v(source))
        if is_naive():
            return self._join(self.weights(tokens, source, allowed).to(v.dtype) @ v)
        q, k = self._split(self.to_q(tokens)), self._split(self.to_k(source))
        if allowed is None:
            return self._join(F.scaled_dot_product_attention(q, k, v, scale=self.scale))
        # A row that may see nothing: queries of 0 and an open mask are the release's equal scores.
        sees = allowed.any(dim=2).unsqueeze(1).unsqueeze(3)  # (N,1,T,1)
        opened = allowed.unsqueeze(1) | ~sees  # (N,1,T,P)
        out = F.scaled_dot_product_attention(q * sees, k, v, attn_mask=opened, scale=self.scale)
        return self._join(out * sees if self.absent == "none" else out)

    def weights(self, tokens: Tensor, source: Tensor, allowed: Tensor | None) -> Tensor:
        """The attention map (N,heads,T,P): what `forward` weighs values by, in the explicit form of the release."""
        q, k = self._split(self.to_q(tokens)), self._split(self.to_k(source))
        scores = q @ k.transpose(2, 3) * self.scale
        if allowed is None:
            return scores.softmax(dim=-1)
        shown = scores.masked_fill(~allowed.unsqueeze(1), SHUT).softmax(dim=-1)
        return shown * allowed.any(dim=2).unsqueeze(1).unsqueeze(3) if self.absent == "none" else shown

    def _split(self, x: Tensor) -> Tensor:
        """(N,T,width) -> (N,heads,T,width/heads); heads are neighbouring channels."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def _join(self, x: Tensor) -> Tensor:
        """(N,heads,T,width/heads) -> (N,T,to_width)."""
        out: Tensor = self.to_out(x.transpose(1, 2).flatten(2))
        return out


class LatentBlock(nn.Module):
    """Latents plus masked attention, norm, plus a small network, norm (post-norm).

    Both norms take one mean and deviation over all latents and their width together: the number of latents is fixed, and labels
    reach each other through these two numbers, absent ones too.
    """

    def __init__(
        self, tokens: int, to_width: int, from_width: int, width: int, heads: int, absent: AbsentAttention
    ) -> None:
        """`tokens`: number of latents, all labels together; the rest as `MaskedAttention`."""
        super().__init__()
        self.attention = MaskedAttention(to_width, from_width, width, heads, absent)
        self.norm_0 = LayerNorm((tokens, to_width))
        self.change = LatentChange(to_width)
        self.norm_1 = LayerNorm((tokens, to_width))

    def forward(self, latents: Tensor, source: Tensor, allowed: Tensor | None) -> Tensor:
        """latents (N,T,D), source (N,P,E), allowed (N,T,P) bool -> (N,T,D)."""
        attended = self.norm_0(latents + self.attention(latents, source, allowed))
        out: Tensor = self.norm_1(attended + self.change(attended))
        return out


class LatentChange(nn.Module):
    """Linear, leaky ReLU, linear, leaky ReLU if `closed`; every width that of a latent."""

    def __init__(self, width: int, *, closed: bool = True) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        self.closed = closed

    def forward(self, x: Tensor) -> Tensor:
        """(N,T,D) -> (N,T,D)."""
        x = self.second(F.leaky_relu(self.first(x), LEAK))
        return F.leaky_relu(x, LEAK) if self.closed else x


def positional_code(channels: int, size: tuple[int, int], like: Tensor) -> Tensor:
    """Sines and cosines of the position (1,C,h,w), dtype and device of `like`: sin x, sin y, cos x, cos y, a quarter each.

    x and y run from -1 to 1, so no channel sees more than a third of a period.
    """
    quarter = channels // 4
    steps = torch.arange(quarter, dtype=torch.float32, device=like.device) * 2 / (channels // 2)
    frequencies = (1.0 / WAVELENGTH**steps).view(-1, 1, 1)  # (C/4,1,1)
    across = torch.linspace(-1, 1, size[1], device=like.device).view(1, 1, -1) * frequencies  # (C/4,1,w)
    down = torch.linspace(-1, 1, size[0], device=like.device).view(1, -1, 1) * frequencies  # (C/4,h,1)
    waves = [wave.expand(quarter, *size) for wave in (across.sin(), down.sin(), across.cos(), down.cos())]
    return torch.cat(waves).unsqueeze(0).to(like.dtype)
