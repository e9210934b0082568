"""The training step as the releases take it: the baseline of the benchmark.

Explicit attention matrices, checkpointed transformer blocks, loops over classes and images (`naive_kernels`), the
generator run a second time for the discriminator, gradients of the discriminator's features of real images that nobody
uses, and an optimiser that goes through the parameters operation by operation.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.data.batch import Batch
from pipeline.models.kernels import naive_kernels
from pipeline.models.spectral import SpectralNorm
from pipeline.training.trainer import Trainer, step_seed


class NaiveTrainer(Trainer):
    """`Trainer` with the releases' way of computing the same update."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.set_memory_format(torch.contiguous_format)
        self._plain_updates()

    def load_state(self, state: dict[str, Any]) -> None:
        """As `Trainer.load_state`; how an optimiser runs is among its state."""
        super().load_state(state)
        self._plain_updates()

    def _plain_updates(self) -> None:
        for optimiser in (self.optimiser_g, self.optimiser_d):
            for group in optimiser.param_groups:
                group.update(fused=False, foreach=False)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """As `Trainer.step`."""
        with naive_kernels():
            return super().step(batch)

    def _fake_for_discriminator(self, part: Batch, fake: Tensor) -> Tensor:
        """The picture is made again, from the same draws and singular vectors, so that both modes judge the same one.

        The releases make it after the generator's update, with one more power iteration; before or after, it costs the same.
        """
        torch.manual_seed(step_seed(self.cfg.seed, self.iteration, self.world.rank))
        with torch.no_grad(), self._autocast(), resting_norms(self.generator):
            made = self._run_generator(part.image, part.mask, attention=self.objective.wants_attention)
        image: Tensor = made.synthesis.image
        return image


@contextmanager
def resting_norms(network: nn.Module) -> Iterator[None]:
    """Inside, spectral norms take no power iteration."""
    norms = [module for module in network.modules() if isinstance(module, SpectralNorm) and module.training]
    for norm in norms:
        norm.eval()
    try:
        yield
    finally:
        for norm in norms:
            norm.train()
