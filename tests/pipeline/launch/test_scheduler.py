"""The scheduler and the fork server, with real processes and a fake trainer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import compose, identify
from pipeline.errors import UserError
from pipeline.launch import stopping
from pipeline.launch.job import Job, JobEnd
from pipeline.launch.local import LocalExecutor
from pipeline.launch.resources import Resources
from pipeline.launch.scheduler import Outcome, Policy, Task, run_tasks
from pipeline.launch.watch import NoWatch
from pipeline.records import RunStore
from pipeline.records.atomic import is_locked

ENTRY = "tests.pipeline.launch.fakes:train"
CONTINUE = Policy.parse("continue")


def tasks(*seeds: int) -> list[Task]:
    config = compose(["preset=tiny", "model=painter"])
    return [Task(f"seed {seed}", identify(config.model_copy(update={"seed": seed}))) for seed in seeds]


@pytest.fixture
def executor() -> Iterator[LocalExecutor]:
    made = LocalExecutor(Resources(2, 1, (), 1, ""), preload=("tests.pipeline.launch.fakes",))
    yield made
    made.close()


def run(
    executor: Any, out: Path, seeds: list[int], policy: Policy = CONTINUE, observer: Any = None, **options: Any
) -> list[Outcome]:
    return run_tasks(tasks(*seeds), out, executor, policy, observer or NoWatch(), entry=ENTRY, options=options)


def trained(out: Path, seed: int) -> list[int]:
    path = out / "runs" / tasks(seed)[0].resolved.run_id / "trained.txt"
    return [int(line) for line in path.read_text().split()]


def test_runs_what_is_missing_and_reuses_what_is_finished(executor: LocalExecutor, tmp_path: Path) -> None:
    first = run(executor, tmp_path, [0, 1, 2])
    assert [outcome.how for outcome in first] == ["finished"] * 3
    assert [trained(tmp_path, seed) for seed in (0, 1, 2)] == [[1, 2, 3]] * 3
    again = run(executor, tmp_path, [0, 1, 2, 3])
    assert [outcome.how for outcome in again] == ["reused", "reused", "reused", "finished"]
    assert trained(tmp_path, 0) == [1, 2, 3], "a finished run is not trained again"
    pids = {RunStore(tmp_path / "runs").record(outcome.task.resolved.run_id).provenance["pid"] for outcome in again}
    assert len(pids) == 4 and os.getpid() not in pids, "every run has a process of its own"


def test_failures_are_kept_apart_and_do_not_stop_the_others(executor: LocalExecutor, tmp_path: Path) -> None:
    plan = {"1": "fail", "2": "crash", "3": "user_error", "4": "diverge", "5": "kill"}
    outcomes = run(executor, tmp_path, [0, 1, 2, 3, 4, 5, 6], plan=plan)
    assert [outcome.how for outcome in outcomes] == [
        "finished", "failed", "failed", "failed", "diverged", "failed", "finished",
    ]  # fmt: skip
    reasons = [outcome.reason for outcome in outcomes]
    assert reasons[1] == "it went wrong"
    assert reasons[2] == "ZeroDivisionError: a bug"
    assert reasons[3] == "no data here"
    assert reasons[4] == "loss is not finite"
    assert reasons[5] == "killed by SIGKILL"
    log = (tmp_path / "runs" / outcomes[2].task.resolved.run_id / "log.txt").read_text()
    assert "Traceback" in log and "a bug" in log
    record = RunStore(tmp_path / "runs").record(outcomes[5].task.resolved.run_id)
    assert record.state == "preempted", "no zombie: a killed run does not read as running"
    assert trained(tmp_path, 5) == [1]
    resumed = run(executor, tmp_path, [0, 4, 5], plan={"4": "diverge"})
    assert [outcome.how for outcome in resumed] == ["reused", "diverged", "finished"]
    assert trained(tmp_path, 5) == [1, 2, 3], "resumed, nothing trained twice"
    attempts = RunStore(tmp_path / "runs").record(resumed[1].task.resolved.run_id).status["attempts"]
    assert len(attempts) == 1, "diverged is a result; it is not run again unless asked"
    asked = run(executor, tmp_path, [4], Policy.parse("continue", again=["diverged"]))
    assert [outcome.how for outcome in asked] == ["finished"]


def test_retry_gives_failed_runs_more_attempts(executor: LocalExecutor, tmp_path: Path) -> None:
    outcomes = run(executor, tmp_path, [0, 1], Policy.parse("retry=2"), plan={"0": "fail_once", "1": "fail"})
    assert [outcome.how for outcome in outcomes] == ["finished", "failed"]
    records = [RunStore(tmp_path / "runs").record(outcome.task.resolved.run_id) for outcome in outcomes]
    assert [len(record.status["attempts"]) for record in records] == [2, 3]


def test_stop_leaves_what_has_not_started(tmp_path: Path) -> None:
    executor = LocalExecutor(Resources(1, 1, (), 1, ""), preload=("tests.pipeline.launch.fakes",))
    try:
        outcomes = run(executor, tmp_path, [0, 1, 2], Policy.parse("stop"), plan={"1": "fail"})
    finally:
        executor.close()
    assert [outcome.how for outcome in outcomes] == ["finished", "failed", "left"]


def test_time_limit_stops_at_a_checkpoint_and_the_next_call_continues(executor: LocalExecutor, tmp_path: Path) -> None:
    policy = Policy("continue", 0, 4.0, frozenset())  # seconds in which a busy machine starts two processes too
    outcomes = run(executor, tmp_path, [0, 1, 2], policy, iterations=2000, pause=0.01)
    assert [outcome.how for outcome in outcomes] == ["preempted", "preempted", "left"]
    assert "time limit" in outcomes[0].reason
    done = len(trained(tmp_path, 0))
    assert 0 < done < 2000
    outcomes = run(executor, tmp_path, [0, 1], iterations=done + 5)
    assert [outcome.how for outcome in outcomes] == ["finished", "finished"]
    assert trained(tmp_path, 0) == list(range(1, done + 6))


def test_preempted_from_outside_resumes_by_itself(executor: LocalExecutor, tmp_path: Path) -> None:
    class Interfere(NoWatch):
        sent = False

        def tick(self, running: Any) -> None:
            for _, record in running:
                if not self.sent and record.status["progress"]:
                    os.kill(record.status["attempts"][-1]["pid"], signal.SIGTERM)
                    self.sent = True

    observer = Interfere()
    outcomes = run(executor, tmp_path, [0], observer=observer, iterations=60, pause=0.02)
    assert observer.sent and outcomes[0].how == "finished"
    assert trained(tmp_path, 0) == list(range(1, 61))
    record = RunStore(tmp_path / "runs").record(outcomes[0].task.resolved.run_id)
    assert [attempt["outcome"] for attempt in record.status["attempts"]] == ["preempted", "finished"]


def test_two_drivers_share_a_study(tmp_path: Path) -> None:
    """Both report every run as had; each run is trained once."""
    results: dict[str, list[Outcome]] = {}

    def drive(name: str) -> None:
        executor = LocalExecutor(Resources(1, 1, (), 1, ""), preload=("tests.pipeline.launch.fakes",))
        try:
            results[name] = run(executor, tmp_path, [0, 1, 2, 3], iterations=10, pause=0.02)
        finally:
            executor.close()

    drivers = [threading.Thread(target=drive, args=(name,)) for name in ("a", "b")]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join(timeout=60)
    for name in ("a", "b"):
        assert {outcome.how for outcome in results[name]} <= {"finished", "reused"}
    assert [trained(tmp_path, seed) for seed in range(4)] == [list(range(1, 11))] * 4


def test_what_another_driver_ended_meanwhile_is_not_started(tmp_path: Path) -> None:
    """A second driver ends two runs while the first one's only slot is taken: neither is carried out again."""

    class Meanwhile(NoWatch):
        other: list[str] | None = None

        def tick(self, running: Any) -> None:
            if self.other is None and any(record.status["progress"] for _, record in running):
                second = LocalExecutor(Resources(1, 1, (), 1, ""), preload=("tests.pipeline.launch.fakes",))
                self.other = [outcome.how for outcome in run(second, tmp_path, [1, 2], plan={"1": "diverge"})]
                second.close()

    first = LocalExecutor(Resources(1, 1, (), 1, ""), preload=("tests.pipeline.launch.fakes",))
    observer = Meanwhile()
    try:
        outcomes = run(first, tmp_path, [0, 1, 2], observer=observer, plan={"1": "diverge"}, iterations=20, pause=0.02)
    finally:
        first.close()
    assert observer.other == ["diverged", "finished"]
    assert [outcome.how for outcome in outcomes] == ["finished", "diverged", "reused"]
    records = [RunStore(tmp_path / "runs").record(outcome.task.resolved.run_id) for outcome in outcomes]
    assert [len(record.status["attempts"]) for record in records] == [1, 1, 1]


