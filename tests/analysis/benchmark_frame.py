"""Time and memory of loading large studies: `python -m tests.analysis.benchmark_frame [COUNT ...]` (default 100 1000 10000).

Writes COUNT synthetic records of 20 metric rows each into a temporary folder, then loads them in a fresh process. No test: a
machine's speed is no property of the code.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from pipeline.records import Arm, Cell, StudyManifest, StudyMetric

ROWS = 20
SEEDS = 100
LOAD = """
import resource, sys, time
from pathlib import Path
begin = time.perf_counter()
from analysis.frame import load_study
imported = time.perf_counter()
study = load_study(Path(sys.argv[1]), "large")
loaded = time.perf_counter()
from analysis.tables import build_table, load_spec, render
text = render(build_table(study, load_spec("main")[1]), "md")
tabled = time.perf_counter()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
sizes = f"{len(study.runs):>7} {len(study.frame):>8}"
print(f"{sizes} {imported - begin:>8.2f} {loaded - imported:>8.2f} {tabled - loaded:>8.2f} {peak:>9.2f}")
"""


def write_study(out: Path, count: int) -> None:
    """Write `count` records of one study straight as files, in the layout of the run store."""
    names = ["psnr", *(f"metric_{index:02d}" for index in range(1, ROWS))]
    arms = [f"arm{index:03d}" for index in range(-(-count // SEEDS))]
    cells = []
    for index in range(count):
        arm, seed = arms[index // SEEDS], index % SEEDS
        identity = json.dumps({"config": {"arm": arm, "seed": seed}, "data": "d", "schema": 1})
        run_id = hashlib.sha256(identity.encode()).hexdigest()
        folder = out / "runs" / run_id
        folder.mkdir(parents=True)
        attempt = {"started": "", "ended": "", "outcome": "finished", "reason": "", "host": "h", "pid": 1}
        status = {
            "state": "finished",
            "reason": "",
            "attempts": [attempt],
            "heartbeat": "",
            "progress": {},
            "kind": "trained",
        }
        provenance = {
            "commit": "0" * 40,
            "dirty": False,
            "versions": {"torch": "2.15.0"},
            "device": "cpu",
            "wall_seconds": 10.0,
            "params": 1_000_000,
            "images_seen": 6400,
            "data": {"digest": "d" * 64, "summary": "data"},
        }
        rows = [
            {
                "name": name,
                "value": 20 + 0.01 * seed + 0.1 * (index // SEEDS) + position,
                "n": 100,
                "unit": "dB",
                "direction": "max",
                "split": "test",
                "protocol": "standard",
                "fingerprint": hashlib.sha256(name.encode()).hexdigest(),
                "state": "trained",
                "status": "ok",
                "reason": "",
            }
            for position, name in enumerate(names)
        ]
        (folder / "identity.json").write_text(identity)
        (folder / "status.json").write_text(json.dumps(status, indent=1))
        (folder / "provenance.json").write_text(json.dumps(provenance, indent=1))
        (folder / "metrics.json").write_text(json.dumps({"schema": 1, "rows": rows}, indent=1))
        cells.append(Cell(arm, seed, run_id, (f"seed={seed}",), 6400))
    manifest = StudyManifest(
        name="large",
        question="",
        revision=1,
        protocol="standard",
        split="test",
        metrics=tuple(StudyMetric(name, "primary" if name == "psnr" else "secondary", "max") for name in names[:4]),
        arms=tuple(Arm(arm, arm, {"arm": arm}, (), index == 0) for index, arm in enumerate(arms)),
        cells=tuple(cells),
        seeds=tuple(range(min(SEEDS, count))),
        design="list",
        budget="equal",
    )
    manifest.save(out / "large")


def main(counts: list[int]) -> None:
    """Print one line a size."""
    print(f"{'runs':>7} {'rows':>8} {'import':>8} {'load':>8} {'table':>8} {'peak GiB':>9}   seconds")
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            write_study(Path(folder), count)
            subprocess.run([sys.executable, "-c", LOAD, folder], check=True)


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [100, 1000, 10_000])
