"""The multi-scale patch discriminator on [label map, image] (pix2pixHD's, as SPADE, SEAN and CA²-SIS use it)."""

from __future__ import annotations

from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pipeline.models.kernels import is_naive
from pipeline.models.norms import NormKind, param_free_norm
from pipeline.models.spectral import apply_spectral_norm
from pipeline.models.trunk import LEAK, initialise
from pipeline.schema.discriminator import DiscriminatorConfig

Features = list[list[Tensor]]  # per scale: features after each layer's activation, and last the patch scores

Views = Tensor | list[Tensor]  # a one-hot label map (N,K,H,W), or that map as each scale sees it (`views_of`)

KERNEL, PADDING = 4, 2  # of every conv in the release


class PatchDiscriminator(nn.Module):
    """One scale: `layers` convs with kernel 4 (all but the last stride 2), leaky ReLU after each; a conv to the scores."""

    def __init__(self, cfg: DiscriminatorConfig, in_channels: int) -> None:
        super().__init__()
        widths = [
            in_channels,
            *[cfg.width * 2 ** min(layer, 3) for layer in range(cfg.layers)],
        ]  # release: 64 128 256 512
        # A bias before a param-free norm would be cancelled by it, so the release drops it there.
        self.convs = nn.ModuleList(
            nn.Conv2d(
                widths[layer],
                widths[layer + 1],
                KERNEL,
                stride=1 if layer == cfg.layers - 1 else 2,
                padding=PADDING,
                bias=layer == 0 or cfg.norm == "none",
            )
            for layer in range(cfg.layers)
        )
        self.norms = nn.ModuleList(
            nn.Identity()
            if layer == 0 or cfg.norm == "none"
            else param_free_norm(_norm_kind(cfg.norm), widths[layer + 1])
            for layer in range(cfg.layers)
        )
        self.score = nn.Conv2d(widths[-1], 1, KERNEL, padding=PADDING)

    def forward(self, x: Tensor) -> list[Tensor]:
        """x (N,K+3,H,W) -> features after each activation, then the scores (N,1,h,w)."""
        features: list[Tensor] = []
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.leaky_relu(norm(conv(x)), LEAK)
            features.append(x)
        return [*features, self.score(x)]


class Discriminator(nn.Module):
    """`scales` patch discriminators; each sees the input average-pooled once more than the one before."""

    def __init__(self, cfg: DiscriminatorConfig, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.mixes_images = cfg.norm in ("batch", "sync_batch")  # statistics over a batch tie its images together
        self.scales = nn.ModuleList(PatchDiscriminator(cfg, num_classes + 3) for _ in range(cfg.scales))
        initialise(self, cfg.init_gain)
        if cfg.spectral_norm:
            apply_spectral_norm(
                conv for scale in self.scales for conv in list(scale.get_submodule("convs").children())[1:]
            )

    def forward(self, mask: Views, image: Tensor) -> Features:
        """mask (N,K,H,W) one-hot or its views, image (N,3,H,W) [-1,1] -> features of every scale, full size first, scores last."""
        masks = self.pyramid(mask) if isinstance(mask, Tensor) else mask
        return [
            scale(torch.cat([layout.to(view.dtype), view], dim=1))  # (N,K+3,h,w)
            for scale, layout, view in zip(self.scales, masks, self.pyramid(image), strict=True)
        ]

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """x (N,C,H,W) as each scale sees it."""
        views = [x]
        for _ in range(len(self.scales) - 1):
            views.append(F.avg_pool2d(views[-1], kernel_size=3, stride=2, padding=1, count_include_pad=False))
        return views


def views_of(discriminator: nn.Module, mask: Tensor) -> Views:
    """`mask` (N,K,H,W) pooled once for all passes over one batch; naive passes pool it themselves."""
    return mask if is_naive() or not isinstance(discriminator, Discriminator) else discriminator.pyramid(mask)


def discriminate(discriminator: nn.Module, mask: Views, fake: Tensor, real: Tensor) -> tuple[Features, Features]:
    """Features of `fake` and `real` (N,3,H,W each) under one `mask`, run as one batch, fake first, as the release does."""
    twice = torch.cat([mask, mask]) if isinstance(mask, Tensor) else [torch.cat([view, view]) for view in mask]
    both: Features = discriminator(twice, torch.cat([fake, real]))
    count = fake.shape[0]
    return [[x[:count] for x in scale] for scale in both], [[x[count:] for x in scale] for scale in both]


def judge(discriminator: nn.Module, mask: Views, fake: Tensor, real: Tensor) -> tuple[Features, Features]:
    """As `discriminate`, with gradients into `fake` alone: for the generator's update, while the weights are frozen.

    The same numbers with half the backward pass, where the norm leaves images apart. The weights are normalised once, so
    that spectral norm takes the one power iteration of a joint pass.
    """
    if is_naive() or not isinstance(discriminator, Discriminator) or discriminator.mixes_images:
        return discriminate(discriminator, mask, fake, real)
    with parametrize.cached():
        with torch.no_grad():
            features_real: Features = discriminator(mask, real)
        features_fake: Features = discriminator(mask, fake)
    return features_fake, features_real


def build_discriminator(cfg: DiscriminatorConfig, num_classes: int) -> Discriminator:
    """Discriminator of `cfg` for label maps of `num_classes` classes."""
    return Discriminator(cfg, num_classes)


def _norm_kind(name: str) -> NormKind:
    kinds: dict[str, NormKind] = {kind: kind for kind in get_args(NormKind)}
    return kinds[name]
