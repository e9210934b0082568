"""What a study of many runs costs to plan, show, load and print: made-up numbers in real records, through the real commands."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.bench.processes import command, cpu, timed

STUDY = "bench"
ARMS = 4  # of the synthetic study; seeds make up the number of runs
ROWS = 170  # metric rows of a record: as many as the protocol `standard` gives a (CA)²-SIS run
VERBS = ("plan", "status", "frame", "table")


def scaling(*, counts: Sequence[int]) -> dict[str, Any]:
    """Seconds of plan, status, frame and table for a study of so many runs (multiples of 4 count fully), each command in a
    process of its own; and milliseconds that one run more costs, from the smallest count to the largest."""
    rows = [_row(count) for count in sorted(counts)]
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
    axes.set_ylim(bottom=0.2)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})


def _row(count: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        make_study(out, count)
        place = ["--out", str(out)]
        seeds = f"0-{max(1, count // ARMS) - 1}"
        grid = ["--grid", "loss.attention.weight=0.5,1.0,2.0,4.0", "--seeds", seeds]
        return {
            "runs": count,
            "plan_s": timed(lambda: command("ablations", "plan", *grid, *place)),
            "status_s": timed(lambda: command("ablations", "status", STUDY, *place)),
            "frame_s": timed(
                lambda: command("analysis", "frame", STUDY, "--root", str(out), "--out", str(out / "frame.parquet"))
            ),
            "table_s": timed(lambda: command("analysis", "table", STUDY, *place)),
        }


def make_study(out: Path, runs: int) -> None:
    """A finished study of `runs` cells in `out`, written through the run store: numbers are made up, files are real."""
    from pipeline.identity import digest
    from pipeline.records import Arm, Cell, MetricRow, RunStore, StudyManifest, StudyMetric

    store = RunStore(out / "runs")
    names = [f"arm{number}" for number in range(min(ARMS, runs))]
    metrics = ["psnr", "ssim", "rmse", *(f"seg_iou_{number}" for number in range(ROWS - 3))]
    cells = []
    first: Path | None = None
    for number in range(runs):
        arm, seed = names[number % len(names)], number // len(names)
        # as long as a real one: loading reads it
        config = {"arm": arm, "seed": seed, "filler": "x" * 1500}
        identity = json.dumps({"config": config, "data": {}, "schema": 1})
        record = store.record(digest(identity))
        if first is None:
            record.create(identity, "seed: 0\n")
            record.begin_attempt("trained")
            record.add_metrics(
                MetricRow(name, 20.0, 8, "dB", "max", "test", "standard", digest(f"bench {name}")) for name in metrics
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
