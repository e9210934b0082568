"""Several processes training one run (torchrun): who writes, who gets which images, and the mean of their gradients.

`train.batch_size` is the batch of all processes together, so the same config is the same training on one device or eight.
Gradients are averaged explicitly, which serves two optimisers and custom passes alike. Process 0 owns the record.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.errors import UserError

# The others wait at a barrier while process 0 evaluates, which on the published protocols takes hours rather than minutes.
BARRIER_TIMEOUT = datetime.timedelta(hours=12)


@dataclass(frozen=True)
class World:
    """The processes of one run; a single one where torchrun was not used."""

    rank: int = 0
    size: int = 1

    @property
    def main(self) -> bool:
        """Whether this process writes the record."""
        return self.rank == 0

    def check_batch(self, batch_size: int, accumulate: int) -> None:
        """Raise UserError unless a batch divides evenly into the parts that processes and accumulation make of it."""
        if batch_size % (self.size * accumulate):
            raise UserError(
                f"train.batch_size = {batch_size} is not divisible by {self.size} processes x {accumulate} accumulation steps"
            )

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            torch.distributed.barrier()

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace every gradient by its mean over the processes."""
        if self.size == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        torch.distributed.all_reduce(flat)
        flat /= self.size
        for gradient, mean in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def mean(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """Mean of scalar terms over the processes: every process then decides alike."""
        if self.size == 1:
            return terms
        stacked = torch.stack([term.float() for term in terms.values()])
        torch.distributed.all_reduce(stacked)
        return dict(zip(terms, stacked / self.size, strict=True))

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether `flag` is set in any process."""
        if self.size == 1:
            return flag
        total = torch.tensor(float(flag), device=device)
        torch.distributed.all_reduce(total)
        return bool(total.item() > 0)


def join(device: torch.device) -> World:
    """The world torchrun's environment describes, joined (NCCL on CUDA, gloo on CPU); `World()` without torchrun."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World()
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=BARRIER_TIMEOUT)
    return World(int(os.environ["RANK"]), size)
