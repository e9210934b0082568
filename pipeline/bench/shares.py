"""What a training step spends its time on: kernels that do the network's arithmetic, elementwise work, copies, and the rest."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import torch
from torch.profiler import ProfilerActivity, profile

from pipeline.data.batch import Batch
from pipeline.metrics.cost import now, resident_gib
from pipeline.training.trainer import Trainer

# Names of operators as torch's profiler gives them, without "aten::".
MATMUL = {"mm", "bmm", "addmm", "baddbmm", "addbmm", "mv", "addmv", "dot"}
COPIES = {"copy_", "cat", "clone", "fill_", "zero_", "_foreach_copy_"}
KERNELS = (
    "convolution",
    "conv2d",
    "group_norm",
    "batch_norm",
    "layer_norm",
    "scaled_dot_product",
    "_softmax",
)  # in names
# Operators that only look at memory in another way, or fetch some: no work of the device.
BOOKKEEPING = {
    "empty", "empty_strided", "empty_like", "new_empty", "new_empty_strided", "resize_", "view", "_unsafe_view", "reshape",
    "as_strided", "t", "transpose", "permute", "slice", "select", "expand", "expand_as", "view_as", "unsqueeze", "squeeze",
    "flatten", "unflatten", "chunk", "split", "unbind", "narrow", "detach", "detach_", "alias", "to", "_to_copy", "contiguous",
    "item", "_local_scalar_dense", "result_type", "is_nonzero", "lift_fresh", "matmul", "linear", "einsum", "_reshape_alias",
}  # fmt: skip
REPEATS = 8


def step_shares(trainer: Trainer, batch: Batch, device: torch.device) -> dict[str, float]:
    """Shares of a step's wall time, of a trainer that is warm: operators as the profiler clocks them, over a step without it.

    `kernels`: convolutions, matrix products, normalisation, attention. `elementwise`: activations, pooling, resampling, sums,
    losses, the optimiser's update. `copies`: changes of layout and concatenation. `overhead`: the rest up to 1, that is
    Python, autograd's bookkeeping, views, allocation and, on a GPU, waiting. The profiler's own cost per operator is in the
    first three, so the overhead is, if anything, larger by a little. Each step is profiled alone, in memory with room: the
    profiler's events lie between the step's tensors, whose place is then not free again for large ones, and fetching new
    pages (3,000 a step at `tiny`, 49,000 at `small`) would be counted as arithmetic.
    """
    on_gpu = device.type == "cuda"
    if not on_gpu:
        _make_room()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    seen_shares: dict[str, list[float]] = {"kernels": [], "elementwise": [], "copies": []}
    for _ in range(REPEATS):  # in pairs, so that a busy machine moves both
        began = now(device)
        trainer.step(batch)
        wall_us = 1e6 * (now(device) - began)
        with _silent_stderr(), profile(activities=activities) as seen:
            trainer.step(batch)
        totals = dict.fromkeys(seen_shares, 0.0)
        for event in seen.key_averages():
            kind = kind_of(event.key)
            if kind in totals:
                totals[kind] += event.self_device_time_total if on_gpu else event.self_cpu_time_total
        for kind, total in totals.items():
            seen_shares[kind].append(total / wall_us)
    shares = {kind: median(of_pairs) for kind, of_pairs in seen_shares.items()}
    return {**shares, "overhead": max(0.0, 1.0 - sum(shares.values()))}


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """The profiler's library writes lines of its own to the process's standard error, at every level of its log."""
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _make_room() -> None:
    """Give the process as much free memory as it holds, its pages fetched."""
    held = resident_gib("VmRSS")
    if held is not None:
        torch.zeros(int(held * 2**30), dtype=torch.uint8).fill_(1)


def kind_of(name: str) -> str:
    """`kernels`, `elementwise`, `copies` or `overhead`, by the name of a profiler event ("aten::conv2d", "MmBackward0")."""
    if not name.startswith("aten::"):
        return "overhead"
    operator = name.removeprefix("aten::")
    if operator in MATMUL:
        return "kernels"
    if operator in COPIES:
        return "copies"
    if operator in BOOKKEEPING:
        return "overhead"
    if any(part in operator for part in KERNELS) and "log_softmax" not in operator:
        return "kernels"
    return "elementwise"
