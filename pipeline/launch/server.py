"""The fork server: a process that has imported torch once and forks a fresh, isolated process for every job.

Importing torch costs seconds, forking milliseconds. The server never touches CUDA and never computes, so its children start
clean. It speaks JSON lines: requests on stdin (`{"job": ...}`, `{"stop": RUN_ID, "signal": N}`), events on stdout
(`{"event": "ready"|"started"|"ended", ...}`). When its driver goes away (end of stdin, also after `kill -9`), it asks all jobs
to stop at a checkpoint, and ends when they have. Should it be killed itself, the kernel sends its jobs SIGTERM.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import selectors
import signal
import sys
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from pipeline.launch.entry import run_job
from pipeline.launch.job import EXIT_FAILED, EXIT_PREEMPTED, Job

MESSAGE_BYTES = 2000  # of a job's last words; below PIPE_BUF, so one write never blocks
_PR_SET_PDEATHSIG = 1  # source: linux/prctl.h


@dataclass
class _Child:
    run_id: str
    words: int  # read end of the pipe that carries the job's last words


@dataclass
class _Server:
    requests: int  # file descriptor
    events: int  # file descriptor
    children: dict[int, _Child] = field(default_factory=dict)
    pending: bytes = b""
    closing: bool = False

    def tell(self, **event: Any) -> None:
        with contextlib.suppress(BrokenPipeError):  # the driver is gone; end of stdin says so too
            os.write(self.events, (json.dumps(event) + "\n").encode())

    def serve(self) -> None:
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        os.set_blocking(wake_read, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.signal(signal.SIGTERM, lambda number, frame: self._close())
        selector = selectors.DefaultSelector()
        selector.register(self.requests, selectors.EVENT_READ)
        selector.register(wake_read, selectors.EVENT_READ)
        self.tell(event="ready", pid=os.getpid())
        while not (self.closing and not self.children):
            for key, _ in selector.select(timeout=1.0):
                if key.fd == wake_read:
                    with contextlib.suppress(BlockingIOError):
                        os.read(wake_read, 4096)
                elif not self._receive():
                    selector.unregister(self.requests)
                    self._close()
            self._reap()

    def _receive(self) -> bool:
        chunk = os.read(self.requests, 1 << 20)
        if not chunk:
            return False
        *lines, self.pending = (self.pending + chunk).split(b"\n")
        for line in lines:
            request = json.loads(line)
            if "job" in request:
                self._fork(Job(**request["job"]))
            else:
                self._stop(request["stop"], request["signal"])
        return True

    def _fork(self, job: Job) -> None:
        words_read, words_write = os.pipe()
        server = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        # held back until the job has handlers of its own: in the server's, its request to stop would be lost
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGUSR1))
        pid = os.fork()
        if pid == 0:
            status = EXIT_FAILED
            try:
                os.close(words_read)
                self._become_job(job, server)
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
                status, message = run_job(job)
                os.write(words_write, message.encode()[:MESSAGE_BYTES])
            except BaseException:
                traceback.print_exc()
                raise
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)  # never fall back into the server's loop
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(words_write)
        self.children[pid] = _Child(job.run_id, words_read)
        self.tell(event="started", run_id=job.run_id, pid=pid)

    def _become_job(self, job: Job, server: int) -> None:
        """Turn the fork into a process of its own: no ends of the server's pipes, own log, default signals."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle: it asks with SIGTERM
        # until the trainer installs its own handlers nothing has been done that a checkpoint could keep
        signal.signal(signal.SIGTERM, lambda number, frame: os._exit(EXIT_PREEMPTED))
        signal.signal(signal.SIGUSR1, lambda number, frame: os._exit(EXIT_PREEMPTED))
        _die_with_parent(server)
        for child in self.children.values():
            os.close(child.words)
        os.close(self.events)
        log = _open_log(job)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, self.requests)  # stdin
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        os.close(null)

    def _stop(self, run_id: str, number: int) -> None:
        for pid, child in self.children.items():
            if child.run_id == run_id:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    def _close(self) -> None:
        self.closing = True
        for pid in self.children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def _reap(self) -> None:
        while self.children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            child = self.children.pop(pid)
            message = ""  # a process of the job's that outlives it may hold the pipe open, with nothing in it
            os.set_blocking(child.words, False)
            with contextlib.suppress(BlockingIOError):
                message = os.read(child.words, MESSAGE_BYTES).decode(errors="replace")
            os.close(child.words)
            self.tell(event="ended", run_id=child.run_id, status=os.waitstatus_to_exitcode(status), message=message)


def _die_with_parent(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before the kernel was told: no signal will come
        os._exit(EXIT_PREEMPTED)


def _open_log(job: Job) -> int:
    """The run's `log.txt`, opened for appending; a folder that cannot be written is the run's to report, not the log's."""
    path = Path(job.out) / "runs" / job.run_id / "log.txt"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError:
        return os.open(os.devnull, os.O_WRONLY)


def main() -> NoReturn:
    """`python -m pipeline.launch.server MODULE...`: preload the modules, then serve."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    events = os.dup(1)  # stdout proper: whatever the preloaded modules say goes to stderr
    os.dup2(2, 1)
    for module in sys.argv[1:]:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # keep the garbage collector from touching, and so copying, the shared pages
    _Server(requests=0, events=events).serve()
    sys.stderr.flush()
    os._exit(0)  # nothing to clean up; some extension modules would complain about a frozen heap


if __name__ == "__main__":
    main()
