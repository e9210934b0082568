"""Who computes when: a worker of its own for each run, and what is cut off because the page has painted on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from pipeline.paint.studio import Arm

MOST_PAGES = 32  # whose newest state is remembered
T = TypeVar("T")


class Overtaken(Exception):
    """Nobody waits for this any more: the page has painted on."""


@dataclass(eq=False)
class Job:
    """Work for one state of one page."""

    page: str
    number: int  # of the state; a page counts up
    yields: bool  # whether any newer state cuts it off, be it in the middle of a stroke
    begun: bool = False
    cut: bool = False


class Lane:
    """The one thread that a run belongs to: torch counts its threads by thread, and equal counts give equal pictures.

    A pass that is cut off ends before its next module, which is milliseconds away.
    """

    def __init__(self, arm: Arm, threads: int) -> None:
        self.arm = arm
        self._worker = one_worker(threads)
        self._job: Job | None = None  # under way
        for module in arm.generator.modules():
            module.register_forward_pre_hook(self._between_modules)

    async def do(self, work: Callable[[Arm], T], job: Job | None = None) -> T:
        """Result of `work` in its turn. Overtaken where its job was cut before its end; without a job it never is."""

        def unless_cut() -> T:
            if job is not None:
                job.begun = True
                if job.cut:
                    raise Overtaken
            self._job = job
            try:
                return work(self.arm)
            finally:
                self._job = None

        return await asyncio.get_running_loop().run_in_executor(self._worker, unless_cut)

    def _between_modules(self, module: nn.Module, inputs: Any) -> None:
        if self._job is not None and self._job.cut:
            raise Overtaken


class Jobs:
    """What is asked and not yet answered, and the newest state of each page."""

    def __init__(self) -> None:
        self._open: set[Job] = set()
        self._newest: dict[str, int] = {}

    def arrived(self, page: str, number: int, *, final: bool) -> None:
        """A page has a newer state: what waits for an older one is dropped, and so is what computes it if the stroke is over.

        In the middle of a stroke what has begun is finished, so that pictures keep coming while one paints.
        """
        self._newest[page] = max(number, self._newest.pop(page, 0))
        if len(self._newest) > MOST_PAGES:
            del self._newest[next(iter(self._newest))]
        for job in self._open:
            if job.page == page and job.number < number and (final or job.yields or not job.begun):
                job.cut = True

    @contextlib.contextmanager
    def job(self, page: str, number: int, *, yields: bool) -> Iterator[Job]:
        """A job as long as somebody waits for its answer. Overtaken at once where the page has a newer state."""
        if self._newest.get(page, 0) > number:
            raise Overtaken
        job = Job(page, number, yields)
        self._open.add(job)
        try:
            yield job
        finally:
            job.cut = True  # a page that was closed waits no longer
            self._open.discard(job)


def one_worker(threads: int) -> ThreadPoolExecutor:
    """One thread, in which torch computes on `threads`."""
    return ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(threads,))


async def as_they_end(parts: Sequence[Coroutine[Any, Any, T]]) -> AsyncGenerator[T, None]:
    """Results of coroutines that run at the same time, the quickest first. The first error ends it; no other is heard of."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        for task in asyncio.as_completed(tasks):
            yield await task
    finally:
        for left in tasks:
            left.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
