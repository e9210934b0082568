"""Multi-scale patch discriminators on [label map, image]: pix2pixHD's, as SPADE, SEAN and CA²-SIS use it, and SCAM's."""

from __future__ import annotations

from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pipeline.models.conditioning import resize_nearest
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


class Judge(nn.Module):
    """What a trainer asks of a discriminator, beside its features: `forward(mask, image) -> Features`."""

    mixes_images: bool  # whether statistics over a batch tie its images together
    num_classes: int

    def views(self, mask: Tensor) -> Views:
        """`mask` (N,K,H,W) one-hot as `forward` takes it, prepared once for several passes."""
        raise NotImplementedError


class Discriminator(Judge):
    """`scales` patch discriminators; each sees the input average-pooled once more than the one before."""

    def __init__(self, cfg: DiscriminatorConfig, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.normalises_gradients = cfg.kind == "gradient_normalised"
        self.mixes_images = cfg.norm in ("batch", "sync_batch")
        self.scales = nn.ModuleList(PatchDiscriminator(cfg, num_classes + 3) for _ in range(cfg.scales))
        initialise(self, cfg.init_gain)
        if cfg.spectral_norm:
            apply_spectral_norm(
                conv for scale in self.scales for conv in list(scale.get_submodule("convs").children())[1:]
            )

    def forward(self, mask: Views, image: Tensor) -> Features:
        """mask (N,K,H,W) one-hot or its views, image (N,3,H,W) [-1,1] -> features of every scale, full size first, scores last."""
        masks = self.views(mask) if isinstance(mask, Tensor) else mask
        if self.normalises_gradients and self.training:
            return self._normalised(masks, image)
        return [
            scale(torch.cat([layout.to(view.dtype), view], dim=1))  # (N,K+3,h,w)
            for scale, layout, view in zip(self.scales, masks, self.pyramid(image), strict=True)
        ]

    def views(self, mask: Tensor) -> list[Tensor]:
        """The mask as each scale sees it."""
        if not self.normalises_gradients:
            return self.pyramid(mask)
        views = [mask]
        for _ in range(len(self.scales) - 1):
            height, width = views[-1].shape[2:]
            views.append(resize_nearest(mask, ((height + 1) // 2, (width + 1) // 2)))  # the pooled image's size
        return views

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """x (N,C,H,W) as each scale sees it."""
        views = [x]
        for _ in range(len(self.scales) - 1):
            views.append(F.avg_pool2d(views[-1], kernel_size=3, stride=2, padding=1, count_include_pad=False))
        return views

    def _normalised(self, masks: list[Tensor], image: Tensor) -> Features:
        """As `forward`, scores o as o / (n + |o|), between -1 and 1; n is the norm, an image, of the gradient of the sum of o.

        The gradient with respect to the full-size input, label map and image. It stays part of the graph where gradients are
        recorded, so a backward pass differentiates twice (gradient-normalised GANs, as SCAM's release uses them).
        """
        recorded = torch.is_grad_enabled()
        outputs: Features = []
        with torch.enable_grad():
            # A view where gradients go on: hooks on the network's input (torch's FLOP counter) do not stand this inner pass.
            image = image.view_as(image) if image.requires_grad else image.detach().requires_grad_()
            for scale, layout, view in zip(self.scales, masks, self.pyramid(image), strict=True):
                # A pixel of a map that was shrunk by nearest neighbour is one of the full map: their gradients have one norm.
                layout = layout.to(view.dtype).detach().requires_grad_()
                *features, scores = scale(torch.cat([layout, view], dim=1))
                slopes = torch.autograd.grad(scores.sum(), (layout, image), create_graph=recorded, retain_graph=True)
                every = torch.cat([slope.float().flatten(1) for slope in slopes], dim=1)  # (N, all channels and pixels)
                norm = torch.linalg.vector_norm(every, dim=1).view(-1, 1, 1, 1)
                outputs.append([*features, scores / (norm + scores.abs())])
        return outputs if recorded else [[output.detach() for output in scale] for scale in outputs]


def views_of(discriminator: nn.Module, mask: Tensor) -> Views:
    """`mask` (N,K,H,W) prepared once for all passes over one batch; naive passes do so themselves."""
    return mask if is_naive() or not isinstance(discriminator, Judge) else discriminator.views(mask)


def discriminate(discriminator: nn.Module, mask: Views, fake: Tensor, real: Tensor) -> tuple[Features, Features]:
    """Features of `fake` and `real` (N,3,H,W each) under one `mask`, run as one batch, fake first, as the release does."""
    twice = torch.cat([mask, mask]) if isinstance(mask, Tensor) else [torch.cat([view, view]) for view in mask]
    both: Features = discriminator(twice, torch.cat([fake, real]))
    count = fake.shape[0]
    return [[x[:count] for x in scale] for scale in both], [[x[count:] for x in scale] for scale in both]


def judge(
    discriminator: nn.Module, mask: Views, fake: Tensor, real: Tensor, *, real_too: bool = True
) -> tuple[Features, Features]:
    """As `discriminate`, with gradients into `fake` alone: for the generator's update, while the weights are frozen.

    The same numbers with half the backward pass, where the norm leaves images apart; features of `real` only if they are
    wanted (`real_too`). The weights are normalised once, so that spectral norm takes the one power iteration of a joint pass.
    """
    if is_naive() or not isinstance(discriminator, Judge) or discriminator.mixes_images:
        return discriminate(discriminator, mask, fake, real)
    with parametrize.cached():
        with torch.no_grad():
            features_real: Features = discriminator(mask, real) if real_too else []
        features_fake: Features = discriminator(mask, fake)
    return features_fake, features_real


def _norm_kind(name: str) -> NormKind:
    kinds: dict[str, NormKind] = {kind: kind for kind in get_args(NormKind)}
    return kinds[name]
