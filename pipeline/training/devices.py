"""The device a run computes on, and the numerics it computes with."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils import deterministic

from pipeline.errors import UserError
from pipeline.provenance import processor
from pipeline.schema.run import RunConfig
from pipeline.training.allocator import keep_freed_memory
from pipeline.training.distributed import World


def choose_device(name: str) -> torch.device:
    """The device a config names; "auto" is CUDA where there is one."""
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UserError("device = cuda: torch finds no CUDA device here; use device=cpu or device=auto")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and available) else "cpu")


def device_name(device: torch.device) -> str:
    """What numbers were made on, for people."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu ({processor()})"


def set_numerics(cfg: RunConfig, device: torch.device) -> None:
    """Threads, TF32 and determinism, as the config says; memory is kept, not fetched anew for every step."""
    if device.type == "cpu":
        keep_freed_memory()
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    # TF32 would make float32 runs differ between GPU generations; bf16 is asked for by train.precision.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = device.type == "cuda" and cfg.train.deterministic == "off"
    if cfg.train.deterministic != "off":
        torch.use_deterministic_algorithms(True, warn_only=cfg.train.deterministic == "warn")
        # A debugging aid: every new tensor would be written once more.
        deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def norms_in_effect(network: nn.Module, world: World) -> dict[str, int]:
    """Kinds of normalisation layers with their counts; sync batch norm in a single process is plain batch norm."""
    counts: dict[str, int] = {}
    for module in network.modules():
        name = type(module).__name__
        if "Norm" in name and not list(module.children()):
            name = "BatchNorm2d" if name == "SyncBatchNorm" and world.size == 1 else name
            counts[name] = counts.get(name, 0) + 1
    return counts
