"""Several processes at one run (torchrun): who writes, who gets which images, the mean of gradients, and what all are told.

`train.batch_size` is the batch of all processes together, so the same config is the same training on one device or eight.
Gradients are averaged explicitly, which serves two optimisers and custom passes alike. Process 0 owns the record. An evaluation
is shared batch by batch (`evaluation.context`): what one process finds, or fails at, all of them learn.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from pipeline.errors import UserError

# The others wait while process 0 does what only one can: a segmenter trained for the published protocols takes hours.
BARRIER_TIMEOUT = datetime.timedelta(hours=12)

T = TypeVar("T")


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

    def gather(self, work: Callable[[], T]) -> list[T]:
        """What `work` gives in every process, in the order of the processes.

        An Exception that it raises in one of them is raised in all: nobody waits for a process that has given up.
        """
        if self.size == 1:
            return [work()]
        own: T | Exception
        try:
            own = work()
        except Exception as error:  # noqa: BLE001  raised below, in every process
            own = error
        found: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(found, own)
        for one in found:
            if isinstance(one, Exception):
                raise one from (own if isinstance(own, Exception) else None)
        return found

    def of_main(self, work: Callable[[], T]) -> T:
        """What `work` gives in the main process, told to all others, which wait meanwhile; its Exception is raised in all."""
        if self.size == 1:
            return work()
        found: list[T | None] = self.gather(lambda: work() if self.main else None)
        return found[0]  # type: ignore[return-value]

    @torch.no_grad()
    def copy_main(self, network: nn.Module) -> None:
        """Give `network` the main process's parameters and buffers: running statistics follow each process's own images."""
        if self.size == 1:
            return
        for tensor in network.state_dict().values():
            whole = tensor.contiguous()
            torch.distributed.broadcast(whole.view(-1).view(torch.uint8), src=0)  # any type, in any memory format
            tensor.copy_(whole)


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
