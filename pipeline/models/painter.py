"""The region-mean painter: every region in the reference's mean colour of its class. What does not beat it is said plainly."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.models.contract import Capabilities, Generator, Synthesis
from pipeline.models.sean import region_means
from pipeline.schema.model_painter import PainterModel


class PainterGenerator(Generator):
    """A rule without parameters; a class absent in the reference is painted mid grey (0 in [-1, 1])."""

    def __init__(self, cfg: PainterModel, num_classes: int) -> None:
        super().__init__()
        self.config = cfg
        self.num_classes = num_classes
        self.stride = 1
        self.capabilities = Capabilities(style="per_class", learned=False)

    def encode_style(self, image: Tensor, mask: Tensor) -> Tensor:
        """Mean colours (N,K,3) in [-1, 1]; 0 (mid grey) where a class is absent."""
        return region_means(image, mask)

    def synthesize(self, mask: Tensor, style: Tensor, *, attention: bool = True) -> Synthesis:
        """Each pixel gets its class's colour from `style` (N,K,3); pixels of no class stay mid grey."""
        return Synthesis(torch.einsum("nkc,nkhw->nchw", style, mask.to(style.dtype)))


def build(cfg: PainterModel, num_classes: int, size: tuple[int, int]) -> Generator:
    """The painter, for any size."""
    return PainterGenerator(cfg, num_classes)