def test_a_run_that_does_not_stop_is_killed_and_can_be_resumed(
    executor: LocalExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "GRACE_S", 0.5)
    policy = Policy("continue", 0, 1.5, frozenset())
    outcomes = run(executor, tmp_path, [0], policy, plan={"0": "deaf"}, iterations=3000, pause=0.01)
    assert [outcome.how for outcome in outcomes] == ["preempted"]
    assert "killed, as it had not stopped after 0.5 s; run again" in outcomes[0].reason
    done = len(trained(tmp_path, 0))
    assert 0 < done < 3000
    assert [outcome.how for outcome in run(executor, tmp_path, [0], iterations=done + 2)] == ["finished"]
    assert trained(tmp_path, 0) == list(range(1, done + 3))


def test_ctrl_c_after_a_failure_that_stops_the_study_still_asks_the_others(
    executor: LocalExecutor, tmp_path: Path
) -> None:
    class Press(NoWatch):
        pressed = False

        def tick(self, running: Any) -> None:
            if self.failed and not self.pressed and any(record.status["progress"] for _, record in running):
                self.pressed = True
                os.kill(os.getpid(), signal.SIGINT)

        failed = False

        def ended(self, outcome: Outcome) -> None:
            self.failed = self.failed or outcome.how == "failed"

    observer = Press()
    plan = {"0": "fail"}
    outcomes = run(executor, tmp_path, [0, 1], Policy.parse("stop"), observer, plan=plan, iterations=3000, pause=0.01)
    assert [outcome.how for outcome in outcomes] == ["failed", "preempted"]
    assert outcomes[1].reason == "interrupted; run again to continue"


