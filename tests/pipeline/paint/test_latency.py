"""How long a stroke takes to its pictures: two runs at 64 pixels on two cores, in a real browser. Prints what it finds.

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
SETTLED = "document.body.dataset.state === 'settled'"
# Times of pointer events as the browser stamps them, beside what the page says of itself.
LISTEN = """
window.pointer = {down: 0, last: 0};
const map = document.getElementById('map');
map.addEventListener('pointerdown', (event) => { pointer.down = pointer.last = event.timeStamp; });
map.addEventListener('pointermove', (event) => { if (event.buttons) pointer.last = event.timeStamp; });
"""
SAID = (
    "[...['latency', 'server', 'painted'].map((key) => Number(document.body.dataset[key])), pointer.down, pointer.last]"
)


@pytest.mark.parametrize("models", [("ca2sis", "sean"), ("ca2sis", "spade")], ids=" and ".join)
def test_every_stroke_at_64_pixels_is_answered_and_timed_from_its_last_event(
    tmp_path: Path, models: tuple[str, str]
) -> None:
    from pipeline.runs.run import execute

    store = RunStore(tmp_path / "out" / "runs")
    records = tuple(execute(resolve([*SMALL, f"model={model}"]), store, progress=Quiet()) for model in models)
    found: dict[str, list[float]] = {}
    with serving(tmp_path / "out", records, threads=2) as served, browser(tmp_path / "profile") as page:
        page.open(served.address)
        page.wait(SETTLED)
        page.evaluate(LISTEN)

        def stroke(name: str, way: list[tuple[float, float]]) -> None:
            page.drag("#map", way)
            page.wait(SETTLED)
            said, server, painted, down, last = page.evaluate(SAID)
            assert painted > last >= down > 0
            assert said == pytest.approx(painted - last, abs=0.3), "the page says what the events say"
            for what, value in ((name, said), ("its server", server), ("from its first event", painted - down)):
                found.setdefault(what if what == name else f"{name}, {what}", []).append(value)

        for number in range(STROKES):
            page.click(f"#classes button:nth-child({1 + number % 19})")
            across = (number + 1) / (STROKES + 2)
            stroke("dab", [(across, 0.3)])
            stroke("end of a dragged stroke", [(x / 5, across) for x in range(1, 5)])
            if number % 4 == 0:
                stroke("end of a long stroke", [(across, x / 24) for x in range(1, 24)])
    for name, values in found.items():
        median, most = statistics.median(values), statistics.quantiles(values, n=20)[-1]
        told = f"{median:.0f} ms (median of {len(values)}), {most:.0f} ms (95 %)"
        print(f"\n{' + '.join(models)}, 64 px, 2 cores: {name} {told}", end="")
    assert len(found["dab"]) == len(found["end of a dragged stroke"]) == STROKES
    assert all(whole >= server for whole, server in zip(found["dab"], found["dab, its server"], strict=True))
