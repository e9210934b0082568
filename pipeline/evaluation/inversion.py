"""Inversion: the codes of a photo, for families that draw their layout themselves (SemanticStyleGAN, section 4.3).

Adam on the codes of a batch of photos, within the budget of the protocol's section `inversion`. Photos do not touch each other, so
the batch size changes nothing but speed. Codes that were found are kept, so that reconstruction and edits share them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.errors import RunFailed, UserError
from pipeline.metrics import cost
from pipeline.metrics.perceptual import Lpips, too_small
from pipeline.models.contract import ComposingGenerator, Generator, Synthesis
from pipeline.schema.evaluation import InversionConfig, ProtocolConfig
from pipeline.training.losses import multiscale_pixel_loss
from pipeline.weights import WeightsMissing

PERCEPTUAL_SIDE = 256  # pixels that larger pictures are pooled to before LPIPS (release)
Distance = Callable[[Tensor, Tensor], Tensor]  # images (N,3,H,W), photos (N,3,H,W) -> (N,)


def find_codes(
    generator: ComposingGenerator, image: Tensor, mask: Tensor, cfg: InversionConfig, perceptual: Distance
) -> Tensor:
    """Codes (N,C,D) of photos (N,3,H,W) [-1,1]; `mask` (N,K,H,W) one-hot is looked at by the mask term alone.

    Raises RunFailed when a loss is not finite.
    """
    mean = generator.mean_codes(image.shape[0])
    start = generator.encode_style(image, mask) if cfg.start == "encoder" else mean
    codes = start.detach().clone().requires_grad_()
    optimiser = torch.optim.Adam([codes], lr=cfg.lr)
    labels = generator.merged(mask).argmax(dim=1)
    for step in range(cfg.steps):
        optimiser.param_groups[0]["lr"] = cfg.lr * rate_factor(step / cfg.steps, cfg.warm_up, cfg.cool_down)
        with torch.enable_grad():
            made = generator.render(codes)
            loss = cfg.perceptual * perceptual(made.image, image)
            loss = loss + cfg.mse * (made.image - image).square().flatten(1).mean(dim=1)
            loss = loss + cfg.code * (codes - mean).square().flatten(1).mean(dim=1)
            if cfg.mask > 0:
                assert made.layout is not None, "composing families draw a layout"
                wrong = F.cross_entropy(made.layout, labels, reduction="none")
                loss = loss + cfg.mask * wrong.flatten(1).mean(dim=1)
            (codes.grad,) = torch.autograd.grad(loss.sum(), codes)
        if not bool(torch.isfinite(loss).all()):
            raise RunFailed(
                f"inversion: the loss is not finite after {step} steps; a smaller protocol.inversion.lr may help"
            )
        optimiser.step()
    return codes.detach()


def rate_factor(done: float, warm_up: float, cool_down: float) -> float:
    """Factor of the learning rate after the share `done` of the steps: linear from 0, constant, half a cosine to 0."""
    rising = min(1.0, done / warm_up) if warm_up > 0 else 1.0
    falling = min(1.0, (1.0 - done) / cool_down) if cool_down > 0 else 1.0
    return rising * (0.5 - 0.5 * math.cos(math.pi * falling))


class Inverted(ComposingGenerator):
    """A composing family whose `encode_style` is an inversion; all else is the family's own."""

    def __init__(self, family: ComposingGenerator, protocol: ProtocolConfig, device: torch.device) -> None:
        """Raises UserError where the protocol sets no budget."""
        super().__init__()
        if protocol.inversion is None:
            raise UserError(
                f"protocol {protocol.name} has no section inversion, and this family finds a photo's codes by inversion"
            )
        self.family, self.budget = family, protocol.inversion
        self.config, self.capabilities = family.config, family.capabilities
        self.num_classes, self.stride, self.layout_classes = family.num_classes, family.stride, family.layout_classes
        self.perceptual, self.term = _perceptual(self.budget, protocol.weights_dir, device)
        self.known: dict[str, Tensor] = {}  # codes (C,D) on the CPU, by the digest of what they were found for
        self.seconds: list[float] = []  # of each photo inverted for the stream

    @property
    def note(self) -> str:
        """What a reader of this family's numbers must know."""
        start = "the encoder's codes" if self.budget.start == "encoder" else "the mean code"
        masked = f", mask term {self.budget.mask:g}" if self.budget.mask > 0 else ", photo alone"
        return f"draws its own layout; codes by inversion: {self.budget.steps} steps from {start}, {self.term}{masked}"

    def under_damage(self) -> Inverted:
        """The same family with the weight of the mask term that the protocol has for damaged masks."""
        other = Inverted.__new__(Inverted)
        torch.nn.Module.__init__(other)
        for name in (
            "family",
            "config",
            "capabilities",
            "num_classes",
            "stride",
            "layout_classes",
            "perceptual",
            "term",
        ):
            setattr(other, name, getattr(self, name))
        other.budget = self.budget.model_copy(update={"mask": self.budget.damaged_mask})
        other.known, other.seconds = {}, []
        return other

    def encode_style(self, image: Tensor, mask: Tensor) -> Tensor:
        """Codes (N,C,D) of the photos, found now or before."""
        keys = self._keys(image, mask)
        wanted = [number for number, key in enumerate(keys) if key not in self.known]
        if wanted:
            found = find_codes(self.family, image[wanted], mask[wanted], self.budget, self.perceptual)
            self.keep([keys[number] for number in wanted], found)
        return torch.stack([self.known[key] for key in keys]).to(image.device)

    def keep(self, keys: Sequence[str], codes: Tensor) -> None:
        """Take codes (N,C,D) as those of photos and masks with these keys."""
        self.known.update(zip(keys, codes.cpu(), strict=True))

    def timed(self, image: Tensor, mask: Tensor) -> dict[str, np.ndarray]:
        """Invert a batch as a contribution to an evaluation: each photo's codes, key and seconds."""
        begin = cost.now(image.device)
        codes = self.encode_style(image, mask)
        seconds = (cost.now(image.device) - begin) / len(codes)
        return {
            "each/inversion_codes": codes.cpu().numpy(),
            "each/inversion_key": np.array(self._keys(image, mask)),
            "each/inversion_s": np.full(len(codes), seconds),
        }

    def merged(self, mask: Tensor) -> Tensor:
        """As the family."""
        return self.family.merged(mask)

    def mean_codes(self, count: int) -> Tensor:
        """As the family."""
        return self.family.mean_codes(count)

    def exchanged(
        self, style: Tensor, other: Tensor, classes: Sequence[Sequence[int]] | None, *, shape: bool, texture: bool
    ) -> Tensor:
        """As the family."""
        return self.family.exchanged(style, other, classes, shape=shape, texture=texture)

    def render(self, style: Tensor) -> Synthesis:
        """As the family."""
        return self.family.render(style)

    def synthesize(self, mask: Tensor, style: Tensor, *, attention: bool = True) -> Synthesis:
        """As the family."""
        return self.family.synthesize(mask, style, attention=attention)

    def sample_style(self, mask: Tensor, noise: Tensor) -> Tensor:
        """As the family."""
        return self.family.sample_style(mask, noise)

    def _keys(self, image: Tensor, mask: Tensor) -> list[str]:
        """Digests of photos, and of masks where these have a say."""
        parts = [image] if self.budget.mask == 0 else [image, mask]
        rows = zip(*(part.detach().cpu().numpy() for part in parts), strict=True)
        return [hashlib.sha256(b"".join(part.tobytes() for part in row)).hexdigest() for row in rows]


