"""How long a stroke takes to its pictures: two runs at 64 pixels on two threads, in a real browser. Prints what it finds.

    python -m pytest -s -m slow tests/pipeline/paint/test_latency.py

Figures count on a quiet machine alone; docs/editing.md holds them. Every stroke must be answered; how fast is printed, not
asserted: it belongs to the machine.
"""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from pipeline.config import resolve
from pipeline.progress import Quiet
from pipeline.records import RunStore
from tests.browser import CHROMIUM, browser
from tests.pipeline.paint.conftest import serving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (apt-get install chromium)"),
]

SMALL = (
    "preset=small", "data.train_images=4", "data.val_images=2", "data.test_images=2", "train.iterations=1",
    "train.batch_size=2", "train.validate_images=2", "protocol=quick", "tracking.mode=disabled",
)  # fmt: skip
STROKES = 40


@pytest.mark.parametrize("models", [("ca2sis", "sean"), ("ca2sis", "spade")], ids=" and ".join)
def test_every_stroke_at_64_pixels_is_answered_and_timed(tmp_path: Path, models: tuple[str, str]) -> None:
    from pipeline.runs.run import execute

    store = RunStore(tmp_path / "out" / "runs")
    records = tuple(execute(resolve([*SMALL, f"model={model}"]), store, progress=Quiet()) for model in models)
    with serving(tmp_path / "out", records, threads=2) as served, browser(tmp_path / "profile") as page:
        page.open(served.address)
        page.wait("document.body.dataset.state === 'settled'")
        found: dict[str, list[float]] = {"dab": [], "its server": [], "end of a dragged stroke": []}
        for number in range(STROKES):
            page.click(f"#classes button:nth-child({1 + number % 19})")
            across = (number + 1) / (STROKES + 2)
            page.drag("#map", [(across, 0.3)])
            page.wait("document.body.dataset.state === 'settled'")
            found["dab"].append(float(page.evaluate("document.body.dataset.latency")))
            found["its server"].append(float(page.evaluate("document.body.dataset.server")))
            page.drag("#map", [(0.2, across), (0.4, across), (0.6, across), (0.8, across)])
            page.wait("document.body.dataset.state === 'settled'")
            found["end of a dragged stroke"].append(float(page.evaluate("document.body.dataset.latency")))
    for what, values in found.items():
        median, most = statistics.median(values), statistics.quantiles(values, n=20)[-1]
        print(
            f"\n{' + '.join(models)}, 64 px, 2 threads: {what} {median:.0f} ms (median of {STROKES}), {most:.0f} ms (95 %)",
            end="",
        )
    assert all(len(values) == STROKES and min(values) > 0 for values in found.values())
    assert all(whole >= server for whole, server in zip(found["dab"], found["its server"], strict=True))
