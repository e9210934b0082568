"""What runs at the same time, what is cut off and what is finished: with networks that wait where a test tells them to."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.config import compose
from pipeline.models.contract import Generator, Synthesis
from pipeline.paint.lanes import Jobs, Lane, Overtaken, as_they_end
from pipeline.paint.studio import Arm
from pipeline.records import RunStore
from tests.pipeline.tiny import TINY


class Stage(nn.Module):
    """Says that it has begun, and waits until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go = threading.Event(), threading.Event()

    def forward(self, x: Tensor) -> Tensor:
        self.begun.set()
        assert self.go.wait(10)
        return x


class Slow(Generator):
    """Two stages."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Stage(), Stage()

    def synthesize(self, mask: Tensor, style: Tensor, *, attention: bool = True) -> Synthesis:
        return Synthesis(self.second(self.first(mask)))

    def go(self) -> None:
        self.first.go.set()
        self.second.go.set()


def slow_lane(tmp_path: Path) -> tuple[Lane, Slow]:
    generator, config = Slow(), compose([*TINY])
    record = RunStore(tmp_path / "runs").record("0" * 64)
    return Lane(Arm(record, generator, config, torch.device("cpu"), ()), 1), generator


def draw(arm: Arm) -> str:
    arm.generator.synthesize(torch.zeros(1), torch.zeros(1))
    return "drawn"


async def begun(stage: Stage) -> None:
    assert await asyncio.to_thread(stage.begun.wait, 10)


@pytest.mark.parametrize(("final", "kept"), [(True, False), (False, True)])
def test_the_end_of_a_stroke_cuts_off_what_runs_and_its_middle_does_not(
    tmp_path: Path, final: bool, kept: bool
) -> None:
    lane, generator = slow_lane(tmp_path)
    jobs = Jobs()

    async def scene() -> Any:
        with jobs.job("page", 1, yields=False) as job:
            task = asyncio.ensure_future(lane.do(draw, job))
            await begun(generator.first)
            jobs.arrived("another", 9, final=True)
            jobs.arrived("page", 2, final=final)
            generator.go()
            return (await asyncio.gather(task, return_exceptions=True))[0]

    found = asyncio.run(scene())
    assert found == "drawn" if kept else isinstance(found, Overtaken)
    assert generator.second.begun.is_set() == kept, "a pass that is cut off ends before its next module"


def test_looking_yields_to_every_newer_state_and_saving_to_none(tmp_path: Path) -> None:
    lane, generator = slow_lane(tmp_path)
    jobs = Jobs()

    async def scene() -> list[Any]:
        with jobs.job("page", 1, yields=True) as job:
            looking = asyncio.ensure_future(lane.do(draw, job))
            saving = asyncio.ensure_future(lane.do(draw))
            await begun(generator.first)
            jobs.arrived("page", 2, final=False)
            generator.go()
            return list(await asyncio.gather(looking, saving, return_exceptions=True))

    looked, saved = asyncio.run(scene())
    assert isinstance(looked, Overtaken) and saved == "drawn"


def test_what_waits_for_its_turn_is_dropped_in_the_middle_of_a_stroke_too(tmp_path: Path) -> None:
    lane, generator = slow_lane(tmp_path)
    jobs, done = Jobs(), []

    async def scene() -> list[Any]:
        with jobs.job("page", 1, yields=False) as first, jobs.job("page", 2, yields=False) as second:
            tasks = [asyncio.ensure_future(lane.do(lambda arm: done.append(draw(arm)), job)) for job in (first, second)]
            await begun(generator.first)
            jobs.arrived("page", 3, final=False)
            generator.go()
            return list(await asyncio.gather(*tasks, return_exceptions=True))

    found = asyncio.run(scene())
    assert found[0] is None and isinstance(found[1], Overtaken) and done == ["drawn"]
    with pytest.raises(Overtaken), jobs.job("page", 2, yields=False):
        pass


def test_two_runs_draw_at_the_same_time_and_the_quicker_one_is_told_first(tmp_path: Path) -> None:
    (slow, waiting), (quick, ready) = slow_lane(tmp_path), slow_lane(tmp_path)
    ready.go()

    async def scene() -> list[str]:
        async def named(lane: Lane, name: str) -> str:
            await lane.do(draw)
            return name

        found = []
        async for name in as_they_end([named(slow, "slow"), named(quick, "quick")]):
            found.append(name)
            waiting.go()
        return found

    assert asyncio.run(scene()) == ["quick", "slow"]


def test_an_error_of_one_run_ends_the_answer_without_waiting_for_the_others(tmp_path: Path) -> None:
    lane, generator = slow_lane(tmp_path)

    def fail(arm: Arm) -> str:
        raise ValueError("out of paint")

    async def scene() -> float:
        other, _ = slow_lane(tmp_path)
        start = time.monotonic()
        with pytest.raises(ValueError, match="out of paint"):
            async for _ in as_they_end([lane.do(draw), other.do(fail)]):
                pass
        return time.monotonic() - start

    assert asyncio.run(scene()) < 5
    generator.go()
