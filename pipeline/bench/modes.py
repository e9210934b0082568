"""Naive against fast: paired training steps in one process, the same losses, and the memory of each mode alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch

from pipeline.bench.naive import NaiveTrainer
from pipeline.bench.processes import in_own_process
from pipeline.bench.setup import configure, machine, prepare
from pipeline.data.batch import Batch
from pipeline.metrics.cost import now, peak_memory_gib
from pipeline.progress import LongStep
from pipeline.training.allocator import keep_freed_memory, return_freed_memory
from pipeline.training.trainer import Trainer

WARM_UP = 1  # pairs that are not counted
MODES: dict[str, type[Trainer]] = {"naive": NaiveTrainer, "fast": Trainer}
ALLOCATION = {"naive": return_freed_memory, "fast": keep_freed_memory}
KEPT = dict.fromkeys(MODES, keep_freed_memory)


def naive_against_fast(overrides: Sequence[str], *, pairs: int, memory: bool = True) -> dict[str, Any]:
    """Median seconds of a step in both modes, median of the paired ratios, largest difference of any loss term.

    The naive network takes over the fast one's state before each pair, so every pair starts from equal weights and rounding
    does not add up through the optimiser. Each mode has memory handed out in its own way
    (`pipeline.training.allocator`); pairs that
    both keep what they free follow, whose ratio `ratio_memory_kept` is that of the arithmetic alone. Peak memory is that of a
    process that trains in one mode only, torch included.
    """
    peaks: dict[str, float | None] = dict.fromkeys(MODES)
    if memory:
        peaks = {mode: in_own_process(peak_of, mode, tuple(overrides)) for mode in MODES}
    cfg, device = configure(overrides)
    naive, batch = prepare(cfg, device, NaiveTrainer)
    fast, _ = prepare(cfg, device)
    trainers = {"fast": fast, "naive": naive}
    seconds, losses = paired_steps(trainers, batch, device, ALLOCATION, pairs)
    kept, _ = paired_steps(trainers, batch, device, KEPT, pairs)
    differences = {
        name: max(abs(one[name] - other[name]) for one, other in zip(losses["fast"], losses["naive"], strict=True))
        for name in losses["fast"][0]
    }
    return {
        "benchmark": "step, naive against fast",
        "overrides": list(overrides),
        "preset": cfg.preset,
        "size": list(cfg.data.hw),
        "batch_size": cfg.train.batch_size,
        "precision": cfg.train.precision,
        "pairs": pairs,
        "naive_s": median(seconds["naive"]),
        "fast_s": median(seconds["fast"]),
        "ratio": ratio(seconds),
        "ratio_memory_kept": ratio(kept),
        "naive_peak_gib": peaks["naive"],
        "fast_peak_gib": peaks["fast"],
        "max_loss_difference": max(differences.values()),
        "loss_differences": differences,
        "losses": losses["fast"][-1],
        "seconds": seconds,
        "seconds_memory_kept": kept,
        **machine(device),
    }


def paired_steps(
    trainers: dict[str, Trainer],
    batch: Batch,
    device: torch.device,
    allocation: dict[str, Callable[[], bool]],
    pairs: int,
) -> tuple[dict[str, list[float]], dict[str, list[dict[str, float]]]]:
    """Seconds of each mode's steps in `pairs` pairs, one warm-up pair left out, and the loss terms of all pairs.

    `allocation`: how a mode has memory handed out. A fast step that is not counted takes its memory back before the one that
    is, and brings the weights both start from.
    """
    seconds: dict[str, list[float]] = {mode: [] for mode in trainers}
    losses: dict[str, list[dict[str, float]]] = {mode: [] for mode in trainers}
    shown = LongStep("measuring pairs of steps", WARM_UP + pairs)
    for done in range(WARM_UP + pairs):
        shown.update(done)
        allocation["fast"]()
        trainers["fast"].step(batch)
        with torch.no_grad():
            trainers["naive"].load_state(trainers["fast"].state())
        for mode, trainer in trainers.items():
            allocation[mode]()
            began = now(device)
            terms = trainer.step(batch)
            losses[mode].append({name: float(value) for name, value in terms.items()})
            seconds[mode].append(now(device) - began)
    return {mode: times[WARM_UP:] for mode, times in seconds.items()}, losses


def ratio(seconds: dict[str, list[float]]) -> float:
    """Median of the paired ratios, naive over fast."""
    return median(slow / quick for slow, quick in zip(seconds["naive"], seconds["fast"], strict=True))


def peak_of(mode: str, overrides: tuple[str, ...]) -> float:
    """High-water mark in GiB of two steps in `mode`; to be called in a process of its own."""
    cfg, device = configure(overrides)
    ALLOCATION[mode]()
    trainer, batch = prepare(cfg, device, MODES[mode])
    for _ in range(2):
        trainer.step(batch)
    return peak_memory_gib(device.type)
