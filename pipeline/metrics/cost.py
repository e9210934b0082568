"""What a generator costs: parameters, FLOPs, latency, throughput, memory."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Literal

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pipeline.models.contract import Generator
from pipeline.models.kernels import plain_kernels
from pipeline.provenance import processor


def parameter_count(generator: Generator) -> int:
    """Number of parameters, buffers not counted, shared ones once."""
    return sum(parameter.numel() for parameter in generator.parameters())


def flops_per_image(generator: Generator, image: Tensor, mask: Tensor) -> int:
    """FLOPs of encoding and synthesising one image (1,3,H,W), (1,K,H,W): matrix products and convolutions.

    A multiply-add counts as two, elementwise work not at all. They are those of the network as it is written down, without what the
    fast kernels save.
    """
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), plain_kernels(), counter:
        generator.synthesize(mask[:1], generator.encode_style(image[:1], mask[:1]), attention=False)
    return int(counter.get_total_flops())


def latency_ms(generator: Generator, image: Tensor, mask: Tensor, *, repeats: int = 5) -> float:
    """Median wall time in ms of encode and synthesise at batch 1, after one warm-up."""
    times = []
    with torch.no_grad():
        for _ in range(repeats + 1):
            begin = now(image.device)
            generator.synthesize(mask[:1], generator.encode_style(image[:1], mask[:1]), attention=False)
            times.append(now(image.device) - begin)
    return 1000.0 * median(times[1:])


def now(device: torch.device) -> float:
    """Monotonic seconds, after all work queued on `device` is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def hardware(device: torch.device) -> str:
    """Name of what computes, as fingerprints spell it: times on different hardware are different measurements."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu {processor()}"


@dataclass
class Throughput:
    """Images per second over batches; the first batch is a warm-up unless it is the only one."""

    batches: list[tuple[int, float]] = field(default_factory=list)  # (images, seconds)

    def add(self, images: int, seconds: float) -> None:
        """One timed batch."""
        self.batches.append((images, seconds))

    def images_per_s(self) -> float | None:
        """Images per second, None before any batch was timed (all of them came from an earlier, killed attempt)."""
        counted = self.batches[1:] or self.batches
        if not counted:
            return None
        return sum(images for images, _ in counted) / max(sum(seconds for _, seconds in counted), 1e-9)


def peak_memory_gib(device_type: str) -> float:
    """Most memory so far in GiB: tensors on the CUDA device if `device_type` is "cuda", else what this process had resident.

    On Linux from /proc: getrusage also counts the process that started this one, whose memory is none of this one's.
    """
    if device_type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / 2**30
    resident = resident_gib("VmHWM")
    if resident is not None:
        return resident
    scale = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 2**30


def resident_gib(key: Literal["VmHWM", "VmRSS"]) -> float | None:
    """Resident memory of this process in GiB, at its highest (VmHWM) or now (VmRSS); None where /proc does not say."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) for line in lines if line.startswith(f"{key}:")]
    return found[0] / 2**20 if found else None
