"""What a study of many runs costs to plan, show, load and print: made-up numbers in real records, through the real commands."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.bench.processes import command, cpu, timed
from pipeline.errors import UserError

if TYPE_CHECKING:
    from pipeline.records import RunRecord

STUDY = "bench"
FACTOR = ("loss.attention.weight", (0.5, 1.0, 2.0, 4.0, 8.0))  # five arms; seeds make up the number of runs
ROWS = 170  # metric rows of a record: as many as the protocol `standard` gives a (CA)²-SIS run
IMAGES = 128  # of the test split, with three values each
VERBS = ("plan", "status", "frame", "table")


def scaling(*, counts: Sequence[int]) -> dict[str, Any]:
    """Seconds of plan, status, frame and table for studies of so many runs, each command in a process of its own.

    And the milliseconds that one run more costs, from the smallest count to the largest.
    """
    rows = [_row(count) for count in sorted(set(counts))]
    slopes = {}
    if len(rows) > 1:
        first, last = rows[0], rows[-1]
        more = last["runs"] - first["runs"]
        slopes = {f"{verb}_ms_per_run": 1000 * (last[f"{verb}_s"] - first[f"{verb}_s"]) / more for verb in VERBS}
    return {"benchmark": "scale", **cpu(), "metric_rows_per_run": ROWS, "rows": rows, **slopes}


def plot(result: dict[str, Any], path: Path) -> None:
    """Seconds against runs, both logarithmic, as a PNG; a dotted line has slope one."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 3.6), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    runs = [row["runs"] for row in result["rows"]]
    for verb, marker in zip(VERBS, "osD^", strict=True):
        axes.loglog(runs, [row[f"{verb}_s"] for row in result["rows"]], marker=marker, markersize=4, label=verb)
    last = result["rows"][-1]
    anchor = max(last[f"{verb}_s"] for verb in VERBS) * 1.6
    axes.loglog(runs, [anchor * count / runs[-1] for count in runs], ":", color="0.5", label="linear")
    axes.set(xlabel="runs of the study", ylabel="seconds, start-up included", xticks=runs)
    axes.set_xticklabels([f"{count:,}" for count in runs])
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})


def _row(count: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        make_study(out, count)
        key, levels = FACTOR
        grid = ["--grid", f"{key}={','.join(map(str, levels))}", "--seeds", f"0-{count // len(levels) - 1}"]
        place = ["--out", str(out)]
        frame = ["--root", str(out), "--out", str(out / "frame.parquet")]
        return {
            "runs": count,
            "plan_s": timed(partial(command, "ablations", "plan", *grid, *place)),
            "status_s": timed(partial(command, "ablations", "status", STUDY, *place)),
            "frame_s": timed(partial(command, "analysis", "frame", STUDY, *frame)),
            "table_s": timed(partial(command, "analysis", "table", STUDY, *place)),
        }


def make_study(out: Path, runs: int) -> None:
    """A finished study of `runs` cells in `out`, written through the run store: numbers are made up, files are real.

    The runs are those of a grid over `FACTOR`, so that planning the grid finds every one of them. Raises UserError unless
    `runs` is a multiple of the arms.
    """
    from pipeline.config import identify, resolve
    from pipeline.records import Arm, Cell, RunStore, StudyManifest, StudyMetric

    key, levels = FACTOR
    if runs % len(levels):
        raise UserError(f"a study of {runs} runs: a multiple of {len(levels)} is needed, for so many are its arms")
    store = RunStore(out / "runs")
    cells = []
    pattern: Path | None = None
    for level in levels:
        first = resolve([f"{key}={level}"])
        for seed in range(runs // len(levels)):
            run = identify(first.config.model_copy(update={"seed": seed}))
            record = store.record(run.run_id)
            if pattern is None:
                pattern = _write_record(record, run.identity)
            else:
                shutil.copytree(pattern, record.path)
                (record.path / "identity.json").write_text(run.identity, encoding="utf-8")
            cells.append(Cell(str(level), seed, run.run_id, (f"{key}={level}", f"seed={seed}"), 8))
    StudyManifest(
        name=STUDY, question="", revision=1, protocol="standard", split="test",
        metrics=(StudyMetric("psnr", "primary", "max"), StudyMetric("ssim", "secondary", "max")),
        arms=tuple(Arm(str(x), f"weight {x}", {key: str(x)}, (f"{key}={x}",), x == levels[0]) for x in levels),
        cells=tuple(cells), seeds=tuple(range(runs // len(levels))), design="list", budget="equal",
    ).save(out / STUDY)  # fmt: skip


def _write_record(record: RunRecord, identity: str) -> Path:
    """A finished record as large as a real one; returns its folder."""
    import pandas as pd

    from pipeline.config import load_protocol
    from pipeline.identity import digest
    from pipeline.records import MetricRow

    names = ["psnr", "ssim", "rmse", *(f"seg_iou_{number}" for number in range(ROWS - 3))]
    prints = {name: digest(f"bench {name}") for name in names}
    record.create(identity, "seed: 0\n")
    record.begin_attempt("trained")
    record.add_metrics(MetricRow(name, 20.0, IMAGES, "dB", "max", "test", "standard", prints[name]) for name in names)
    frames = [
        pd.DataFrame({"key": [f"test{i:06d}" for i in range(IMAGES)], "metric": name, "value": 20.0, "split": "test",
                      "fingerprint": prints[name]})
        for name in names[:3]
    ]  # fmt: skip
    record.add_per_image(pd.concat(frames, ignore_index=True))
    record.update_provenance(wall_seconds=60.0, images_seen=8, protocols={"standard": load_protocol("standard").digest})
    record.end_attempt("finished")
    return record.path
