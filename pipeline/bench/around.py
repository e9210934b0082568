"""What feeding, evaluating, starting and whole studies cost: everything around the training step."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from pipeline.bench.processes import command, cpu, python, seconds, timed
from pipeline.bench.scale import STUDY, make_study

if TYPE_CHECKING:
    import torch

    from pipeline.models.contract import Generator

NOTHING = 200  # runs that train nothing, as `starting` carries them out, so many at once:
NOTHING_JOBS = 2

# Calls that make pictures, whatever a protocol asks for: reconstructions, edits, damaged masks, samples.
GENERATING = ("encode_style", "embed_shape", "synthesize", "synthesize_embedded", "sample_style")


def feeding(overrides: Sequence[str], *, lasting: float) -> dict[str, Any]:
    """Images a second of training batches, by cache and number of loader threads; `lasting` seconds a measurement."""
    from pipeline.bench.setup import configure, machine
    from pipeline.data.speed import feeding_speed

    rows = []
    for cache in ("none", "memory", "mapped"):
        for workers in (0, 2):
            with tempfile.TemporaryDirectory() as root:  # every mapped cache is built anew
                place = [f"data.cache={cache}", f"data.cache_root={root}", f"data.workers={workers}"]
                cfg, device = configure([*overrides, *place])
                speed = feeding_speed(cfg.data, "train", batch_size=cfg.train.batch_size, seconds=lasting)
            rows.append(
                {"cache": cache, "workers": workers, "images_per_s": speed.images_per_s,
                 "first_epoch_s": speed.first_epoch_s}
            )  # fmt: skip
    return {"benchmark": "data", "overrides": list(overrides), "size": list(cfg.data.hw), "rows": rows,
            **machine(device)}  # fmt: skip


def evaluating(overrides: Sequence[str], *, arms: int) -> dict[str, Any]:
    """Seconds to evaluate `arms` generators that share one cache, beside the seconds spent inside the generators.

    An arm's evaluation is that of a run, sample pictures and all; what is clocked is every call into its generator, those that
    measure its cost included. `ratio`: median of evaluating over generating, the first arm left out, since it also makes what
    all share (segmenter, reference features, true edits); `reference_pass_s` is what that takes.
    """
    from pipeline.bench.setup import configure, machine, prepare
    from pipeline.data.build import build_dataset
    from pipeline.evaluation.context import split_source
    from pipeline.evaluation.evaluator import evaluate

    cfg, device = configure(overrides)
    data = build_dataset(cfg.data, cfg.protocol.split)
    splits = split_source(lambda split: build_dataset(cfg.data, split))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for arm in range(arms):
            trainer, _ = prepare(cfg.model_copy(update={"seed": cfg.seed + arm}), device)
            run = partial(evaluate, trainer.generator, data, cfg.protocol, device=device, state="trained",
                          cache=Path(folder) / "cache", samples=Path(folder) / str(arm), splits=splits)  # fmt: skip
            with clocked(trainer.generator, device) as inside:
                whole = timed(run)
            rows.append({"arm": arm, "evaluating_s": whole, "generating_s": sum(inside)})
    beside = [row["evaluating_s"] - row["generating_s"] for row in rows]
    later = rows[1:] or rows
    return {
        "benchmark": "eval",
        "overrides": list(overrides),
        "protocol": cfg.protocol.name,
        "images": min(len(data), cfg.protocol.images or len(data)),
        "rows": rows,
        "reference_pass_s": max(0.0, beside[0] - median(beside[1:] or beside)),
        "ratio": median(row["evaluating_s"] / row["generating_s"] for row in later),
        **machine(device),
    }


@contextmanager
def clocked(generator: Generator, device: torch.device) -> Iterator[list[float]]:
    """Inside, the seconds of each outermost call that makes pictures are appended to the list handed out."""
    from pipeline.metrics.cost import now

    spent: list[float] = []
    depth = 0

    def clock(method: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            nonlocal depth
            began, depth = now(device), depth + 1
            try:
                return method(*args, **kwargs)
            finally:
                depth -= 1
                if depth == 0:
                    spent.append(now(device) - began)

        return run

    for name in GENERATING:
        setattr(generator, name, clock(getattr(generator, name)))
    try:
        yield spent
    finally:
        for name in GENERATING:
            vars(generator).pop(name, None)


def starting(*, repeats: int) -> dict[str, Any]:
    """Seconds from the command to the first training step, beside a bare `import torch`; and of other commands.

    `start_s_per_run` is what a study pays for a run beyond its training: a process, its record, the scheduler's looks at it.
    """
    bare = seconds(["-c", "import torch"], repeats)
    tiny = ["size=16", "data.train_images=4", "data.val_images=2", "data.test_images=2", "train.iterations=1",
            "train.batch_size=2", "train.validate_images=1", "protocol=quick", "tracking.mode=disabled"]  # fmt: skip
    first_step = median(_first_step_seconds(tiny) for _ in range(repeats))
    rows = [
        {"command": "python -c 'import torch'", "seconds": bare},
        {"command": "python -m pipeline train, to the first step", "seconds": first_step},
        {"command": "python -m pipeline --help", "seconds": seconds(["-m", "pipeline", "--help"], repeats)},
        {"command": "python -m pipeline config", "seconds": seconds(["-m", "pipeline", "config"], repeats)},
        {"command": "python -m analysis --help", "seconds": seconds(["-m", "analysis", "--help"], repeats)},
    ]
    with tempfile.TemporaryDirectory() as out:
        make_study(Path(out), 10)
        table = seconds(["-m", "analysis", "table", STUDY, "--out", out], repeats)
    rows.append({"command": "python -m analysis table, 10 runs", "seconds": table})
    nothing = seconds_of_nothing(NOTHING)
    rows.append({"command": f"{NOTHING} runs that train nothing, {NOTHING_JOBS} jobs", "seconds": nothing})
    return {
        "benchmark": "launch",
        **cpu(),
        "repeats": repeats,
        "rows": rows,
        "first_step_beyond_torch_s": first_step - bare,
        "start_s_per_run": nothing / NOTHING,
    }


def seconds_of_nothing(runs: int) -> float:
    """Seconds of a study of `runs` cells (an even number), from the command to its end, whose runs train nothing."""
    grid = ["--grid", "loss.attention.weight=0.5,1.0", "--seeds", f"0-{runs // 2 - 1}"]
    how = ["--jobs", str(NOTHING_JOBS), "--entry", "pipeline.bench.nothing:train"]
    with tempfile.TemporaryDirectory() as out:
        return timed(partial(command, "ablations", "run", *grid, *how, "--out", out))


def studying(study: str, jobs: Sequence[int]) -> dict[str, Any]:
    """Cells an hour of a shipped study, run from nothing with so many jobs at once."""
    from pipeline.records import StudyManifest

    rows = []
    for count in jobs:
        with tempfile.TemporaryDirectory() as out:
            run = ["run", study, "--set", "tracking.mode=disabled", "--jobs", str(count), "--out", out]
            took = timed(partial(command, "ablations", *run))
            (plan,) = Path(out).glob("*/plan.json")
            cells = len(StudyManifest.load(plan.parent).cells)
        rows.append({"jobs": count, "cells": cells, "seconds": took, "cells_per_hour": 3600 * cells / took})
    return {"benchmark": "study", "study": study, **cpu(), "rows": rows}


def _first_step_seconds(overrides: Sequence[str]) -> float:
    code = (
        "import sys, time\n"
        "from pipeline.training import trainer\n"
        "step = trainer.Trainer.step\n"
        "def first(self, batch):\n"
        "    print('FIRST', time.time(), flush=True); return step(self, batch)\n"
        "trainer.Trainer.step = first\n"
        "from pipeline.__main__ import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    with tempfile.TemporaryDirectory() as out:
        began = time.time()
        text = python("-c", code, "train", "--out", out, *overrides)
    return float(next(line.split()[1] for line in text.splitlines() if line.startswith("FIRST"))) - began
