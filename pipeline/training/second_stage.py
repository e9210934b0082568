"""The second training stage: the mapping network learns to draw styles from noise (release of (CA)²-SIS, multimodal generation)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.models.contract import Generator, GeneratorPass
from pipeline.training.losses import diversity_loss


class SamplingPass(nn.Module):
    """Training pass of stage two: two styles drawn from noise for each layout, and how different their images are."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, image: Tensor, mask: Tensor, *, attention: bool) -> GeneratorPass:
        """As `Generator.forward`; `image` (N,3,H,W) only says how many styles to draw."""
        noises = [
            torch.randn(image.shape[0], self.generator.capabilities.noise_width, device=image.device) for _ in range(2)
        ]
        styles = [self.generator.sample_style(mask, noise) for noise in noises]
        made = self.generator.synthesize(mask, styles[0], attention=attention)
        other = self.generator.synthesize(mask, styles[1], attention=False)
        return GeneratorPass(made, styles[0], {"diversity": diversity_loss(made.image, other.image, *noises)})
