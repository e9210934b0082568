"""An evaluation shared by several processes is that of one: the same rows and per-image values, bit for bit."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from pipeline.evaluation.context import batch_seed, rounds
from pipeline.records import MetricRow, RunRecord, RunStore
from tests.pipeline.tiny import MEASURED, TINY, environment, run

# Every stage in seconds. Seven images in batches of two: the last batch is short, and so is the last round of three processes.
SHARED = (
    "protocol=standard", "protocol.batch_size=2",
    "protocol.groups=[reconstruction,perceptual,attention,cost,semantic,distribution,diversity,editing,robustness]",
    "protocol.distribution.features=[segmenter]", "protocol.distribution.bootstrap=3", "protocol.segmenter.iterations=3",
    "protocol.editing.tasks=[style_transfer,style_interpolation,sampling,absent_style]", "protocol.editing.pairs=5",
    "protocol.robustness.kinds=[jitter]", "protocol.robustness.images=5", "protocol.diversity.images=3",
)  # fmt: skip
# Draws a start noise from torch's generator in evaluation too, samples styles, edits them class by class.
MODEL = ("model=inade", "model.start_noise=always", "data.test_images=7", "train.iterations=2")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder with one finished run that was not measured under the protocol `SHARED`."""
    out = tmp_path_factory.mktemp("trained")
    run(out, *MODEL)
    return out


@pytest.fixture(scope="module")
def alone(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    """The run measured by one process."""
    out = tmp_path_factory.mktemp("alone") / "out"
    shutil.copytree(trained, out)
    return run(out, *MODEL, *SHARED)


def under_torchrun(out: Path, processes: int, *overrides: str) -> subprocess.Popen[str]:
    """`train` of the run, whose training is over: it is measured."""
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}",
         "-m", "pipeline", "train", "--out", str(out), *TINY, *overrides],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(),
    )  # fmt: skip


def children(process: int) -> list[int]:
    """The workers of a torchrun."""
    return [int(number) for number in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def finished(process: subprocess.Popen[str], out: Path) -> RunRecord:
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said[-2000:]
    (run_id,) = RunStore(out / "runs").ids()
    return RunStore(out / "runs").record(run_id)


def rows_of(record: RunRecord) -> list[MetricRow]:
    return [row for row in record.metrics if row.name not in MEASURED]


def assert_equal(found: RunRecord, expected: RunRecord) -> None:
    """Every row and every per-image value, to the last bit, and the same pictures."""
    assert found.id == expected.id
    assert rows_of(found) == rows_of(expected)
    assert {row.name for row in found.metrics} == {row.name for row in expected.metrics}
    tables = [record.path / "per_image.parquet" for record in (found, expected)]
    pd.testing.assert_frame_equal(*(pd.read_parquet(path) for path in tables), check_exact=True)
    assert tables[0].read_bytes() == tables[1].read_bytes()
    pictures = [
        {path.relative_to(record.path): path.read_bytes() for path in (record.path / "samples").rglob("*.*")}
        for record in (found, expected)
    ]
    assert pictures[0] == pictures[1] and len(pictures[0]) > 7 * 4


def test_rounds_hand_out_each_batch_once_and_the_first_ones_to_the_main_process() -> None:
    assert rounds(5, 1, 0) == [range(i, i + 1) for i in range(5)]
    assert rounds(5, 2, 0) == rounds(5, 2, 1) == [range(0, 2), range(2, 4), range(4, 5)]
    assert rounds(7, 3, 3) == [range(0, 1), range(1, 2), range(2, 5), range(5, 7)]
    assert rounds(2, 3, 2) == [range(0, 1), range(1, 2)] and rounds(0, 2, 0) == []
    for batches, processes, first in ((1, 4, 1), (9, 4, 2), (8, 3, 8)):
        shared = rounds(batches, processes, first)
        assert [number for numbers in shared for number in numbers] == list(range(batches))
        assert all(len(numbers) <= processes for numbers in shared)
        assert {numbers.start for numbers in shared} >= set(range(first))


def test_what_a_batch_draws_follows_from_its_stage_and_number() -> None:
    seeds = {batch_seed(stage, number) for stage in ("stream", "diversity") for number in range(50)}
    assert len(seeds) == 100 and batch_seed("stream", 3) == batch_seed("stream", 3)


@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_several_processes_measure_what_one_does(
    processes: int, trained: Path, alone: RunRecord, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(trained, out)
    assert_equal(finished(under_torchrun(out, processes, *MODEL, *SHARED), out), alone)
    names = {row.name for row in alone.metrics if row.status == "ok"}
    assert {
        "psnr",
        "fd_seg",
        "seg_miou",
        "pixel_div",
        "edit_psnr_style_transfer",
        "robust_psnr_area",
        "latency_ms",
    } <= names
    assert not list((out / "cache" / "evaluating").glob("*")), "nothing of the evaluation in progress is left"


@pytest.mark.slow
def test_killed_in_the_middle_they_go_on_where_they_stopped(trained: Path, alone: RunRecord, tmp_path: Path) -> None:
    """Killed with two processes, ended with three: batches are those of one process whoever measures them."""
    out = tmp_path / "out"
    shutil.copytree(trained, out)
    process = under_torchrun(out, 2, *MODEL, *SHARED)
    kept = out / "cache" / "evaluating"
    deadline = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < deadline and len(list(kept.glob("*/stream_*.npz"))) < 2:
        time.sleep(0.005)
    for one in (process.pid, *children(process.pid)):
        os.kill(one, signal.SIGKILL)
    process.communicate()
    assert list(kept.glob("*/stream_*.npz")), "it was killed in the middle"
    assert_equal(finished(under_torchrun(out, 3, *MODEL, *SHARED), out), alone)