def inverting(generator: Generator, protocol: ProtocolConfig, device: torch.device) -> Generator:
    """`generator` as an evaluation uses it: a composing family finds codes by inversion, any other is as it is."""
    return Inverted(generator, protocol, device) if isinstance(generator, ComposingGenerator) else generator


def feed_forward(generator: Generator) -> Generator:
    """The family behind `inverting`, whose `encode_style` is a single pass."""
    return generator.family if isinstance(generator, Inverted) else generator


def _perceptual(cfg: InversionConfig, folder: str | None, device: torch.device) -> tuple[Distance, str]:
    """The perceptual term and its name: LPIPS on VGG-16, or the multi-scale pixel loss where its weights are not here."""

    def pixel(image: Tensor, photo: Tensor) -> Tensor:
        pairs = zip(image.split(1), photo.split(1), strict=True)
        return torch.stack([multiscale_pixel_loss(one, other, cfg.pixel_scales) for one, other in pairs])

    if cfg.perceptual == 0:
        return lambda image, photo: image.new_zeros(image.shape[0]), "no perceptual term"
    try:
        network = Lpips("vgg", folder, device).network
    except WeightsMissing:
        return pixel, f"L1 at {cfg.pixel_scales} scales in place of LPIPS (no VGG weights)"

    def lpips(image: Tensor, photo: Tensor) -> Tensor:
        window = max(1, min(image.shape[-2:]) // PERCEPTUAL_SIDE)
        small = too_small(image.shape[-2] // window, image.shape[-1] // window)
        if small:
            return pixel(image, photo)
        distance: Tensor = network(F.avg_pool2d(image, window), F.avg_pool2d(photo, window))
        return distance.flatten()

    return lpips, "LPIPS (VGG)"
