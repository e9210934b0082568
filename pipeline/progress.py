"""Progress of long work: a bar on a terminal, plain lines at intervals elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Protocol, TextIO

LINE_INTERVAL_S = 10.0


class Progress(Protocol):
    """What long work reports to."""

    def start(self, what: str, total: int) -> None:
        """Begin a phase of `total` steps; ends the phase before."""

    def update(self, done: int, **numbers: float) -> None:
        """`done` steps of the phase are complete; `numbers` are shown beside."""

    def say(self, text: str) -> None:
        """One line that stays."""

    def stop(self) -> None:
        """End the phase."""


class Quiet:
    """Reports nothing."""

    def start(self, what: str, total: int) -> None:
        pass

    def update(self, done: int, **numbers: float) -> None:
        pass

    def say(self, text: str) -> None:
        pass

    def stop(self) -> None:
        pass


class Lines:
    """Plain lines, at most one every `LINE_INTERVAL_S` and one at the end of a phase: for logs and pipes."""

    def __init__(self, stream: TextIO | None = None, prefix: str = "") -> None:
        self._stream = stream or sys.stderr
        self._prefix = prefix
        self._what = ""
        self._total = self._done = self._shown = 0
        self._numbers: dict[str, float] = {}
        self._began = self._last = 0.0

    def start(self, what: str, total: int) -> None:
        self.stop()
        self._what, self._total, self._done, self._shown = what, total, 0, 0
        self._began = self._last = time.monotonic()

    def update(self, done: int, **numbers: float) -> None:
        self._done, self._numbers = done, numbers
        if time.monotonic() - self._last >= LINE_INTERVAL_S:
            self._line()

    def say(self, text: str) -> None:
        print(f"{self._prefix}{text}", file=self._stream, flush=True)

    def stop(self) -> None:
        if self._what and self._done > self._shown:
            self._line()
        self._what = ""

    def _line(self) -> None:
        self._last, self._shown = time.monotonic(), self._done
        elapsed = self._last - self._began
        left = elapsed / max(1, self._done) * (self._total - self._done)
        eta = f", {left:.0f} s left" if self._done < self._total else f", {elapsed:.1f} s"
        self.say(f"{self._what} {self._done}/{self._total}{_numbers_text(self._numbers)}{eta}")


class Bar:
    """A bar on a terminal."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._rich = RichProgress(
            TextColumn("{task.description:<24}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}"),
        )
        self._task: Any = None

    def start(self, what: str, total: int) -> None:
        self._rich.start()
        self._task = self._rich.add_task(what, total=total, numbers="")

    def update(self, done: int, **numbers: float) -> None:
        if self._task is not None:
            self._rich.update(self._task, completed=done, numbers=_numbers_text(numbers))

    def say(self, text: str) -> None:
        self._rich.console.print(text, markup=False, highlight=False)

    def stop(self) -> None:
        self._rich.stop()
        self._task = None


class shown:  # noqa: N801 - reads as a statement: `with shown() as progress`
    """Context manager: the kind of progress that suits the stream, ended with the block."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._progress: Progress = Bar() if (stream or sys.stderr).isatty() else Lines(stream)

    def __enter__(self) -> Progress:
        return self._progress

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()


def _numbers_text(numbers: dict[str, float]) -> str:
    return "".join(f"  {name} {value:.4g}" for name, value in numbers.items())
