"""What a training step spends its time on: kernels that do the network's arithmetic, elementwise work, copies, and the rest."""

from __future__ import annotations

import torch
from torch.profiler import ProfilerActivity, profile

from pipeline.data.batch import Batch
from pipeline.metrics.cost import now
from pipeline.trainer import Trainer

# Names of operators as torch's profiler gives them, without "aten::".
MATMUL = {"mm", "bmm", "addmm", "baddbmm", "addbmm", "mv", "addmv", "dot"}
COPIES = {"copy_", "cat", "clone", "fill_", "zero_", "_foreach_copy_"}
PARTS_OF_NAMES = {"conv": "kernels", "norm": "kernels", "scaled_dot_product": "kernels", "softmax": "kernels"}
# Operators that only look at memory in another way, or fetch some: no work of the device.
BOOKKEEPING = {
    "empty", "empty_strided", "empty_like", "new_empty", "new_empty_strided", "resize_", "view", "_unsafe_view", "reshape",
    "as_strided", "t", "transpose", "permute", "slice", "select", "expand", "expand_as", "view_as", "unsqueeze", "squeeze",
    "flatten", "unflatten", "chunk", "split", "unbind", "narrow", "detach", "detach_", "alias", "to", "_to_copy", "contiguous",
    "item", "_local_scalar_dense", "result_type", "is_nonzero", "lift_fresh", "matmul", "linear", "einsum", "_reshape_alias",
}  # fmt: skip
REPEATS = 8


def step_shares(trainer: Trainer, batch: Batch, device: torch.device) -> dict[str, float]:
    """Shares (sum 1) of a step's wall time, of a trainer that is warm.

    `kernels`: convolutions, matrix products, normalisation, attention. `elementwise`: activations, pooling, resampling, sums,
    losses, the optimiser's update. `copies`: changes of layout and concatenation. `overhead`: everything else, that is
    Python, autograd's bookkeeping, views, allocation and, on a GPU, waiting.
    """
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as seen:
        began = now(device)
        for _ in range(REPEATS):
            trainer.step(batch)
        wall_us = 1e6 * (now(device) - began)
    shares = dict.fromkeys(("kernels", "elementwise", "copies"), 0.0)
    for event in seen.key_averages():
        kind = kind_of(event.key)
        if kind in shares:
            spent = event.self_device_time_total if on_gpu else event.self_cpu_time_total
            shares[kind] += spent / wall_us
    return {**shares, "overhead": max(0.0, 1.0 - sum(shares.values()))}


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
    found = [kind for part, kind in PARTS_OF_NAMES.items() if part in operator]
    return found[0] if found else "elementwise"
