"""Inversion: the codes of a photo, for families that draw their layout themselves (SemanticStyleGAN, section 4.3).

Adam on the codes of a batch of photos, within the budget of the protocol's section `inversion`. Photos do not touch each other, so
the batch size changes nothing but speed. Codes that were found are kept, so that reconstruction and edits share them. Where the
budget says so, the weights follow each photo afterwards (`evaluation.tuning`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import RunFailed, UserError
from pipeline.evaluation.photo_loss import Distance, layout_loss, perceptual_term, picture_loss
from pipeline.evaluation.tuning import NOBODY, Pivots, with_owner
from pipeline.metrics import cost
from pipeline.models.contract import ComposingGenerator, Generator, Synthesis
from pipeline.schema.evaluation import InversionConfig, ProtocolConfig


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
            loss = picture_loss(made.image, image, cfg, perceptual)
            loss = loss + cfg.code * (codes - mean).square().flatten(1).mean(dim=1)
            if cfg.mask > 0:
                loss = loss + layout_loss(made, labels, cfg)
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
    """A composing family whose `encode_style` is an inversion; all else is the family's own.

    With pivotal tuning a style has a row more than the family's codes: whose weights it is drawn with.
    """

    def __init__(
        self, family: ComposingGenerator, protocol: ProtocolConfig, device: torch.device, folder: Path | None = None
    ) -> None:
        """`folder`: where tuned weights are kept (`Pivots`). Raises UserError where the protocol sets no budget."""
        super().__init__()
        if protocol.inversion is None:
            raise UserError(
                f"protocol {protocol.name} has no section inversion, and this family finds a photo's codes by inversion"
            )
        self.family, self.budget = family, protocol.inversion
        self.config, self.capabilities = family.config, family.capabilities
        self.num_classes, self.stride, self.layout_classes = family.num_classes, family.stride, family.layout_classes
        self.perceptual, self.term = perceptual_term(self.budget, protocol.weights_dir, device)
        self._begin(folder)

    def _begin(self, folder: Path | None) -> None:
        """Nothing is known of any photo yet."""
        self.known: dict[str, Tensor] = {}  # codes (C,D) on the CPU, by the digest of what they were found for
        self.seconds: list[float] = []  # of each photo inverted for the stream, tuning included
        tunes = self.budget.tuning.steps > 0
        self.pivots = Pivots(self.family, self.budget, self.perceptual, folder) if tunes else None

    @property
    def note(self) -> str:
        """What a reader of this family's numbers must know."""
        start = "the encoder's codes" if self.budget.start == "encoder" else "the mean code"
        masked = f", mask term {self.budget.mask:g}" if self.budget.mask > 0 else ", photo alone"
        tuning = self.budget.tuning
        tuned = f", then weights by pivotal tuning: {tuning.steps} steps a photo" if tuning.steps > 0 else ""
        tuned += f", locality {tuning.locality:g}" if tuned and tuning.locality > 0 else ""
        return f"draws its own layout; codes by inversion: {self.budget.steps} steps from {start}, {self.term}{masked}{tuned}"

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
        other._begin(None)
        return other

    def encode_style(self, image: Tensor, mask: Tensor) -> Tensor:
        """Codes (N,C,D) of the photos, found now or before; with tuning (N,C+1,D)."""
        codes = self.codes(image, mask)
        return codes if self.pivots is None else self.pivots.marked(codes, self._keys(image, mask), image, mask)

    def codes(self, image: Tensor, mask: Tensor) -> Tensor:
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
        codes = self.codes(image, mask)
        seconds = (cost.now(image.device) - begin) / len(codes)
        return {
            "each/inversion_codes": codes.cpu().numpy(),
            "each/inversion_key": np.array(self._keys(image, mask)),
            "each/inversion_s": np.full(len(codes), seconds),
        }

    def tuning_seconds(self, image: Tensor, mask: Tensor) -> dict[str, np.ndarray]:
        """Tune for a batch as a contribution to an evaluation: each photo's seconds, also of an attempt that was cut short."""
        assert self.pivots is not None, "the budget tunes"
        numbers = self.encode_style(image, mask)[:, -1, 0].tolist()
        return {"each/tuning_s": np.array([self.pivots.tuned(int(number))[1] for number in numbers])}

    def merged(self, mask: Tensor) -> Tensor:
        """As the family."""
        return self.family.merged(mask)

    def mean_codes(self, count: int) -> Tensor:
        """As the family, never tuned."""
        return self._untuned(self.family.mean_codes(count))

    def exchanged(
        self, style: Tensor, other: Tensor, classes: Sequence[Sequence[int]] | None, *, shape: bool, texture: bool
    ) -> Tensor:
        """As the family; drawn with the weights of `style`."""
        if self.pivots is None:
            return self.family.exchanged(style, other, classes, shape=shape, texture=texture)
        mixed = self.family.exchanged(style[:, :-1], other[:, :-1], classes, shape=shape, texture=texture)
        return torch.cat([mixed, style[:, -1:]], dim=1)

    def render(self, style: Tensor) -> Synthesis:
        """As the family, each picture with the weights of its photo."""
        if self.pivots is None:
            return self.family.render(style)
        return self.pivots.synthesize(style, lambda family, codes, rows: family.render(codes))

    def synthesize(self, mask: Tensor, style: Tensor, *, attention: bool = True) -> Synthesis:
        """As the family, each picture with the weights of its photo."""
        if self.pivots is None:
            return self.family.synthesize(mask, style, attention=attention)
        return self.pivots.synthesize(
            style, lambda family, codes, rows: family.synthesize(mask[rows], codes, attention=attention)
        )

    def sample_style(self, mask: Tensor, noise: Tensor) -> Tensor:
        """As the family, never tuned: no photo is behind a sample."""
        return self._untuned(self.family.sample_style(mask, noise))

    def _untuned(self, codes: Tensor) -> Tensor:
        return codes if self.pivots is None else with_owner(codes, torch.full((len(codes),), NOBODY))

    def _keys(self, image: Tensor, mask: Tensor) -> list[str]:
        """Digests of photos, and of masks where these have a say."""
        parts = [image] if self.budget.mask == 0 else [image, mask]
        rows = zip(*(part.detach().cpu().numpy() for part in parts), strict=True)
        return [hashlib.sha256(b"".join(part.tobytes() for part in row)).hexdigest() for row in rows]


def inverting(
    generator: Generator, protocol: ProtocolConfig, device: torch.device, folder: Path | None = None
) -> Generator:
    """`generator` as an evaluation uses it: a composing family finds codes by inversion, any other is as it is."""
    return Inverted(generator, protocol, device, folder) if isinstance(generator, ComposingGenerator) else generator


def feed_forward(generator: Generator) -> Generator:
    """The family behind `inverting`, whose `encode_style` is a single pass."""
    return generator.family if isinstance(generator, Inverted) else generator
