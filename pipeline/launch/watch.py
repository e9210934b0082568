"""Observers of the scheduler: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from pipeline.launch.scheduler import Outcome, Task
from pipeline.progress import duration
from pipeline.records.store import RunRecord

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

LINE_INTERVAL_S = 10.0  # between two lines about one run
REFRESH_S = 0.5  # between two looks at the running records


@dataclass
class _Pace:
    """Iterations seen of one running run, for its rate."""

    name: str
    began: float
    first: int | None = None
    moved_at: float | None = None  # when it was first seen to move
    shown_at: float = 0.0

    def eta_s(self, iteration: int, iterations: int) -> float | None:
        """Seconds left at the pace since the run was first seen to move; None before that: what comes first is preparing."""
        at = time.monotonic()
        if self.first is None:
            self.first = iteration
        if self.moved_at is None and iteration > self.first:
            self.first, self.moved_at = iteration, at
        if self.moved_at is None or iteration <= self.first:
            return None
        return (at - self.moved_at) / (iteration - self.first) * (iterations - iteration)


class NoWatch:
    """Says nothing."""

    def begin(self, total: int) -> None:
        pass

    def started(self, task: Task) -> None:
        pass

    def ended(self, outcome: Outcome) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def tick(self, running: Sequence[tuple[Task, RunRecord]]) -> None:
        pass

    def close(self) -> None:
        pass


class LineWatch(NoWatch):
    """A line when a run starts, every ten seconds while it runs, and when it ends."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._paces: dict[str, _Pace] = {}
        self._total = self._done = self._slots = 0
        self._took: list[float] = []  # seconds of runs that finished here
        self._looked = 0.0
        self._forecast = False

    def begin(self, total: int) -> None:
        self._total = total

    def started(self, task: Task) -> None:
        at = time.monotonic()
        self._paces[task.resolved.run_id] = _Pace(task.name, at, shown_at=at)
        self.note(f"{task.name}: started")

    def ended(self, outcome: Outcome) -> None:
        self._done += 1
        self._paces.pop(outcome.task.resolved.run_id, None)
        if outcome.how == "left":
            return
        reason = f": {outcome.reason}" if outcome.reason else ""
        took = "" if outcome.how == "reused" else f" in {duration(outcome.seconds)}"
        self.note(f"[{self._done}/{self._total}] {outcome.task.name}: {outcome.how}{took}{reason}{self._rest(outcome)}")

    def _rest(self, outcome: Outcome) -> str:
        """What the runs that are not done will take, judged from those that finished here: running ones count as half done."""
        if outcome.how != "finished":
            return ""
        self._took.append(outcome.seconds)
        running = len(self._paces)
        left = self._total - self._done - running / 2
        return f"; about {duration(median(self._took) * left / max(1, self._slots))} to go" if left > 0 else ""

    def note(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def tick(self, running: Sequence[tuple[Task, RunRecord]]) -> None:
        at = time.monotonic()
        if at - self._looked < REFRESH_S:
            return
        self._looked = at
        self._slots = max(self._slots, len(running))
        for task, record in running:
            self.look(task, record, at)

    def look(self, task: Task, record: RunRecord, at: float) -> None:
        """Say how far one run is, if it is time to."""
        pace = self._paces[task.resolved.run_id]
        iteration, iterations = progress_of(record)
        eta = pace.eta_s(iteration, iterations)
        self._say_forecast(pace, eta, at)
        if at - pace.shown_at >= LINE_INTERVAL_S:
            pace.shown_at = at
            left = f", about {duration(eta)} left" if eta is not None else ""
            where = f"iteration {iteration}/{iterations}" if iterations else "preparing"
            self.note(f"{task.name}: {doing_of(record) or where + left}")

    def _say_forecast(self, pace: _Pace, eta_s: float | None, at: float) -> None:
        """Once, ten seconds into the first run that has a pace: what all runs will take on this machine."""
        left = self._total - self._done
        if self._forecast or eta_s is None or pace.moved_at is None or at - pace.moved_at < LINE_INTERVAL_S or left < 2:
            return
        self._forecast = True
        seconds = (at - pace.began + eta_s) * left / max(1, self._slots)
        self.note(
            f"{left} runs, {self._slots} at once: about {duration(seconds)} of training at the pace of the first, then evaluation"
        )


class BarWatch(LineWatch):
    """A bar for every running run and one for the whole, lines for what has ended."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._progress = Progress(
            TextColumn("{task.description:<34}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
        )
        self._bars: dict[str, TaskID] = {}

    def begin(self, total: int) -> None:
        super().begin(total)
        self._all = self._progress.add_task("runs", total=total, left="")
        self._progress.start()

    def started(self, task: Task) -> None:
        at = time.monotonic()
        self._paces[task.resolved.run_id] = _Pace(task.name, at, shown_at=at)
        self._bars[task.resolved.run_id] = self._progress.add_task(task.name, total=None, left="starting")

    def ended(self, outcome: Outcome) -> None:
        bar = self._bars.pop(outcome.task.resolved.run_id, None)
        if bar is not None:
            self._progress.remove_task(bar)
        super().ended(outcome)
        self._progress.update(self._all, completed=self._done)

    def look(self, task: Task, record: RunRecord, at: float) -> None:
        iteration, iterations = progress_of(record)
        pace = self._paces[task.resolved.run_id]
        eta = pace.eta_s(iteration, iterations)
        self._say_forecast(pace, eta, at)
        left = doing_of(record) or (f"{duration(eta)} left" if eta is not None else "preparing")
        bar = self._bars[task.resolved.run_id]
        self._progress.update(bar, completed=iteration, total=iterations or None, left=left)

    def close(self) -> None:
        self._progress.stop()


def observer_for(console: Console) -> LineWatch:
    """Bars on a terminal, lines elsewhere."""
    return BarWatch(console) if console.is_terminal else LineWatch(console)


def progress_of(record: RunRecord) -> tuple[int, int]:
    """(iteration, iterations) as the run last said; (0, 0) before it said anything."""
    progress = record.status["progress"]
    return (progress["iteration"], progress["iterations"]) if progress else (0, 0)


def doing_of(record: RunRecord) -> str:
    """What the run is doing where that is not training, "" while it trains (and of records from before it was said)."""
    progress = record.status["progress"]
    return str(progress.get("doing", "")) if progress else ""
