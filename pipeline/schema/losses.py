"""Config of the training losses, one section a term; a term of `weight: 0` is off, and not computed at all."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.schema.base import Section, later

Weight = Annotated[float, Field(ge=0)]
TERMS = ("gan", "feature_matching", "perceptual", "attention", "kl", "pixel", "diversity", "focal_frequency")


class GanLoss(Section):
    """Adversarial term of the generator; the mode holds for the discriminator too."""

    mode: Literal["hinge", "lsgan", "bce"]
    weight: Weight


class FeatureMatchingLoss(Section):
    """L1 distance of discriminator features, generated against real."""

    weight: Weight


class PerceptualLoss(Section):
    """L1 distance of VGG-19 features."""

    weight: Weight
    layer_weights: Annotated[tuple[Weight, ...], Field(strict=False, min_length=5, max_length=5)]  # relu1_1 ... relu5_1
    normalise: bool  # false: images enter in [-1, 1] as the release feeds them; true: ImageNet mean and deviation


class AttentionLoss(Section):
    """Pull of the pre-softmax attention logits of class k towards the mask of class k."""

    kind: Literal["bce", "ce", "kl", "off"]
    weight: Weight
    class_weights: (
        Literal["none", "inverse_frequency"] | Annotated[tuple[Weight, ...], Field(strict=False, min_length=2)]
    )
    levels: Literal["all"] | Annotated[tuple[int, ...], Field(strict=False, min_length=1)]  # indices, coarsest first

    @model_validator(mode="after")
    def _levels_are_indices(self) -> AttentionLoss:
        if self.levels != "all" and (min(self.levels) < 0 or len(set(self.levels)) != len(self.levels)):
            raise ValueError(f"attention.levels is {list(self.levels)}; allowed: all, or different indices from 0")
        if isinstance(self.class_weights, tuple) and sum(self.class_weights) == 0:
            raise ValueError("attention.class_weights are all 0; use kind: off")
        return self

    @property
    def enabled(self) -> bool:
        """Whether the term is computed; when not, the generator need not compute logits."""
        return self.kind != "off" and self.weight > 0


class KlLoss(Section):
    """Kullback-Leibler divergence of a variational style encoder from the standard normal."""

    weight: Weight


class PixelLoss(Section):
    """L1 distance of images at `scales` sizes, each half the one before; for presets without VGG weights."""

    weight: Weight
    scales: int = Field(ge=1, le=6)


class DiversityLoss(Section):
    """Pull of images drawn from different noise away from each other (mapping network, stage two)."""

    weight: Weight


class FocalFrequencyLoss(Section):
    """Distance of the images' spectra, each frequency weighted by how wrong it is."""

    weight: Weight
    exponent: Annotated[float, Field(ge=0)]  # of that weighting; 0: all frequencies alike


class LossConfig(Section):
    """All terms of the training objective; the total is the sum of weight x term."""

    gan: GanLoss
    feature_matching: FeatureMatchingLoss
    perceptual: PerceptualLoss
    attention: AttentionLoss
    kl: KlLoss
    pixel: PixelLoss
    diversity: DiversityLoss
    focal_frequency: FocalFrequencyLoss = later(FocalFrequencyLoss(weight=0.0, exponent=1.0))

    def weights(self) -> dict[str, float]:
        """Weight of every term that is switched on, keyed by the term's name, in the fixed order `TERMS`."""
        on = {name: float(getattr(self, name).weight) for name in TERMS}
        if not self.attention.enabled:
            on["attention"] = 0.0
        return {name: weight for name, weight in on.items() if weight > 0}
