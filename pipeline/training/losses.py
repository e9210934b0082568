"""Training losses: adversarial, feature matching, attention, pixel, frequency and diversity terms.

Sources: hinge and feature matching as in SPADE's release (pix2pixHD); the attention loss is (CA)²-SIS's; the VGG term
has its own module, `perceptual`. Terms are unweighted scalars; `objective` weighs them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.errors import UserError
from pipeline.models.conditioning import resize_nearest
from pipeline.models.kernels import is_naive
from pipeline.schema.losses import AttentionLoss

GanMode = Literal["hinge", "lsgan", "bce"]


class DiscriminatorTerms(NamedTuple):
    """The discriminator's two terms; the objective is their sum."""

    fake: Tensor
    real: Tensor


def patch_scores(features: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """The scores of every scale, from the discriminator's feature lists."""
    return [scale[-1] for scale in features]


def discriminator_loss(
    fake_scores: Sequence[Tensor], real_scores: Sequence[Tensor], mode: GanMode
) -> DiscriminatorTerms:
    """Terms of the discriminator from patch scores (N,1,h,w) per scale: mean over patches, then over scales.

    hinge: max(0, 1 + fake), max(0, 1 - real); lsgan: fake^2, (real - 1)^2; bce: cross-entropy against 0 and 1.
    """
    if mode == "hinge":
        fake = _scale_mean([F.relu(1 + score).mean() for score in fake_scores])
        real = _scale_mean([F.relu(1 - score).mean() for score in real_scores])
    else:
        fake = _scale_mean([_distance_to(score, 0.0, mode) for score in fake_scores])
        real = _scale_mean([_distance_to(score, 1.0, mode) for score in real_scores])
    return DiscriminatorTerms(fake, real)


def generator_gan_loss(fake_scores: Sequence[Tensor], mode: GanMode) -> Tensor:
    """Adversarial term of the generator; hinge: minus the mean score, else the distance to 1."""
    if mode == "hinge":
        return _scale_mean([-score.mean() for score in fake_scores])
    return _scale_mean([_distance_to(score, 1.0, mode) for score in fake_scores])


def feature_matching_loss(fake: Sequence[Sequence[Tensor]], real: Sequence[Sequence[Tensor]]) -> Tensor:
    """L1 between discriminator features of fake and real (no gradient into real), scores left out.

    Mean over each feature map, summed over layers and scales, divided by the number of scales (pix2pixHD, as in SPADE).
    """
    terms = [
        F.l1_loss(fake_feature, real_feature.detach())
        for fake_scale, real_scale in zip(fake, real, strict=True)
        for fake_feature, real_feature in zip(fake_scale[:-1], real_scale[:-1], strict=True)
    ]
    return torch.stack(terms).sum() / len(fake)


def multiscale_pixel_loss(fake: Tensor, real: Tensor, scales: int) -> Tensor:
    """Mean over `scales` of the L1 distance of images (N,3,H,W), each scale average-pooled 2x2 from the one before.

    Sides that reach one pixel stop shrinking, so any size works with any number of scales.
    """
    terms = [F.l1_loss(fake, real)]
    for _ in range(scales - 1):
        window = (min(2, fake.shape[-2]), min(2, fake.shape[-1]))
        fake, real = F.avg_pool2d(fake, window), F.avg_pool2d(real, window)
        terms.append(F.l1_loss(fake, real))
    return torch.stack(terms).mean()


def focal_frequency_loss(fake: Tensor, real: Tensor, exponent: float) -> Tensor:
    """Mean of w |F(fake) - F(real)|^2 over images (N,3,H,W), channels and frequencies; F is orthonormal.

    w = |F(fake) - F(real)|^`exponent`, scaled to a largest value of 1 in each channel, without gradient (Focal Frequency Loss,
    Jiang et al., ICCV 2021).
    """
    spectrum = torch.fft.fft2(fake.float() - real.float(), norm="ortho")  # (N,3,H,W) complex: F is linear
    distance = spectrum.real.square() + spectrum.imag.square()
    with torch.no_grad():
        weights = distance.pow(exponent / 2)
        weights = weights / weights.amax(dim=(-2, -1), keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    return (weights * distance).mean()


def diversity_loss(first: Tensor, second: Tensor, first_noise: Tensor, second_noise: Tensor) -> Tensor:
    """Reciprocal of (L1 distance of two images / L1 distance of their noises), mean over the batch; small when diverse.

    Mode-seeking regularisation (Mao et al., CVPR 2019). Images (N,3,H,W), noises (N,Z); eps 1e-5 keeps equal images
    finite.
    """
    image_gap = (first - second).abs().flatten(1).mean(dim=1)  # (N,)
    noise_gap = (first_noise - second_noise).abs().flatten(1).mean(dim=1)  # (N,)
    return (noise_gap / (image_gap + 1e-5)).mean()


def attention_loss(attention: Sequence[Tensor], mask: Tensor, cfg: AttentionLoss) -> Tensor:
    """Mean over the chosen levels of the disagreement of attention logits (N,K,h,w) with `mask` (N,K,H,W) one-hot.

    The mask is resized to each level by nearest neighbour. bce: binary cross-entropy with logits of each class map, mean over batch
    and pixels, then over classes ((CA)²-SIS as released; absent classes count, with an all-zero target). ce: cross-entropy over
    classes at each pixel that has one. kl: KL of softmax(logits of class k over pixels) from the uniform distribution on region k,
    over regions that exist.
    Class weights make the mean over classes a weighted one.
    """
    if cfg.kind == "off":
        raise ValueError("attention loss is off; do not compute it")
    if not attention:
        raise UserError("loss.attention is on, but this model yields no attention logits; set loss.attention.kind=off")
    chosen = range(len(attention)) if cfg.levels == "all" else cfg.levels
    if max(chosen) >= len(attention):
        raise UserError(f"loss.attention.levels is {list(chosen)}; this model has levels 0 to {len(attention) - 1}")
    weights = _class_weights(mask, cfg)
    losses: list[Tensor] = []
    for level in chosen:
        logits = attention[level].float()  # (N,K,h,w)
        target = resize_nearest(mask.float(), (logits.shape[-2], logits.shape[-1]))  # (N,K,h,w) {0,1}
        if cfg.kind == "bce":
            losses.append(_class_mean(_bce_per_class(logits, target), weights))
        elif cfg.kind == "ce":
            losses.append(_pixel_cross_entropy(logits, target, weights))
        else:
            losses.append(_region_divergence(logits, target, weights))
    return torch.stack(losses).mean()


def _distance_to(score: Tensor, target: float, mode: GanMode) -> Tensor:
    aim = torch.full_like(score, target)
    return F.mse_loss(score, aim) if mode == "lsgan" else F.binary_cross_entropy_with_logits(score, aim)


def _scale_mean(terms: list[Tensor]) -> Tensor:
    return torch.stack(terms).mean()


def _class_weights(mask: Tensor, cfg: AttentionLoss) -> Tensor | None:
    """Weights (K,) of the classes, or None for equal ones.

    inverse_frequency: one over the class's share of this batch's pixels, scaled to mean 1 over present classes; absent
    ones get 1.
    """
    if cfg.class_weights == "none":
        return None
    num_classes = mask.shape[1]
    if isinstance(cfg.class_weights, tuple):
        if len(cfg.class_weights) != num_classes:
            raise UserError(
                f"loss.attention.class_weights has {len(cfg.class_weights)} entries; the data has {num_classes} classes"
            )
        return torch.tensor(cfg.class_weights, dtype=torch.float32, device=mask.device)
    pixels = mask.float().sum(dim=(0, 2, 3))  # (K,)
    present = pixels > 0
    inverse = torch.where(present, 1 / pixels.clamp(min=1), torch.zeros_like(pixels))
    mean_over_present = inverse.sum() / present.sum().clamp(min=1)
    return torch.where(
        present, inverse / mean_over_present.clamp(min=torch.finfo(torch.float32).tiny), torch.ones_like(inverse)
    )


def _class_mean(per_class: Tensor, weights: Tensor | None) -> Tensor:
    """(Weighted) mean of (K,) -> scalar."""
    return per_class.mean() if weights is None else (weights * per_class).sum() / weights.sum()


def _bce_per_class(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy with logits, mean over batch and pixels -> (K,); under `naive_kernels()` the release's loop."""
    if is_naive():
        return torch.stack(
            [F.binary_cross_entropy_with_logits(logits[:, k], target[:, k]) for k in range(logits.shape[1])]
        )
    by_pixel, wanted = (x.permute(0, 2, 3, 1).flatten(0, 2) for x in (logits, target))  # (N*h*w,K): how logits lie
    return F.binary_cross_entropy_with_logits(by_pixel, wanted, reduction="none").mean(dim=0)


def _pixel_cross_entropy(logits: Tensor, target: Tensor, weights: Tensor | None) -> Tensor:
    """Cross-entropy over classes, (weighted) mean over labelled pixels; 0 when no pixel is labelled -> scalar."""
    per_class = target if weights is None else target * weights.view(1, -1, 1, 1)  # (N,K,h,w)
    return -(per_class * F.log_softmax(logits, dim=1)).sum() / per_class.sum().clamp(
        min=torch.finfo(torch.float32).tiny
    )


def _region_divergence(logits: Tensor, target: Tensor, weights: Tensor | None) -> Tensor:
    """KL(uniform on region k || softmax over pixels of logits k), (weighted) mean over regions that exist -> scalar."""
    area = target.sum(dim=(2, 3))  # (N,K) pixels
    log_share = F.log_softmax(logits.flatten(2), dim=2)  # (N,K,h*w)
    cross = -(target.flatten(2) * log_share).sum(dim=2) / area.clamp(min=1)  # (N,K)
    divergence = cross - area.clamp(min=1).log()  # minus the entropy of the uniform distribution; 0 where absent
    region_weights = (area > 0).float() if weights is None else (area > 0).float() * weights
    return (region_weights * divergence).sum() / region_weights.sum().clamp(min=torch.finfo(torch.float32).tiny)
