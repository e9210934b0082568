"""Which code steers which layer: the index map from codes to the layers of the local generators, and exchanges of codes.

Codes (N,C,D), C = base + 2K: first the base codes (coarse structure, pose), then for class k its shape and its texture
(release: 28 = 2 + 2 * 13).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from pipeline.schema.model_semanticstylegan import SemanticStyleganModel


class CodeBook:
    """The layout of codes for K classes."""

    def __init__(self, cfg: SemanticStyleganModel, num_classes: int) -> None:
        self.num_classes = num_classes
        self.base = cfg.base_layers
        self.count = self.base + 2 * num_classes
        texture_layers = cfg.local_layers - cfg.depth_layers
        rows: list[list[int]] = []
        for k in range(num_classes):
            start = [] if k == 0 else list(range(self.base))  # the background takes its shape code there
            shape_layers = cfg.depth_layers - len(start)
            rows.append([*start, *[self.shape(k)] * shape_layers, *[self.texture(k)] * texture_layers])
        self.index = torch.tensor(rows, device="cpu")  # (K,L): which code each layer has

    def shape(self, k: int) -> int:
        """Index of the shape code of class `k`."""
        return self.base + 2 * k

    def texture(self, k: int) -> int:
        """Index of the texture code of class `k`."""
        return self.base + 2 * k + 1

    def expand(self, codes: Tensor) -> Tensor:
        """codes (N,C,D) -> (N,K,L,D), a code a layer; (N,D) stands for C equal ones."""
        if codes.dim() == 2:
            codes = codes.unsqueeze(1).expand(-1, self.count, -1)
        return codes[:, self.index.to(codes.device)]

    def places(self, classes: Iterable[int], *, shape: bool, texture: bool) -> list[int]:
        """Indices of the named codes of `classes`."""
        chosen = sorted(set(classes))
        return [self.shape(k) for k in chosen if shape] + [self.texture(k) for k in chosen if texture]

    def mixed(self, first: Tensor, second: Tensor) -> Tensor:
        """Codes (N,C,D) from two w (N,D): base of the first; for each class (shape, texture) of {AA, AB, BB}, drawn evenly."""
        count = first.shape[0]
        drawn = torch.randint(
            0, 3, (count, self.num_classes), device=first.device
        )  # how many of the two are the second's
        second_shape, second_texture = drawn == 2, drawn >= 1
        pairs = torch.stack([second_shape, second_texture], dim=2).flatten(1)  # (N,2K)
        taken = torch.cat([pairs.new_zeros(count, self.base), pairs], dim=1)  # (N,C)
        return torch.where(taken.unsqueeze(2), second.unsqueeze(1), first.unsqueeze(1))
