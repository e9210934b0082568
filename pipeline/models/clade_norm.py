"""The CLADE layer: scale and shift looked up by class, with and without intra-class positional encoding (ICPE).

Efficient Semantic Image Synthesis via Class-Adaptive Normalization (TPAMI 2021). It serves its own family and, as a component,
the CA²-SIS decoder (conditioning `clade`), where class codes move the tables.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.models.conditioning import resize_nearest
from pipeline.models.kernels import is_naive
from pipeline.models.norms import NormKind, param_free_norm


class CladeNorm(nn.Module):
    """norm(x) * weight[class] + bias[class], without SPADE's "1 +" and without any convolution over the map."""

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        norm: NormKind = "batch",
        icpe: bool = False,
        edges: bool = False,
        style_channels: int = 0,
    ) -> None:
        """Tables drawn as in the release: scales uniform in [0, 1), shifts 0.

        `icpe`: positions multiply both tables; `edges`: a map of instance borders is appended as one more channel;
        `style_channels`: width of class codes added to the tables, 0 for none.
        """
        super().__init__()
        self.norm = param_free_norm(norm, channels)
        self.weight = nn.Parameter(torch.empty(num_classes, channels))
        self.bias = nn.Parameter(torch.zeros(num_classes, channels))
        nn.init.uniform_(self.weight)  # source: release
        self.scale_position = nn.Conv2d(2, 1, 1) if icpe else None
        self.shift_position = nn.Conv2d(2, 1, 1) if icpe else None
        self.edge = nn.Conv2d(1, 1, 1) if edges else None
        self.project = nn.Linear(style_channels, 2 * channels) if style_channels else None  # scale, then shift

    def forward(
        self,
        x: Tensor,
        mask: Tensor,
        offsets: Tensor | None = None,
        edges: Tensor | None = None,
        codes: Tensor | None = None,
    ) -> Tensor:
        """x (N,C,h,w), mask (N,K,H,W) one-hot, offsets (N,2,H,W), edges (N,1,H,W), codes (N,K,E) -> (N,C,h,w).

        (N,C+1,h,w) with edges. All maps are resized to x by nearest neighbour. Pixels of no class get scale and shift 0.
        """
        size = (x.shape[-2], x.shape[-1])
        layout = resize_nearest(mask, size)  # (N,K,h,w) {0,1}
        table = torch.cat([self.weight, self.bias], dim=1)  # (K,2C)
        if self.project is not None:
            assert codes is not None, "built for codes"
            table = table + self.project(codes)  # (N,K,2C)
        scale, shift = spread(layout, table).chunk(2, dim=1)  # (N,C,h,w) each
        if self.scale_position is not None and self.shift_position is not None:
            assert offsets is not None, "built for positions"
            near = resize_nearest(offsets, size)
            scale = scale * (1 + self.scale_position(near))
            shift = shift * (1 + self.shift_position(near))
        out: Tensor = self.norm(x) * scale + shift
        if self.edge is not None:
            assert edges is not None, "built for edges"
            border = self.edge(resize_nearest(edges, size))  # (N,1,h,w)
            out = torch.cat([out, border.to(out.dtype)], dim=1)
        return out


def spread(layout: Tensor, table: Tensor) -> Tensor:
    """Rows of `table` (K,C), or (N,K,C), in the regions of their classes in `layout` (N,K,h,w) -> (N,C,h,w)."""
    if table.dim() == 2:
        table = table.expand(layout.shape[0], -1, -1)
    if not is_naive():
        return torch.einsum("nkhw,nkc->nchw", layout.to(table.dtype), table)
    found = table.new_zeros(layout.shape[0], table.shape[2], *layout.shape[-2:])
    for image in range(layout.shape[0]):
        for class_id in range(layout.shape[1]):
            region = layout[image, class_id] > 0  # (h,w) bool
            if region.any():
                found[image, :, region] = table[image, class_id].unsqueeze(1)
    return found
