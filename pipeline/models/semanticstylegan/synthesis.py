"""The synthesis networks: positions, local generators, fusion by depth, render net (SemanticStyleGAN, sections 3.1 and 3.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.semanticstylegan.layers import (
    EPS,
    ClassHead,
    ClassLayer,
    EqualLinear,
    Head,
    RenderConv,
    doubled,
    pixel_norm,
)
from pipeline.schema.model_semanticstylegan import SemanticStyleganModel


@dataclass(frozen=True)
class Composition:
    """A composed batch."""

    image: Tensor  # (N,3,H,W), linear: not bounded to [-1, 1]
    mask: Tensor  # (N,K,H,W), linear; its argmax are the labels
    coarse: Tensor  # (N,K,h,w) in [-1, 1]: 2m - 1 of the softmax over depths
    depths: Tensor  # (N,K,h,w)


class MappingNetwork(nn.Module):
    """Noise z (N,D) -> w (N,D): pixel norm, then linear layers with activation; one network for all classes."""

    def __init__(self, width: int, layers: int, lr_factor: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            EqualLinear(width, width, activated=True, lr_factor=lr_factor) for _ in range(layers)
        )

    def forward(self, z: Tensor) -> Tensor:
        """(N,D) -> (N,D)."""
        x = pixel_norm(z)
        for layer in self.layers:
            x = layer(x)
        return x


class Positions(nn.Module):
    """Features of the pixel grid: coordinates in [-1, 1], sines and cosines of 2^i times them, through one linear layer."""

    def __init__(self, size: tuple[int, int], frequencies: int, width: int) -> None:
        super().__init__()
        self.size, self.frequencies = size, frequencies
        self.weight = nn.Parameter(torch.randn(width, 2 * (2 * frequencies + 1)))

    def forward(self) -> Tensor:
        """(P,width), pixels row by row; the same for every class."""
        rows, columns = (
            torch.linspace(-1, 1, side, device=self.weight.device, dtype=self.weight.dtype) for side in self.size
        )
        grid = torch.cartesian_prod(rows, columns).flip(1)  # (P,2): x, y
        waves = [wave(2.0**i * grid) for i in range(self.frequencies) for wave in (torch.sin, torch.cos)]
        features = torch.cat([grid, *waves], dim=1)
        return F.linear(features, self.weight / math.sqrt(self.weight.shape[1]))


class LocalGenerators(nn.Module):
    """All classes' generators: styled layers on positions, a depth after the shape layers, features at the end."""

    def __init__(self, cfg: SemanticStyleganModel, num_classes: int) -> None:
        super().__init__()
        self.depth_layers, self.detach_texture = cfg.depth_layers, cfg.detach_texture
        self.layers = nn.ModuleList(
            ClassLayer(num_classes, cfg.local_width, cfg.code_width) for _ in range(cfg.local_layers)
        )
        self.to_depth = ClassHead(num_classes - 1, cfg.local_width, 1)  # the background has none: its depth is 0
        self.to_feature = ClassHead(num_classes, cfg.local_width, cfg.feature_width)

    def forward(self, positions: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """positions (P,width), codes (N,K,L,D) -> hidden (K,N,P,width) before the feature head, depths (K,N,P)."""
        count, classes = codes.shape[:2]
        x = positions.expand(classes, count, -1, -1)
        depths = None
        for number, layer in enumerate(self.layers):
            x = layer(x, codes[:, :, number])
            if number + 1 == self.depth_layers:
                depths = self.to_depth(x[1:]).squeeze(3)
                depths = torch.cat([depths.new_zeros(1, *depths.shape[1:]), depths])
                if self.detach_texture:
                    x = x.detach()
        assert depths is not None, "validated: depth_layers < local_layers"
        return x, depths


def fusion_weights(depths: Tensor, transparent: tuple[int, ...], keep: Tensor | None) -> tuple[Tensor, Tensor]:
    """depths (K,N,P), classes to keep (N,K of 0/1) or None for all -> mask m and the weights of features, each (K,N,P).

    m is the softmax over classes. Transparent classes are laid over: the others' weights sum to 1 among themselves, and the
    transparent classes' m comes on top.
    """
    mask = torch.softmax(depths, dim=0)
    if keep is not None:
        mask = mask * keep.t().unsqueeze(2)
        mask = mask / (mask.sum(dim=0) + EPS)
    over = torch.zeros(mask.shape[0], 1, 1, device=mask.device, dtype=mask.dtype)
    over[list(transparent)] = 1.0
    opaque = mask * (1.0 - over)
    return mask, opaque / (opaque.sum(dim=0) + EPS) + mask * over


class RenderNet(nn.Module):
    """Fused features -> picture and mask: two convs a doubling, skip heads for both, the features once more at their own size."""

    def __init__(self, cfg: SemanticStyleganModel, num_classes: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.stages, self.coarse_stage, self.residual_refine = cfg.stages, cfg.coarse_stage, cfg.residual_refine
        self.convs, self.to_image, self.to_mask = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        before = cfg.feature_width
        for stage in range(1, cfg.stages + 1):
            shrunk = 2 ** (cfg.stages - stage)
            at = (size[0] // shrunk, size[1] // shrunk)
            width = stage_width(cfg.max_width, cfg.width_budget, min(at))
            self.convs.append(RenderConv(before, width, at, upsample=True))
            self.convs.append(RenderConv(width, width, at, upsample=False))
            self.to_image.append(Head(width, 3))
            self.to_mask.append(Head(width, num_classes))
            before = width + cfg.feature_width if stage == cfg.coarse_stage else width

    def forward(self, features: Tensor, coarse: Tensor, *, fixed_noise: bool) -> tuple[Tensor, Tensor]:
        """features (N,F,h,w), coarse mask (N,K,h,w) in [-1,1] -> image (N,3,H,W), mask (N,K,H,W), both linear."""
        x = F.avg_pool2d(features, 2**self.coarse_stage)
        image = mask = None
        for stage in range(self.stages):
            x = self.convs[2 * stage](x, fixed_noise=fixed_noise)
            x = self.convs[2 * stage + 1](x, fixed_noise=fixed_noise)
            image_part, mask_part = self.to_image[stage](x), self.to_mask[stage](x)
            image = image_part if image is None else image_part + doubled(image)
            mask = mask_part if mask is None else mask_part + doubled(mask)
            if stage + 1 == self.coarse_stage:
                if self.residual_refine:
                    mask = mask + coarse
                x = torch.cat([x, features], dim=1)
        assert image is not None and mask is not None, "validated: at least one stage"
        return image, mask


def stage_width(max_width: int, width_budget: int, side: int) -> int:
    """Channels of a feature map with `side` pixels on its short side."""
    return max(1, min(max_width, width_budget // side))


class Composer(nn.Module):
    """Local generators, fusion and render net: codes a layer -> picture and mask."""

    def __init__(self, cfg: SemanticStyleganModel, num_classes: int, size: tuple[int, int]) -> None:
        super().__init__()
        shrunk = 2 ** (cfg.stages - cfg.coarse_stage)
        self.coarse_size = (size[0] // shrunk, size[1] // shrunk)
        self.transparent = cfg.transparent
        self.positions = Positions(self.coarse_size, int(math.log2(min(size))), cfg.local_width)
        self.local = LocalGenerators(cfg, num_classes)
        self.render = RenderNet(cfg, num_classes, size)

    def forward(self, codes: Tensor, *, keep: Tensor | None = None, fixed_noise: bool) -> Composition:
        """codes (N,K,L,D), classes to keep (N,K of 0/1) -> the composition."""
        hidden, depths = self.local(self.positions(), codes)
        mask, weights = fusion_weights(depths, self.transparent, keep)
        features = self._fused(hidden, weights)
        coarse = 2.0 * self._map(mask) - 1.0
        image, fine = self.render(features, coarse, fixed_noise=fixed_noise)
        return Composition(image, fine, coarse, self._map(depths))

    def _fused(self, hidden: Tensor, weights: Tensor) -> Tensor:
        """Sum over classes of weight x feature head, (N,F,h,w).

        The weights meet the hidden layer, not the K feature maps, which are ten times as wide: the same sum.
        """
        head = self.local.to_feature
        weighted = (hidden * weights.unsqueeze(3)).permute(1, 2, 0, 3).flatten(2)  # (N,P,K*width)
        matrix = head.scaled().permute(0, 2, 1).flatten(0, 1)  # (K*width,F)
        fused = weighted @ matrix + weights.permute(1, 2, 0) @ head.bias  # (N,P,F)
        return fused.transpose(1, 2).unflatten(2, self.coarse_size)

    def _map(self, values: Tensor) -> Tensor:
        """(K,N,P) -> (N,K,h,w)."""
        return values.transpose(0, 1).unflatten(2, self.coarse_size)
