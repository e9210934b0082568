"""Progress of long work: a bar on a terminal, plain lines at intervals elsewhere; a sign of life where neither is there yet."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, TextIO

LINE_INTERVAL_S = 10.0
PATIENCE_S = 2.0  # what people wait for without a word
ERASE = "\r\x1b[2K"  # back to the start of the terminal's line, and clear it


def duration(seconds: float) -> str:
    """A time for people: 42 s, 3 min 05 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


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
        eta = f", {duration(left)} left" if self._done < self._total else f", {elapsed:.1f} s"
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


_in_charge: ContextVar[Progress | None] = ContextVar("progress", default=None)


@contextmanager
def shown(stream: TextIO | None = None) -> Iterator[Progress]:
    """The kind of progress that suits the stream, in charge of the block and ended with it."""
    progress: Progress = Bar() if (stream or sys.stderr).isatty() else Lines(stream)
    try:
        with in_charge(progress):
            yield progress
    finally:
        progress.stop()


@contextmanager
def in_charge(progress: Progress) -> Iterator[None]:
    """While the block runs, long steps far below it speak through `progress`."""
    before = _in_charge.set(progress)
    try:
        yield
    finally:
        _in_charge.reset(before)


class LongStep:
    """A step inside other work that may take long: silent at first, then a line at intervals, and one at the end.

    It speaks through the progress in charge, else on stderr: whoever decodes photos or reads files knows no progress of the run
    it does so for. A phase in progress goes on undisturbed.
    """

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total = what, total
        self._began = time.monotonic()
        self._next = self._began + PATIENCE_S
        self._spoken = False

    def update(self, done: int) -> None:
        """`done` of `total` are complete."""
        at = time.monotonic()
        if at < self._next and not (self._spoken and done == self._total):
            return
        self._next, self._spoken = at + LINE_INTERVAL_S, True
        took = at - self._began
        left = (
            f", about {duration(took / max(1, done) * (self._total - done))} left"
            if done < self._total
            else f", {took:.0f} s"
        )
        (_in_charge.get() or Lines()).say(f"{self._what} {done}/{self._total}{left}")


@contextmanager
def alive(what: str) -> Iterator[None]:
    """While the block prints nothing for `PATIENCE_S`, the terminal says that `what` is at work, and for how long.

    Imports of large libraries, planning, statistics: whatever knows no number of steps. The line goes away before anything else is
    printed. Where stderr is no terminal, nothing is said.
    """
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield
        return
    before = sys.stdout, sys.stderr
    watch = _Watch(what, sys.stderr)
    sys.stdout, sys.stderr = (_Watched(stream, watch) for stream in before)  # type: ignore[assignment]
    watch.start()
    try:
        yield
    finally:
        watch.end()
        sys.stdout, sys.stderr = before


class _Watch(threading.Thread):
    """Counts the seconds in which no watched stream is written to, on `terminal`."""

    def __init__(self, what: str, terminal: TextIO) -> None:
        super().__init__(daemon=True)
        self._what, self._terminal, self._owner = what, terminal, os.getpid()
        self._lock = threading.RLock()  # a signal's handler may print while its thread does
        self._over = threading.Event()
        self._began = self._heard = time.monotonic()
        self._shown, self._line_begun = False, False

    def run(self) -> None:
        while not self._over.wait(PATIENCE_S / 4):
            with self._lock:
                now = time.monotonic()
                if now - self._heard >= PATIENCE_S and not self._line_begun:
                    self._shown = True
                    self._write(f"{ERASE}{self._what} is at work, {now - self._began:.0f} s")

    def hear(self, text: str) -> None:
        """`text` is about to be printed: make room."""
        if os.getpid() != self._owner:  # a forked child has the streams, but not this thread
            return
        with self._lock:
            self._heard = time.monotonic()
            self._line_begun = not text.endswith("\n") if text else self._line_begun
            if self._shown:
                self._shown = False
                self._write(ERASE)

    def end(self) -> None:
        """No more signs of life."""
        self._over.set()
        self.hear("\n")

    def _write(self, text: str) -> None:
        self._terminal.write(text)
        self._terminal.flush()


class _Watched:
    """A text stream that tells a watch what is written to it."""

    def __init__(self, stream: TextIO, watch: _Watch) -> None:
        self._stream, self._watch = stream, watch

    def write(self, text: str) -> int:
        self._watch.hear(text)
        return self._stream.write(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _numbers_text(numbers: dict[str, float]) -> str:
    return "".join(f"  {name} {value:.4g}" for name, value in numbers.items())
