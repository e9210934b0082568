"""Long work shows that it lives: in silence at first, then through whoever is in charge."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest

from pipeline import progress
from pipeline.errors import RunFailed
from pipeline.progress import Lines, LongStep, in_charge
from pipeline.records import RunRecord
from pipeline.runs.preemption import Stoppable, StopRequest
from tests.pipeline.tiny import run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_long_step_is_silent_at_first_then_says_how_far_and_how_long(clock: list[float]) -> None:
    stream = io.StringIO()
    with in_charge(Lines(stream)):
        step = LongStep("drawing faces", 100)
        for done, at in ((1, 100.1), (10, 101.9), (20, 102.1), (50, 105.0), (60, 112.2), (100, 120.0)):
            clock[0] = at
            step.update(done)
    assert stream.getvalue().splitlines() == [
        "drawing faces 20/100, about 8 s left",
        "drawing faces 60/100, about 8 s left",
        "drawing faces 100/100, 20 s",
    ]


def test_a_short_step_says_nothing(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    step = LongStep("drawing faces", 3)
    for done in (1, 2, 3):
        step.update(done)
    assert capsys.readouterr() == ("", "")


def test_with_nobody_in_charge_it_speaks_on_stderr(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    step = LongStep("reading files", 4)
    clock[0] += 4
    step.update(2)
    assert capsys.readouterr().err == "reading files 2/4, about 4 s left\n"


def test_what_a_run_does_beside_training_reaches_its_record(clock: list[float]) -> None:
    beats: list[str] = []
    stop = StopRequest()
    working = Stoppable(Lines(io.StringIO()), stop, beats.append)
    working.start("segmenter, once for all runs here:", 600)
    working.update(3)  # within the same five seconds: not told
    clock[0] += 6
    working.update(40)
    assert beats == ["segmenter, once for all runs here:", "segmenter, once for all runs here: 40/600"]
    stop.name = "SIGTERM"
    with pytest.raises(RunFailed, match="stopped by SIGTERM while evaluating"):
        working.update(41)


def test_preparing_what_runs_share_is_said_in_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE_S", 0.0)
    monkeypatch.setattr("pipeline.runs.preemption.HEARTBEAT_S", -1.0)
    seen: list[str] = []
    beat = RunRecord.beat

    def noted(record: RunRecord, iteration: int, iterations: int, doing: str = "") -> None:
        beat(record, iteration, iterations, doing)
        seen.append(record.status["progress"]["doing"])

    monkeypatch.setattr(RunRecord, "beat", noted)
    run(tmp_path)
    assert any(text.startswith("preparing samples, once for all runs here: 12/12") for text in seen)
    assert "evaluate 4/4" in seen and "" in seen  # "": it trains
