"""The training objective: which loss terms a config switches on, computed from one pass of the networks.

Terms and weights are two mappings with the same names, so adding a term is one entry. A term of weight 0 is not computed at all.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.models.contract import GeneratorPass
from pipeline.models.discriminator import Features
from pipeline.schema.losses import LossConfig
from pipeline.training.adversary import Adversary
from pipeline.training.losses import (
    attention_loss,
    feature_matching_loss,
    focal_frequency_loss,
    multiscale_pixel_loss,
)
from pipeline.training.perceptual import VggPerceptualLoss, vgg19_features
from pipeline.weights import WeightsMissing

REGULARISERS = ("kl", "diversity")  # terms that come with the generator's pass, where it has them
SUMMED = ("kl",)  # terms that are sums over the batch, not means: a part of a batch holds a part of the sum


class Objective(nn.Module):
    """Weighted sum of the terms that are on."""

    def __init__(self, cfg: LossConfig, adversary: Adversary, weights_dir: str | None = None) -> None:
        """`weights_dir`: folder searched for VGG-19. UserError where the perceptual loss is on and its weights are not sound."""
        super().__init__()
        self.cfg, self.adversary = cfg, adversary
        self.weights = cfg.weights()
        self.perceptual: VggPerceptualLoss | None = None
        if "perceptual" in self.weights:
            try:
                self.perceptual = VggPerceptualLoss(vgg19_features(weights_dir), cfg.perceptual)
            except WeightsMissing as error:
                raise UserError(
                    f"loss.perceptual.weight is {cfg.perceptual.weight}, but {error}; or set loss.perceptual.weight=0"
                ) from error

    @property
    def wants_attention(self) -> bool:
        """Whether the generator must compute attention logits."""
        return "attention" in self.weights

    @property
    def wants_real_features(self) -> bool:
        """Whether the generator's update reads the discriminator's features of real images."""
        return "feature_matching" in self.weights

    @property
    def wants_discriminator(self) -> bool:
        """Whether any term reads the discriminator; if none does, it is neither run nor trained."""
        return "gan" in self.weights or self.wants_real_features

    def generator_terms(
        self, made: GeneratorPass, real: Tensor, mask: Tensor, features_fake: Features, features_real: Features
    ) -> dict[str, Tensor]:
        """Unweighted terms of the generator's update; regularisers only where the family yields them."""
        fake, terms = made.synthesis.image, dict[str, Tensor]()
        if "gan" in self.weights:
            terms["gan"] = self.adversary.generator_term(features_fake, mask)
        if "feature_matching" in self.weights:
            terms["feature_matching"] = feature_matching_loss(features_fake, features_real)
        if self.perceptual is not None:
            terms["perceptual"] = self.perceptual(fake.float(), real)
        if "attention" in self.weights:
            terms["attention"] = attention_loss(made.synthesis.attention, mask, self.cfg.attention)
        if "pixel" in self.weights:
            terms["pixel"] = multiscale_pixel_loss(fake.float(), real, self.cfg.pixel.scales)
        if "focal_frequency" in self.weights:
            terms["focal_frequency"] = focal_frequency_loss(fake, real, self.cfg.focal_frequency.exponent)
        for name in REGULARISERS:
            if name in self.weights and name in made.regularisers:
                terms[name] = made.regularisers[name]
        return terms

    def total(self, terms: Mapping[str, Tensor]) -> Tensor:
        """Sum of weight x term."""
        return torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()
