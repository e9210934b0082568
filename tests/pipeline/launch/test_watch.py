"""What a driver says of the time left."""

from __future__ import annotations

import pytest

from pipeline.launch import watch


def test_preparing_is_no_part_of_a_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run stands at 0 while it prepares for a minute, then makes two updates a second: 5,980 are left after 20."""
    clock = 1000.0
    monkeypatch.setattr(watch.time, "monotonic", lambda: clock)
    pace = watch._Pace("run", clock)
    assert [pace.eta_s(0, 6000), pace.eta_s(0, 6000)] == [None, None]
    clock += 60
    assert pace.eta_s(0, 6000) is None
    clock += 0.5
    assert pace.eta_s(1, 6000) is None, "where it starts to move is where the pace is measured from"
    clock += 9.5
    assert pace.eta_s(20, 6000) == pytest.approx(5980 / 2)
