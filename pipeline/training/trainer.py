"""Adversarial training, one update at a time: two networks, two optimisers, the objective, EMA (paper section III-D).

One generator pass serves both updates of an iteration (the releases run the generator a second time for the discriminator).
All randomness of update `i` is drawn after reseeding from (seed, i), so a resumed run repeats an undisturbed one bit by bit.
"""

from __future__ import annotations

import contextlib
import copy
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.data.batch import Batch
from pipeline.errors import UserError
from pipeline.models.contract import Generator, instance_arguments
from pipeline.models.discriminator import Features, Views, judge, views_of
from pipeline.schema.families import family_of
from pipeline.schema.run import RunConfig
from pipeline.training.adversary import adversary_of
from pipeline.training.distributed import World
from pipeline.training.objective import SUMMED, Objective
from pipeline.training.second_stage import SamplingPass


class Trainer:
    """The training state of one run and the step that advances it."""

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
        self.cfg = cfg
        self.device = device
        self.world = world or World()
        self.world.check_batch(cfg.train.batch_size, cfg.train.accumulate)
        self.iterations = iterations
        self.iteration = 0
        self.generator: Generator = generator.to(device)
        self.discriminator = discriminator.to(device)
        if cfg.train.channels_last:
            self.set_memory_format(torch.channels_last)
        self.averaged = copy.deepcopy(self.generator).eval().requires_grad_(False) if cfg.train.ema_step_decay else None
        adversary = adversary_of(self.discriminator, cfg.discriminator, cfg.loss.gan)
        self.objective = Objective(cfg.loss, adversary, cfg.protocol.weights_dir).to(device)
        factor_g, factor_d = (0.5, 2.0) if cfg.train.ttur else (1.0, 1.0)  # TTUR as the releases do it
        # Of generator and discriminator, before they decay.
        self.rates = (cfg.train.lr * factor_g, cfg.train.lr * factor_d)
        trained = list(self.generator.parameters())
        generator_pass: nn.Module = self.generator
        if cfg.train.stage == "mapping":
            trained = self.generator.sampling_parameters()
            if not trained:
                raise UserError(f"train=mapping: model {family_of(cfg.model)} has no mapping network to train")
            self.generator.requires_grad_(False)
            for parameter in trained:
                parameter.requires_grad_(True)
            generator_pass = SamplingPass(self.generator)
        fused = device.type in ("cpu", "cuda")  # one pass over each tensor; the update is the same
        adam = partial(torch.optim.AdamW, betas=cfg.train.betas, weight_decay=cfg.train.weight_decay, fused=fused)
        self.optimiser_g = adam(trained, lr=self.rates[0])
        self.optimiser_d = adam(self.discriminator.parameters(), lr=self.rates[1])
        self._run_generator = _compiled(generator_pass, cfg.train.compile)
        self._run_discriminator = _compiled(self.discriminator, cfg.train.compile)

    def set_memory_format(self, memory_format: torch.memory_format) -> None:
        """Put the weights of all convolutions into one memory format."""
        for network in (self.generator, self.discriminator):
            network.to(memory_format=memory_format)  # type: ignore[call-overload]

    @property
    def evaluated(self) -> Generator:
        """The generator that is evaluated: the averaged one where EMA is on."""
        return self.averaged if self.averaged is not None else self.generator

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """One update of both networks on `batch` (this process's part of it); returns the unweighted loss terms.

        They are detached scalars, the mean over all processes.
        """
        torch.manual_seed(step_seed(self.cfg.seed, self.iteration, self.world.rank))
        if self.cfg.train.compile == "cuda_graphs":
            torch.compiler.cudagraph_mark_step_begin()  # nothing that graphs gave out in the last update is read again
        self._set_learning_rates()
        self.generator.train()
        self.discriminator.train()
        self.optimiser_g.zero_grad(set_to_none=True)
        self.optimiser_d.zero_grad(set_to_none=True)
        parts = self.cfg.train.accumulate
        terms: dict[str, Tensor] = {}
        seen: list[tuple[Batch, Views, Tensor]] = []  # what the discriminator's update looks at again
        micro = [batch] if parts == 1 else _split(batch, parts)
        self.discriminator.requires_grad_(False)
        for part in micro:
            with self._autocast():
                instances = instance_arguments(self.generator, part.instance)
                made = self._run_generator(part.image, part.mask, attention=self.objective.wants_attention, **instances)
                fake = made.synthesis.image
                views = views_of(self.discriminator, part.mask)
                features_fake, features_real = self._judged(views, fake, part.image)
                losses = self.objective.generator_terms(made, part.image, part.mask, features_fake, features_real)
                for name in set(SUMMED) & set(losses):
                    losses[name] = losses[name] * (parts * self.world.size)
                total = self.objective.total(losses) / parts
            total.backward()  # type: ignore[no-untyped-call]
            seen.append((part, views, self._fake_for_discriminator(part, fake)))
            _accumulate(terms, losses, parts)
        self.world.average_gradients(self.generator.parameters())
        self.optimiser_g.step()
        self.discriminator.requires_grad_(True)
        if self.objective.wants_discriminator:
            for part, views, fake in seen:
                with self._autocast():
                    losses = self.objective.adversary.discriminator_terms(
                        self._run_discriminator, views, part.mask, fake, part.image
                    )
                    total = sum(losses.values(), torch.zeros((), device=self.device)) / parts
                total.backward()  # type: ignore[no-untyped-call]
                _accumulate(terms, losses, parts)
            self.world.average_gradients(self.discriminator.parameters())
            self.optimiser_d.step()
        self.iteration += 1
        if self.averaged is not None and self.iteration % self.cfg.train.ema_every == 0:
            self._average()
        return self.world.mean(terms)

    def state(self) -> dict[str, Any]:
        """Everything the next update depends on, as tensors and plain types."""
        return {
            "iteration": self.iteration,
            "generator": self.generator.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "averaged": self.averaged.state_dict() if self.averaged is not None else None,
            "optimiser_g": self.optimiser_g.state_dict(),
            "optimiser_d": self.optimiser_d.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what `state()` returned."""
        self.iteration = state["iteration"]
        self.generator.load_state_dict(state["generator"])
        self.discriminator.load_state_dict(state["discriminator"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        self.optimiser_g.load_state_dict(state["optimiser_g"])
        self.optimiser_d.load_state_dict(state["optimiser_d"])

    def final_state(self) -> dict[str, Any]:
        """What a finished run keeps: the evaluated generator and the discriminator."""
        return {
            "iteration": self.iteration,
            "generator": self.evaluated.state_dict(),
            "discriminator": self.discriminator.state_dict(),
        }

    def _judged(self, views: Views, fake: Tensor, real: Tensor) -> tuple[Features, Features]:
        """Features of `fake` and `real` for the generator's update, as far as its terms read them."""
        if not self.objective.wants_discriminator:
            return [], []
        return judge(self._run_discriminator, views, fake, real, real_too=self.objective.wants_real_features)

    def _fake_for_discriminator(self, part: Batch, fake: Tensor) -> Tensor:
        """The generator's image of this update serves the discriminator's update too.

        A method of its own for `bench.naive`, which runs the generator a second time here, as the releases do.
        """
        return fake.detach()

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.cfg.train.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def _set_learning_rates(self) -> None:
        """Constant, then linear to zero over the last `decay_fraction` of the budget."""
        decayed = self.cfg.train.decay_fraction * self.iterations
        left = self.iterations - self.iteration
        factor = 1.0 if left >= decayed else left / decayed
        for optimiser, rate in zip((self.optimiser_g, self.optimiser_d), self.rates, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * factor

    @torch.no_grad()
    def _average(self) -> None:
        decay = self.cfg.train.ema_step_decay
        assert self.averaged is not None and decay is not None, "only called with EMA on"
        for mean, raw in zip(self.averaged.parameters(), self.generator.parameters(), strict=True):
            mean.lerp_(raw, 1.0 - decay)
        for kept, now in zip(self.averaged.buffers(), self.generator.buffers(), strict=True):
            kept.copy_(now)


def step_seed(seed: int, iteration: int, rank: int = 0) -> int:
    """Seed of update `iteration` in process `rank`: distinct streams for neighbouring seeds, iterations and processes."""
    return int(np.random.SeedSequence([seed, iteration, rank]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _compiled(network: nn.Module, how: bool | str) -> nn.Module:
    """`network` as `train.compile` says; CUDA graphs are torch's mode "reduce-overhead", on a CPU the same as true."""
    if how is False:
        return network
    compiled: nn.Module = torch.compile(network, mode="reduce-overhead" if how == "cuda_graphs" else None)  # type: ignore[assignment]
    return compiled


def _accumulate(terms: dict[str, Tensor], losses: dict[str, Tensor], parts: int) -> None:
    for name, value in losses.items():
        terms[name] = terms.get(name, torch.zeros((), device=value.device)) + value.detach() / parts


def _split(batch: Batch, parts: int) -> list[Batch]:
    size = len(batch.keys) // parts
    cuts = [slice(i * size, (i + 1) * size) for i in range(parts)]
    return [
        Batch(
            batch.image[cut],
            batch.label[cut],
            batch.mask[cut],
            batch.keys[cut],
            None if batch.instance is None else batch.instance[cut],
        )
        for cut in cuts
    ]
