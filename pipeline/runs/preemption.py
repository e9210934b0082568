"""Being asked to stop: SIGTERM and SIGUSR1 (a scheduler's preemption) end a run at a checkpoint, to be started again."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from pipeline.errors import RunFailed
from pipeline.progress import Progress

HEARTBEAT_S = 5.0
EXIT_PREEMPTED = 75  # EX_TEMPFAIL: stopped at a checkpoint, start again to continue
PREEMPTION = (signal.SIGTERM, signal.SIGUSR1)  # what a scheduler sends to a run


class Preempted(RunFailed):
    """The run was asked to stop, has saved a checkpoint, and can be started again."""

    exit_status = EXIT_PREEMPTED


class StopRequest:
    """Set by a signal: whoever holds it stops at the next good moment. An `impatient` one takes the second as an interrupt."""

    def __init__(self, *, impatient: bool = False) -> None:
        self.name = ""
        self.impatient = impatient

    @property
    def asked(self) -> bool:
        return bool(self.name)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.asked and self.impatient:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name


class Stoppable:
    """Progress that ends the work it is told about, once a stop is asked for: between two steps, which are kept on disk.

    `beat` is told what is being done, at most every `HEARTBEAT_S`: whoever watches the record from outside sees it.
    """

    def __init__(self, progress: Progress, stop: StopRequest, beat: Callable[[str], None]) -> None:
        self._progress, self._stop, self._beat = progress, stop, beat
        self._what, self._total, self._beaten = "", 0, 0.0

    def start(self, what: str, total: int) -> None:
        self._progress.start(what, total)
        self._what, self._total = what, total
        self._tell(what)

    def update(self, done: int, **numbers: float) -> None:
        self._progress.update(done, **numbers)
        self._tell(f"{self._what} {done}/{self._total}")
        if self._stop.asked:
            raise Preempted(f"stopped by {self._stop.name} while evaluating; run again to continue")

    def say(self, text: str) -> None:
        self._progress.say(text)
        self._tell(text)

    def _tell(self, text: str) -> None:
        if time.monotonic() - self._beaten > HEARTBEAT_S:
            self._beaten = time.monotonic()
            self._beat(text)

    def stop(self) -> None:
        self._progress.stop()


@contextmanager
def stop_signals(numbers: tuple[signal.Signals, ...] = PREEMPTION, *, impatient: bool = False) -> Iterator[StopRequest]:
    """Turn these signals into a request while the block runs; only a main thread can."""
    stop = StopRequest(impatient=impatient)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
