"""The local executor: jobs on this machine, forked from one server that has torch imported."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from typing import Any

from pipeline.errors import RunFailed
from pipeline.launch.job import EXIT_PREEMPTED, Job, JobEnd
from pipeline.launch.resources import Resources

PRELOAD = ("pipeline.launch.preload", "pipeline.launch.entry")


def preload_for(entry: str, usual: str) -> tuple[str, ...]:
    """What the server imports: all of training for the `usual` entry, the module of any other one alone."""
    return PRELOAD if entry == usual else (entry.partition(":")[0],)


class LocalExecutor:
    """Runs up to `resources.jobs` jobs at once. Start-up costs an import of torch once, a fork per job."""

    def __init__(self, resources: Resources, *, preload: tuple[str, ...] = PRELOAD) -> None:
        self.slots = resources.jobs
        self._resources = resources
        self._preload = preload
        self._server: subprocess.Popen[bytes] | None = None
        self._selector = selectors.DefaultSelector()
        self._pending = b""
        self._running: dict[str, int] = {}  # run id -> pid, 0 until the server says
        self._ended: list[JobEnd] = []
        self._ready = False

    def submit(self, job: Job) -> None:
        """Start `job` in a fork of the server, which is started first if need be."""
        if self._server is None:
            self._start()
        job = self._resources.assign(job)
        self._running[job.run_id] = 0
        self._request(job=dataclasses.asdict(job))

    def poll(self, timeout_s: float) -> list[JobEnd]:
        deadline = time.monotonic() + timeout_s
        while not self._ended and self._server is not None:
            wait = deadline - time.monotonic()
            if not self._selector.select(timeout=max(0.0, wait)):
                break
            self._receive()
        if self._server is None and timeout_s > 0 and not self._ended:
            time.sleep(timeout_s)
        ended, self._ended = self._ended, []
        return ended

    def stop(self, run_id: str) -> None:
        self._signal(run_id, signal.SIGTERM)

    def kill(self, run_id: str) -> None:
        self._signal(run_id, signal.SIGKILL)

    def close(self) -> None:
        """End of requests: the server asks its jobs to stop and ends when they have."""
        server = self._server
        if server is None:
            return
        assert server.stdin is not None and server.stdout is not None, "both are pipes"
        with contextlib.suppress(BrokenPipeError):
            server.stdin.close()
        try:
            server.wait(timeout=60)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        self._forget()

    # -- the server ------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "pipeline.launch.server", *self._preload],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": str(self._resources.threads)},
            start_new_session=True,  # Ctrl-C reaches the driver alone, which then asks the jobs to stop
        )
        assert self._server.stdout is not None, "stdout is a pipe"
        os.set_blocking(self._server.stdout.fileno(), False)
        self._selector.register(self._server.stdout, selectors.EVENT_READ)
        self._pending = b""
        self._ready = False

    def _request(self, **request: Any) -> None:
        assert self._server is not None and self._server.stdin is not None, "the server is running"
        with contextlib.suppress(BrokenPipeError):  # it died: `poll` sees the end of its events
            self._server.stdin.write((json.dumps(request) + "\n").encode())
            self._server.stdin.flush()

    def _receive(self) -> None:
        assert self._server is not None and self._server.stdout is not None, "the server is running"
        chunk = os.read(self._server.stdout.fileno(), 1 << 20)
        if not chunk:
            self._lost()
            return
        *lines, self._pending = (self._pending + chunk).split(b"\n")
        for line in lines:
            event = json.loads(line)
            if event["event"] == "ready":
                self._ready = True
            elif event["event"] == "started":
                self._running[event["run_id"]] = event["pid"]
            else:
                self._end(JobEnd(event["run_id"], event["status"], event["message"]))

    def _lost(self) -> None:
        """The server has died: so do its jobs (at a checkpoint, by SIGTERM). The next job starts a new server."""
        assert self._server is not None, "the server was running"
        status = self._server.wait()
        if not self._ready:
            self._forget()
            raise RunFailed(
                f"the process that starts runs ended with status {status} while loading; its message is above"
            )
        for run_id in list(self._running):
            self._end(JobEnd(run_id, EXIT_PREEMPTED, f"the process that starts runs ended with status {status}"))
        self._forget()

    def _end(self, end: JobEnd) -> None:
        if self._running.pop(end.run_id, None) is not None:
            self._resources.release(end.run_id)
            self._ended.append(end)

    def _signal(self, run_id: str, number: signal.Signals) -> None:
        if self._server is not None and run_id in self._running:
            self._request(stop=run_id, signal=int(number))

    def _forget(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            assert server.stdin is not None and server.stdout is not None, "both are pipes"
            self._selector.unregister(server.stdout)
            server.stdout.close()
            with contextlib.suppress(BrokenPipeError):
                server.stdin.close()