def test_a_process_left_behind_by_a_run_does_not_hold_the_server(executor: LocalExecutor, tmp_path: Path) -> None:
    outcomes = run(executor, tmp_path, [0, 1], plan={"0": "orphan"}, iterations=20, pause=0.02)
    assert [(outcome.how, outcome.reason) for outcome in outcomes] == [
        ("failed", "killed by SIGKILL"),
        ("finished", ""),
    ]
    attempts = RunStore(tmp_path / "runs").record(outcomes[1].task.resolved.run_id).status["attempts"]
    assert len(attempts) == 1, "the server went on"


def test_every_child_gets_the_gpu_it_was_assigned(tmp_path: Path) -> None:
    executor = LocalExecutor(Resources(2, 1, ("3", "GPU-ab"), 1, ""), preload=("tests.pipeline.launch.fakes",))
    try:
        outcomes = run(executor, tmp_path, [0, 1], iterations=20, pause=0.02)
    finally:
        executor.close()
    store = RunStore(tmp_path / "runs")
    assert [store.record(item.task.resolved.run_id).provenance["gpu"] for item in outcomes] == ["3", "GPU-ab"]


PRELOADED = """
import json, sys
from pathlib import Path
import pipeline.launch.preload
import torch
from pipeline.schema.families import FAMILIES
print(json.dumps({
    "cuda": torch.cuda.is_initialized(),
    "threads": [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")],
    "missing": [name for name, spec in FAMILIES.items() if spec.builder.partition(":")[0] not in sys.modules],
}))
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads through /proc")
def test_the_server_can_be_forked_after_preloading() -> None:
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "2",
        "OPENBLAS_NUM_THREADS": "1",
    }  # its pool restarts itself after a fork
    done = subprocess.run(
        [sys.executable, "-c", PRELOADED], capture_output=True, text=True, timeout=120, env=environment, check=True
    )
    found = json.loads(done.stdout)
    others = [
        name for name in found["threads"] if name != "jemalloc_bg_thd"
    ]  # pyarrow's allocator, which handles forks
    assert len(others) == 1 and (found["cuda"], found["missing"]) == (False, [])


def test_killed_server_is_replaced_and_its_jobs_resume(executor: LocalExecutor, tmp_path: Path) -> None:
    class Kill(NoWatch):
        done = False

        def tick(self, running: Any) -> None:
            server = executor._server
            if not self.done and server is not None and any(record.status["progress"] for _, record in running):
                server.kill()
                self.done = True

    observer = Kill()
    outcomes = run(executor, tmp_path, [0, 1], observer=observer, iterations=60, pause=0.02)
    assert observer.done and [outcome.how for outcome in outcomes] == ["finished", "finished"]
    assert trained(tmp_path, 0) == list(range(1, 61))


DRIVER = """
import sys
from pathlib import Path
from pipeline.launch.local import LocalExecutor
from pipeline.launch.resources import Resources
from tests.pipeline.launch.test_scheduler import run
executor = LocalExecutor(Resources(2, 1, (), 1, ""), preload=("tests.pipeline.launch.fakes",))
run(executor, Path(sys.argv[1]), [0, 1], iterations=400, pause=0.01)
"""


def test_killed_driver_leaves_preempted_runs_that_resume(executor: LocalExecutor, tmp_path: Path) -> None:
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path)])
    records = [RunStore(tmp_path / "runs").record(task.resolved.run_id) for task in tasks(0, 1)]
    deadline = time.monotonic() + 30
    while not all(record.status["progress"] for record in records):
        assert time.monotonic() < deadline and driver.poll() is None
        time.sleep(0.02)
    driver.kill()
    driver.wait()
    while any(is_locked(record.path / "run.lock") for record in records):
        assert time.monotonic() < deadline, "its runs must stop at a checkpoint when the driver is gone"
        time.sleep(0.02)
    assert [record.state for record in records] == ["preempted", "preempted"]
    done = len(trained(tmp_path, 0))
    outcomes = run(executor, tmp_path, [0, 1], iterations=done + 3)
    assert [outcome.how for outcome in outcomes] == ["finished", "finished"]
    assert trained(tmp_path, 0) == list(range(1, done + 4))


class FakeExecutor:
    """Ends every job with the next of `statuses`."""

    slots = 1

    def __init__(self, statuses: list[int]) -> None:
        self.statuses = statuses
        self.jobs: list[Job] = []
        self.queue: list[Job] = []

    def submit(self, job: Job) -> None:
        self.jobs.append(job)
        self.queue.append(job)

    def poll(self, timeout_s: float) -> list[JobEnd]:
        return [JobEnd(self.queue.pop().run_id, self.statuses.pop(0), "")] if self.queue else []

    def stop(self, run_id: str) -> None:
        pass

    kill = stop

    def close(self) -> None:
        pass


def test_unreadable_data_is_not_retried_and_busy_is_no_failure(tmp_path: Path) -> None:
    executor = FakeExecutor([76, 76, 2])
    outcomes = run(executor, tmp_path, [0], Policy.parse("retry=5"))
    assert outcomes[0].how == "failed" and outcomes[0].reason == "exit status 2"
    assert len(executor.jobs) == 3


def test_endless_preemption_ends(tmp_path: Path) -> None:
    executor = FakeExecutor([75] * 100)
    assert run(executor, tmp_path, [0])[0].how == "failed"
    assert len(executor.jobs) == 21


@pytest.mark.parametrize("text", ["never", "retry", "retry=0", "retry=x", "stop=1", ""])
def test_bad_policies(text: str) -> None:
    with pytest.raises(UserError, match="--on-error"):
        Policy.parse(text)
