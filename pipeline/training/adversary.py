"""What the discriminator is asked for: real or generated patch by patch, or the class of every pixel (OASIS, ICLR 2021)."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.discriminator import Features, Views, discriminate
from pipeline.models.segmentation_discriminator import FAKE, SegmentationDiscriminator
from pipeline.schema.discriminator import DiscriminatorConfig
from pipeline.schema.losses import GanLoss
from pipeline.training.losses import discriminator_loss, generator_gan_loss, patch_scores


class Adversary(Protocol):
    """The adversarial terms of both updates."""

    def generator_term(self, features_fake: Features, mask: Tensor) -> Tensor:
        """Unweighted term "gan" of the generator, from the discriminator's features of its images."""
        ...

    def discriminator_terms(
        self, run: nn.Module, views: Views, mask: Tensor, fake: Tensor, real: Tensor
    ) -> dict[str, Tensor]:
        """Terms of the discriminator's update, weighted, by their names in the history; `run` is the discriminator."""
        ...


class PatchAdversary:
    """Scores of patches, on several scales."""

    def __init__(self, gan: GanLoss) -> None:
        self.mode = gan.mode

    def generator_term(self, features_fake: Features, mask: Tensor) -> Tensor:
        """As `Adversary.generator_term`."""
        return generator_gan_loss(patch_scores(features_fake), self.mode)

    def discriminator_terms(
        self, run: nn.Module, views: Views, mask: Tensor, fake: Tensor, real: Tensor
    ) -> dict[str, Tensor]:
        """The two terms "d_fake" and "d_real"."""
        features_fake, features_real = discriminate(run, views, fake, real)
        terms = discriminator_loss(patch_scores(features_fake), patch_scores(features_real), self.mode)
        return {"d_fake": terms.fake, "d_real": terms.real}


class SegmentationAdversary:
    """Cross-entropy over K + 1 channels a pixel, weighted by class, and LabelMix consistency."""

    def __init__(self, cfg: DiscriminatorConfig, unknown: int | None) -> None:
        self.cfg, self.unknown = cfg, unknown

    def generator_term(self, features_fake: Features, mask: Tensor) -> Tensor:
        """Cross-entropy of the generated pixels against their classes, weighted as the real ones are."""
        return self.real_term(features_fake[0][-1], mask)

    def discriminator_terms(
        self, run: nn.Module, views: Views, mask: Tensor, fake: Tensor, real: Tensor
    ) -> dict[str, Tensor]:
        """The terms "d_fake" and "d_real", and with LabelMix "d_label_mix" with its weight; all images run as one batch."""
        images, mixing = [fake, real], None
        if self.cfg.label_mix > 0:
            draws = torch.randint(0, 2, (mask.shape[1],), device=mask.device).to(mask.dtype)
            mixing = label_mix_mask(mask, draws, as_released=self.cfg.label_mix_draws == "as_released")
            images.append(mixing * real + (1 - mixing) * fake)
        scores = run(views, torch.cat(images))[0][-1].float().chunk(len(images))
        terms = {"d_fake": fake_cross_entropy(scores[0]), "d_real": self.real_term(scores[1], mask)}
        if mixing is not None:
            terms["d_label_mix"] = self.cfg.label_mix * label_mix_loss(scores[2], scores[1], scores[0], mixing)
        return terms

    def real_term(self, scores: Tensor, mask: Tensor) -> Tensor:
        """Mean over all pixels of weight x cross-entropy of `scores` (N,K+1,H,W) against class + 1."""
        labels, known = mask.argmax(dim=1), mask.amax(dim=1)  # (N,H,W) each; pixels of no class weigh nothing
        loss = pixel_cross_entropy(scores, labels + 1)
        if self.cfg.class_balance:
            loss = loss * class_weights(mask, self.unknown)[labels]
        return (loss * known).mean()


def adversary_of(discriminator: nn.Module, cfg: DiscriminatorConfig, gan: GanLoss) -> Adversary:
    """The adversary that `discriminator`, built from `cfg`, can be."""
    if isinstance(discriminator, SegmentationDiscriminator):
        return SegmentationAdversary(cfg, discriminator.unknown)
    return PatchAdversary(gan)


def pixel_cross_entropy(scores: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of each pixel: scores (N,K+1,H,W), target channels (N,H,W) int64 -> (N,H,W) float32."""
    return F.cross_entropy(scores.float(), target, reduction="none")


def fake_cross_entropy(scores: Tensor) -> Tensor:
    """Mean cross-entropy of `scores` (N,K+1,H,W) against "generated", every pixel alike, unknown ones included."""
    return pixel_cross_entropy(scores, torch.full_like(scores[:, 0], FAKE, dtype=torch.int64)).mean()


def class_weights(mask: Tensor, unknown: int | None) -> Tensor:
    """Weight (K,) of a pixel of each class of `mask` (N,K,H,W) one-hot: all pixels / (its pixels x classes present).

    The mean over all pixels is 1. The class `unknown` weighs 0 and is not counted as present, its pixels still count among all;
    so do pixels of no class. Absent classes get 0, which no pixel reads.
    """
    pixels = mask.float().sum(dim=(0, 2, 3))  # (K,)
    if unknown is not None:
        pixels = pixels * (torch.arange(pixels.numel(), device=pixels.device) != unknown)
    present = pixels > 0
    every = mask.shape[0] * mask.shape[2] * mask.shape[3]
    weights = every / (pixels.clamp(min=1) * present.sum().clamp(min=1))
    return torch.where(present, weights, torch.zeros_like(weights))


def label_mix_mask(mask: Tensor, draws: Tensor, *, as_released: bool) -> Tensor:
    """LabelMix's map (N,1,H,W), 1 = real: every pixel has the draw of its class; `draws` (K,) {0,1}, one for the whole batch.

    as_released: the draws are written over the class indices in place, in their order, so that pixels of class 0 that drew 1
    are taken for class 1 if that is present: class 0 is real only where both drew 1.
    """
    if as_released:
        both = torch.where(mask[:, 1].any(), draws[0] * draws[1], draws[0])
        draws = torch.cat([both.view(1), draws[1:]])
    return torch.einsum("nkhw,k->nhw", mask, draws).unsqueeze(1)


def label_mix_loss(mixed: Tensor, real: Tensor, fake: Tensor, mixing: Tensor) -> Tensor:
    """Mean square of scores of the mixed image minus the mixed scores (N,K+1,H,W each), gradients through all three."""
    return F.mse_loss(mixed, mixing * real + (1 - mixing) * fake)
