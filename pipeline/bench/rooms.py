"""What feeding, evaluating, starting and reading cost: everything around the training step."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from pipeline.errors import RunFailed


def feeding(overrides: Sequence[str], *, seconds: float) -> dict[str, Any]:
    """Images a second of training batches, by cache and number of loader processes."""
    from pipeline.bench.setup import configure, machine
    from pipeline.data.speed import feeding_speed

    rows = []
    for cache in ("none", "memory"):
        for workers in (0, 2):
            cfg, device = configure([*overrides, f"data.cache={cache}", f"data.workers={workers}"])
            speed = feeding_speed(cfg.data, "train", batch_size=cfg.train.batch_size, seconds=seconds)
            rows.append(
                {"cache": cache, "workers": workers, "images_per_s": speed.images_per_s,
                 "first_epoch_s": speed.first_epoch_s}
            )  # fmt: skip
    return {"benchmark": "data", "overrides": list(overrides), "size": list(cfg.data.hw), "rows": rows,
            **machine(device)}  # fmt: skip


def evaluating(overrides: Sequence[str], *, arms: int) -> dict[str, Any]:
    """Seconds to evaluate `arms` generators that share one cache, beside the seconds their pictures alone take."""
    import torch

    from pipeline.bench.setup import configure, machine, prepare
    from pipeline.data.build import build_dataset
    from pipeline.evaluation import evaluate, first_batches, reconstruct, split_source

    cfg, device = configure(overrides)
    data = build_dataset(cfg.data, cfg.protocol.split)
    splits = split_source(lambda split: build_dataset(cfg.data, split))
    generating, whole = [], []
    with tempfile.TemporaryDirectory() as folder:
        for arm in range(arms):
            trainer, _ = prepare(cfg.model_copy(update={"seed": cfg.seed + arm}), device)
            trainer.generator.eval()
            began = time.perf_counter()
            with torch.no_grad():
                for batch in first_batches(data, cfg.protocol.images, cfg.protocol.batch_size):
                    reconstruct(trainer.generator, batch, device)
            generating.append(time.perf_counter() - began)
            began = time.perf_counter()
            evaluate(trainer.generator, data, cfg.protocol, device=device, state="trained", cache=Path(folder),
                     splits=splits)  # fmt: skip
            whole.append(time.perf_counter() - began)
    later = median(whole[1:]) if arms > 1 else whole[0]
    return {
        "benchmark": "eval",
        "overrides": list(overrides),
        "protocol": cfg.protocol.name,
        "images": min(len(data), cfg.protocol.images or len(data)),
        "arms": arms,
        "generating_s": generating,
        "evaluating_s": whole,
        "reference_pass_s": max(0.0, whole[0] - later),
        "ratio": sum(whole) / sum(generating),
        "ratio_without_reference_pass": later / median(generating),
        **machine(device),
    }


def starting(*, repeats: int) -> dict[str, Any]:
    """Seconds from the command to the first training step, beside a bare `import torch`; and of other commands' starts."""
    bare = _seconds(["-c", "import torch"], repeats)
    tiny = ["size=16", "data.train_images=4", "data.val_images=2", "data.test_images=2", "train.iterations=1",
            "train.batch_size=2", "train.validate_images=1", "protocol=quick", "tracking.mode=disabled"]  # fmt: skip
    first_step = median(_first_step_seconds(tiny) for _ in range(repeats))
    rows = [
        {"command": "python -c 'import torch'", "seconds": bare},
        {"command": "python -m pipeline train, to the first step", "seconds": first_step},
        {"command": "python -m pipeline --help", "seconds": _seconds(["-m", "pipeline", "--help"], repeats)},
        {"command": "python -m pipeline config", "seconds": _seconds(["-m", "pipeline", "config"], repeats)},
        {"command": "python -m analysis --help", "seconds": _seconds(["-m", "analysis", "--help"], repeats)},
    ]
    return {
        "benchmark": "launch",
        **_machine(),
        "repeats": repeats,
        "rows": rows,
        "first_step_beyond_torch_s": first_step - bare,
    }


