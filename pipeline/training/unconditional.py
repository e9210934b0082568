"""Unconditional adversarial training on pictures with their masks (SemanticStyleGAN, section 3.3; StyleGAN2).

A picture and a mask are drawn from noise and judged against a photo with its mask. Regularisers are lazy: R1 and path length are
taken every few updates, with their weight multiplied accordingly and an optimiser step of their own. The last part of the budget
trains the encoder alone, against the averaged generator, which stands still.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.data.batch import Batch
from pipeline.errors import UserError
from pipeline.models.contract import Generator
from pipeline.models.semanticstylegan.generator import SemanticStyleGan, real_mask
from pipeline.models.semanticstylegan.synthesis import Composition
from pipeline.schema.run import RunConfig
from pipeline.training.distributed import World
from pipeline.training.losses import discriminator_loss, generator_gan_loss, multiscale_pixel_loss
from pipeline.training.trainer import Trainer, step_seed

READ_TERMS = ("gan", "pixel", "perceptual")  # of `loss`; the last two by the encoder's updates
R1_IMAGE, R1_MASK, PATH = "r1_image", "r1_mask", "path"


class UnconditionalTrainer(Trainer):
    """The training state of a family that draws pictures and masks from noise."""

    generator: SemanticStyleGan

    def __init__(
        self,
        cfg: RunConfig,
        generator: Generator,
        discriminator: nn.Module,
        *,
        iterations: int,
        device: torch.device,
        world: World | None = None,
    ) -> None:
        if not isinstance(generator, SemanticStyleGan):
            raise UserError(f"model {type(generator).__name__} cannot be trained unconditionally: it draws no masks")
        _refuse_what_is_not_read(cfg)
        super().__init__(cfg, generator, discriminator, iterations=iterations, device=device, world=world)
        self.options = generator.config.objective
        ratios = (
            _lazy_ratio(self.options.path, self.options.path_every),
            _lazy_ratio(self.options.r1_image + self.options.r1_mask, self.options.r1_every),
        )
        self.rates = (self.rates[0] * ratios[0], self.rates[1] * ratios[1])
        for optimiser, ratio in zip((self.optimiser_g, self.optimiser_d), ratios, strict=True):
            for group in optimiser.param_groups:
                group["betas"] = tuple(beta**ratio for beta in cfg.train.betas)
        encoder = generator.config.encoder
        self.drawing_ends = iterations - round(encoder.share * iterations)  # from here on the encoder is trained
        trained = [] if self._composer.encoder is None else list(self._composer.encoder.parameters())
        self.optimiser_e = torch.optim.Adam(trained, lr=encoder.lr) if trained else None
        self.path_mean = torch.zeros((), device=device)
        # What lazy steps found last, so that every row of the history has every term.
        self.lazy = {name: torch.zeros((), device=device) for name in (R1_IMAGE, R1_MASK, PATH)}

    @property
    def evaluated(self) -> Generator:
        """The averaged generator, its mean code taken from its weights as they are now."""
        self._composer.settle()
        return self._composer

    @property
    def _composer(self) -> SemanticStyleGan:
        return cast("SemanticStyleGan", self.averaged if self.averaged is not None else self.generator)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """One update on `batch` (this process's part of it); returns the unweighted terms, the mean over all processes."""
        torch.manual_seed(step_seed(self.cfg.seed, self.iteration, self.world.rank))
        self._set_learning_rates()
        if self.iteration < self.drawing_ends:
            terms = self._adversarial_update(batch)
            self.iteration += 1
            if self.averaged is not None and self.iteration % self.cfg.train.ema_every == 0:
                self._average()
        else:
            if self.iteration == self.drawing_ends:
                self._composer.settle()  # from here on the mapping network stands still
            terms = self._encoder_update(batch)
            self.iteration += 1
        return self.world.mean(terms)

    def state(self) -> dict[str, Any]:
        """Everything the next update depends on, as tensors and plain types."""
        return {
            **super().state(),
            "optimiser_e": None if self.optimiser_e is None else self.optimiser_e.state_dict(),
            "path_mean": self.path_mean,
            "lazy": self.lazy,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what `state()` returned."""
        super().load_state(state)
        if self.optimiser_e is not None:
            self.optimiser_e.load_state_dict(state["optimiser_e"])
        self.path_mean = state["path_mean"].to(self.device)
        self.lazy = {name: value.to(self.device) for name, value in state["lazy"].items()}

    def _adversarial_update(self, batch: Batch) -> dict[str, Tensor]:
        generator, options = self.generator.train(), self.options
        self.discriminator.train()
        real = real_mask(generator.merged(batch.mask))
        with self._autocast():
            made = generator.compose(self._codes(len(batch.keys)), fixed_noise=False)
        terms = self._discriminator_update(made, batch.image, real)
        if options.r1_image + options.r1_mask > 0 and self.iteration % options.r1_every == 0:
            self._penalise_real(batch.image, real)
        self.discriminator.requires_grad_(False)
        with self._autocast():
            score = self.discriminator(made.image, made.mask)
            terms["gan"] = generator_gan_loss([score], self.cfg.loss.gan.mode)
            terms["mask_regulariser"] = pooled_difference(made)
            total = self.cfg.loss.gan.weight * terms["gan"] + options.mask_regulariser * terms["mask_regulariser"]
        self._advance(self.optimiser_g, generator, total)
        if options.path > 0 and self.iteration % options.path_every == 0:
            self._penalise_path(max(1, len(batch.keys) // options.path_batch_share))
        self.discriminator.requires_grad_(True)
        return {name: value.detach() for name, value in {**terms, **self.lazy}.items()}

    def _discriminator_update(self, made: Composition, image: Tensor, mask: Tensor) -> dict[str, Tensor]:
        self.discriminator.requires_grad_(True)
        with self._autocast():
            fake = self.discriminator(made.image.detach(), made.mask.detach())
            real = self.discriminator(image, mask)
            loss = discriminator_loss([fake], [real], self.cfg.loss.gan.mode)
        self._advance(self.optimiser_d, self.discriminator, loss.fake + loss.real)
        return {"d_fake": loss.fake, "d_real": loss.real}

    def _penalise_real(self, image: Tensor, mask: Tensor) -> None:
        """R1 (Mescheder et al., ICML 2018) of image and mask, as an update of its own."""
        image, mask = image.detach().requires_grad_(), mask.detach().requires_grad_()
        squares = squared_gradients(self.discriminator(image, mask), image, mask)
        options = self.options
        penalty = options.r1_image / 2 * squares[0] + options.r1_mask / 2 * squares[1]
        self._advance(self.optimiser_d, self.discriminator, penalty * options.r1_every)
        self.lazy |= {R1_IMAGE: squares[0].detach(), R1_MASK: squares[1].detach()}

    def _penalise_path(self, count: int) -> None:
        """Path length (StyleGAN2, section 3.2) of the picture over all layers' codes, as an update of its own."""
        expanded = self.generator.book.expand(self._codes(count))
        image = self.generator.compose(expanded, fixed_noise=False).image
        lengths = path_lengths(image, expanded, torch.randn_like(image))
        mean = torch.lerp(self.path_mean, lengths.mean(), self.options.path_decay)
        penalty = (lengths - mean).square().mean()
        self._advance(self.optimiser_g, self.generator, self.options.path * self.options.path_every * penalty)
        self.path_mean = self.world.mean({PATH: mean.detach()})[PATH]
        self.lazy[PATH] = penalty.detach()

    def _encoder_update(self, batch: Batch) -> dict[str, Tensor]:
        """The encoder alone: photos through the standing generator, and codes of its own pictures found again."""
        composer, options = self._composer, self._composer.config.encoder
        assert self.optimiser_e is not None and composer.encoder is not None, "a share of the budget, so an encoder"
        composer.encoder.requires_grad_(True)
        with torch.no_grad():
            codes = self._mixed(composer, len(batch.keys))
            drawn = composer.render(codes).image.clamp(-1, 1)
        found = composer.encode_style(batch.image, batch.mask)
        made = composer.render(found)
        assert made.layout is not None, "this family draws its layout"
        weights = self.cfg.loss
        terms = {
            "code": F.mse_loss(composer.encode_style(drawn, batch.mask), codes),
            "layout": F.cross_entropy(made.layout, composer.merged(batch.mask).argmax(dim=1)),
            "pixel": multiscale_pixel_loss(made.image, batch.image, weights.pixel.scales),
        }
        total = options.code_weight * terms["code"] + options.mask_weight * terms["layout"]
        total = total + weights.pixel.weight * terms["pixel"]
        if self.objective.perceptual is not None:
            terms["perceptual"] = self.objective.perceptual(made.image, batch.image)
            total = total + weights.perceptual.weight * terms["perceptual"]
        self._advance(self.optimiser_e, composer.encoder, total)
        composer.encoder.requires_grad_(self.averaged is None)
        return {name: value.detach() for name, value in terms.items()}

    def _codes(self, count: int) -> Tensor:
        return self._mixed(self.generator, count)

    def _mixed(self, generator: SemanticStyleGan, count: int) -> Tensor:
        """Codes (count,C,D) drawn from noise; of two w with the probability of style mixing, picture by picture."""
        z = torch.randn(2 * count, generator.config.code_width, device=self.device)
        first, second = generator.mapping(z).chunk(2)
        mixing = torch.rand(count, 1, device=self.device) < self.options.style_mixing
        return generator.book.mixed(first, torch.where(mixing, second, first))

    def _advance(self, optimiser: torch.optim.Optimizer, network: nn.Module, loss: Tensor) -> None:
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.world.average_gradients(network.parameters())
        optimiser.step()


def squared_gradients(score: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Squared norm of the gradient of `score` (N,1) into each of `inputs`, mean over samples; itself differentiable."""
    gradients = torch.autograd.grad(score.sum(), inputs, create_graph=True)
    return tuple(gradient.square().flatten(1).sum(dim=1).mean() for gradient in gradients)


def path_lengths(image: Tensor, expanded: Tensor, noise: Tensor) -> Tensor:
    """How far `image` (N,3,H,W) moves with its codes (N,K,L,D): (N,), root of the mean over codes of squared gradient norms.

    `noise` (N,3,H,W) standard normal is the direction the image is looked at from.
    """
    seen = (image * noise).sum() / math.sqrt(image.shape[2] * image.shape[3])
    (gradient,) = torch.autograd.grad(seen, expanded, create_graph=True)
    return gradient.square().sum(dim=3).flatten(1).mean(dim=1).sqrt()


def pooled_difference(made: Composition) -> Tensor:
    """Mean square of the final mask, averaged to the coarse mask's size, and the coarse mask: keeps the two alike."""
    window = made.mask.shape[-1] // made.coarse.shape[-1]
    return F.mse_loss(F.avg_pool2d(made.mask, window), made.coarse)


def _lazy_ratio(weight: float, every: int) -> float:
    """Factor of learning rate and exponent of betas that make up for a regulariser's own steps (StyleGAN2, appendix B)."""
    return every / (every + 1) if weight > 0 else 1.0


def _refuse_what_is_not_read(cfg: RunConfig) -> None:
    unread = [name for name in cfg.loss.weights() if name not in READ_TERMS]
    if unread:
        raise UserError(f"loss.{unread[0]}.weight is not 0, but this family's training has no such term; set it to 0")
    if cfg.loss.gan.mode != "bce":
        raise UserError(f"loss.gan.mode is {cfg.loss.gan.mode}; this family trains with the logistic loss: bce")
    if cfg.train.accumulate > 1 or cfg.train.compile is not False:
        raise UserError(
            "train.accumulate and train.compile do not suit this family: minibatch deviation ties a batch together, and "
            "gradients of gradients are not compiled; set train.accumulate=1 train.compile=false"
        )
