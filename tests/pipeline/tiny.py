"""The smallest runs that still go through everything: 16 pixels, twelve faces, eight updates."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config import compose, resolve
from pipeline.progress import Quiet
from pipeline.records import RunRecord, RunStore

if TYPE_CHECKING:
    import torch

    from pipeline.data.batch import Batch
    from pipeline.training.trainer import Trainer

TINY = (
    "size=16", "data.train_images=12", "data.val_images=4", "data.test_images=4", "train.iterations=8",
    "train.batch_size=2", "train.checkpoint_every=3", "train.validate_every=4", "train.log_every=2",
    "train.validate_images=4", "protocol=quick", "tracking.mode=disabled",
)  # fmt: skip

# Metrics of the clock and the machine: the only ones that may differ between two runs of one id.
MEASURED = {"train_images_per_s", "train_device_hours", "eval_images_per_s", "latency_ms", "peak_mem_gib"}


def trainer(*overrides: str) -> tuple[Trainer, Batch]:
    """The trainer of a tiny run before its first update, and a batch of its first faces."""
    import torch

    from pipeline.data import build_dataset
    from pipeline.data.batch import collate
    from pipeline.models.build import build_discriminator, build_generator
    from pipeline.training.trainer import Trainer

    config = compose([*TINY, *overrides])
    data = build_dataset(config.data, "train")
    classes = data.label_space.num_classes
    torch.manual_seed(0)
    generator = build_generator(config.model, classes, config.data.hw)
    discriminator = build_discriminator(config.discriminator, classes)
    made = Trainer(
        config, generator, discriminator, iterations=config.train.iterations or 0, device=torch.device("cpu")
    )
    return made, collate([data[i] for i in range(config.train.batch_size)], classes)


def run(out: Path, *overrides: str) -> RunRecord:
    """Execute one tiny run in this process."""
    from pipeline.runs.run import execute

    return execute(resolve([*TINY, *overrides]), RunStore(out / "runs"), progress=Quiet())


def final_weights(record: RunRecord) -> dict[str, torch.Tensor]:
    """The generator's weights at the end of a finished run."""
    from pipeline.runs import checkpoint

    return checkpoint.load(record, checkpoint.FINAL)["generator"]


def same_weights(a: RunRecord, b: RunRecord) -> bool:
    """Whether two finished runs ended with generators equal bit for bit."""
    import torch

    first, second = final_weights(a), final_weights(b)
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def command(*arguments: str, cwd: Path | None = None, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """`python -m pipeline ARGUMENTS` through a real process."""
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        cwd=cwd,
        env=environment(),
    )


def environment() -> dict[str, str]:
    """The environment with this checkout importable from anywhere."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


def values(record: RunRecord) -> dict[tuple[str, str, str], float | None]:
    """Every value of a record that must repeat bit for bit."""
    return {(row.name, row.split, row.state): row.value for row in record.metrics if row.name not in MEASURED}


def killed_after(out: Path, *overrides: str, lines: int) -> None:
    """Start a run in its own process and `kill -9` it once its history has `lines` lines."""
    import time

    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "train", "--out", str(out), *TINY, *overrides],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(),
    )  # fmt: skip
    deadline = time.monotonic() + 90
    try:
        while process.poll() is None and time.monotonic() < deadline:
            found = list(out.glob("runs/*/history.jsonl"))
            if found and len(found[0].read_text().splitlines()) >= lines:
                break
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def the_line(process: subprocess.CompletedProcess[str], status: int = 2) -> str:
    """The one line of a refused command: exit status, no traceback, nothing on stdout."""
    assert process.returncode == status, process.stderr
    assert "Traceback" not in process.stderr
    lines = [line for line in process.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and process.stderr.splitlines()[-1] == lines[0]
    return lines[0]