def reading(*, counts: Sequence[int]) -> dict[str, Any]:
    """Seconds to plan, show, load and print a study of so many runs, made of copies of a synthetic record."""
    return {"benchmark": "frame", **_machine(), "rows": [_reading_row(count) for count in counts]}


def _machine() -> dict[str, Any]:
    from pipeline.provenance import host_facts

    facts = host_facts()
    return {"device": f"cpu ({facts['processor']}), {facts['cores']} cores"}


def _reading_row(count: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        make_study(out, count)
        return {
            "runs": count,
            "records_s": _timed(lambda: _read_all(out)),
            "status_s": _timed(lambda: _command(out, "ablations", "status")),
            "table_s": _timed(lambda: _command(out, "analysis", "table")),
        }


STUDY = "bench"
ARMS = 4  # of the synthetic study; seeds make up the number of runs


def make_study(out: Path, runs: int) -> None:
    """A finished study of `runs` cells in `out`, written through the run store: numbers are made up, files are real."""
    from pipeline.identity import digest
    from pipeline.records import Arm, Cell, MetricRow, RunStore, StudyManifest, StudyMetric

    store = RunStore(out / "runs")
    names = [f"arm{number}" for number in range(min(ARMS, runs))]
    cells = []
    first: Path | None = None
    for number in range(runs):
        arm, seed = names[number % len(names)], number // len(names)
        identity = json.dumps({"config": {"arm": arm, "seed": seed}, "data": {}, "schema": 1})
        record = store.record(digest(identity))
        if first is None:
            record.create(identity, "seed: 0\n")
            record.begin_attempt("trained")
            record.add_metrics(
                MetricRow(name, 20.0, 8, "dB", "max", "test", "standard", f"bench-{name}")
                for name in ("psnr", "ssim", "lpips", "l1")
            )
            record.end_attempt("finished")
            first = record.path
        else:
            shutil.copytree(first, record.path)
            (record.path / "identity.json").write_text(identity, encoding="utf-8")
        cells.append(Cell(arm, seed, record.id, (f"seed={seed}",), 8))
    StudyManifest(
        name=STUDY, question="", revision=1, protocol="standard", split="test",
        metrics=(StudyMetric("psnr", "primary", "max"), StudyMetric("ssim", "secondary", "max")),
        arms=tuple(Arm(name, name, {"arm": name}, (), name == names[0]) for name in names),
        cells=tuple(cells), seeds=tuple(sorted({cell.seed for cell in cells})), design="list", budget="equal",
    ).save(out / STUDY)  # fmt: skip


def _read_all(out: Path) -> None:
    from pipeline.records.bulk import read_raw

    for folder in (out / "runs").iterdir():
        read_raw(out / "runs", folder.name)


def _command(out: Path, room: str, verb: str) -> None:
    _run([sys.executable, "-m", room, verb, STUDY, "--out", str(out)])


def _first_step_seconds(overrides: Sequence[str]) -> float:
    code = (
        "import sys, time; began = time.perf_counter()\n"
        "from pipeline import trainer\n"
        "step = trainer.Trainer.step\n"
        "def first(self, batch):\n"
        "    print('FIRST', time.perf_counter() - began, flush=True); return step(self, batch)\n"
        "trainer.Trainer.step = first\n"
        "from pipeline.__main__ import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    with tempfile.TemporaryDirectory() as out:
        text = _run([sys.executable, "-c", code, "train", "--out", out, *overrides])
    return float(next(line.split()[1] for line in text.splitlines() if line.startswith("FIRST")))


def _seconds(arguments: Sequence[str], repeats: int) -> float:
    return median(_timed(lambda: _run([sys.executable, *arguments])) for _ in range(repeats))


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RunFailed(f"{' '.join(command[1:4])} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout


def _timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
