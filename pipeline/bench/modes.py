"""Naive against fast: paired training steps in one process, the same losses, and the memory of each mode alone."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

import torch

from pipeline.allocator import keep_freed_memory, return_freed_memory
from pipeline.bench.naive import NaiveTrainer
from pipeline.bench.processes import in_own_process
from pipeline.bench.setup import configure, machine, prepare
from pipeline.metrics.cost import now
from pipeline.provenance import peak_memory_gib
from pipeline.trainer import Trainer

WARM_UP = 1  # pairs that are not counted
MODES: dict[str, type[Trainer]] = {"naive": NaiveTrainer, "fast": Trainer}
ALLOCATION = {"naive": return_freed_memory, "fast": keep_freed_memory}


def naive_against_fast(overrides: Sequence[str], *, pairs: int, memory: bool = True) -> dict[str, Any]:
    """Median seconds of a step in both modes, median of the paired ratios, largest difference of any loss term.

    The naive network takes over the fast one's state before each pair, so every pair starts from equal weights and rounding
    does not add up through the optimiser. Each mode has memory handed out in its own way (`pipeline.allocator`); a fast step
    that is not counted takes its memory back before the one that is. Peak memory is that of a process that trains in one
    mode only, torch included.
    """
    peaks: dict[str, float | None] = dict.fromkeys(MODES)
    if memory:
        peaks = {mode: in_own_process(peak_of, mode, tuple(overrides)) for mode in MODES}
    cfg, device = configure(overrides)
    naive, batch = prepare(cfg, device, NaiveTrainer)
    fast, _ = prepare(cfg, device)
    seconds: dict[str, list[float]] = {"naive": [], "fast": []}
    differences: dict[str, float] = {}
    for _ in range(WARM_UP + pairs):
        losses: dict[str, dict[str, float]] = {}
        ALLOCATION["fast"]()
        fast.step(batch)
        with torch.no_grad():
            naive.load_state(fast.state())
        for mode, trainer in (("fast", fast), ("naive", naive)):
            ALLOCATION[mode]()
            began = now(device)
            terms = trainer.step(batch)
            losses[mode] = {name: float(value) for name, value in terms.items()}
            seconds[mode].append(now(device) - began)
        for name, value in losses["fast"].items():
            differences[name] = max(differences.get(name, 0.0), abs(value - losses["naive"][name]))
    counted = {mode: times[WARM_UP:] for mode, times in seconds.items()}
    return {
        "benchmark": "step, naive against fast",
        "overrides": list(overrides),
        "preset": cfg.preset,
        "size": list(cfg.data.hw),
        "batch_size": cfg.train.batch_size,
        "precision": cfg.train.precision,
        "pairs": pairs,
        "naive_s": median(counted["naive"]),
        "fast_s": median(counted["fast"]),
        "ratio": median(slow / quick for slow, quick in zip(counted["naive"], counted["fast"], strict=True)),
        "naive_peak_gib": peaks["naive"],
        "fast_peak_gib": peaks["fast"],
        "max_loss_difference": max(differences.values()),
        "loss_differences": differences,
        "losses": losses["fast"],
        "seconds": counted,
        **machine(device),
    }


def peak_of(mode: str, overrides: tuple[str, ...]) -> float:
    """High-water mark in GiB of two steps in `mode`; to be called in a process of its own."""
    cfg, device = configure(overrides)
    ALLOCATION[mode]()
    trainer, batch = prepare(cfg, device, MODES[mode])
    for _ in range(2):
        trainer.step(batch)
    return peak_memory_gib(device.type)
