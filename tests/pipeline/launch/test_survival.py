"""What a study survives: kills at random instants, a full disk, a run folder that cannot be written."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.launch.job import EXIT_PREEMPTED, TRAIN_ENTRY, Job
from pipeline.launch.local import LocalExecutor
from pipeline.launch.resources import Resources
from pipeline.launch.scheduler import Policy, run_tasks
from pipeline.launch.watch import NoWatch
from pipeline.records import RunStore
from tests.pipeline.launch.test_scheduler import run, tasks, trained

DRIVER = """
import json, sys
from pathlib import Path
from pipeline.config import compose, identify
from pipeline.launch.local import LocalExecutor
from pipeline.launch.resources import Resources
from pipeline.launch.scheduler import Policy, Task, run_tasks
from pipeline.launch.watch import NoWatch
settings = json.loads(sys.argv[1])
config = compose(settings["overrides"])
todo = [Task(f"seed {seed}", identify(config.model_copy(update={"seed": seed}))) for seed in settings["seeds"]]
executor = LocalExecutor(Resources(2, 1, (), 1, ""), preload=tuple(settings["preload"]))
try:
    ends = run_tasks(todo, Path(settings["out"]), executor, Policy.parse("continue"), NoWatch(), entry=settings["entry"],
                     options=settings["options"])
finally:
    executor.close()
sys.exit(any(end.how not in ("finished", "reused") for end in ends))
"""


def children(pid: int) -> list[int]:
    """Processes whose parent is `pid`."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    try:
        return [int(item) for item in path.read_text().split()]
    except OSError:
        return []


def is_alive(pid: int) -> bool:
    """Whether a process runs: it is there, and not a dead one that nobody has asked after."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def kill_all(pids: list[int]) -> bool:
    """SIGKILL to all of them, of which none gets to act on another's end; whether any was there."""
    present = [pid for pid in pids if pid and is_alive(pid)]
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in present:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
    return bool(present)


def storm(settings: dict[str, object], kills: int, seed: int, longest_s: float) -> list[str]:
    """Start the driver again and again; kill -9 it, its fork server, a run, or all of them, at a random instant each time."""
    dice = random.Random(seed)
    killed: list[str] = []
    started: set[int] = set()  # runs that were ever seen: one whose driver was killed lives on to its next checkpoint
    while len(killed) < kills:
        driver = subprocess.Popen([sys.executable, "-c", DRIVER, json.dumps(settings)])
        while driver.poll() is None and len(killed) < kills:
            time.sleep(dice.uniform(0.05, longest_s))
            server = next(iter(children(driver.pid)), 0)
            started.update(children(server) if server else [])
            runs = sorted(filter(is_alive, started))
            last = len(killed) == kills - 1
            kind = "machine" if last else dice.choice(["driver", "server", "run", "run", "machine"])
            one = dice.choice(runs) if runs else 0
            everything = [driver.pid, server, *runs] if runs else []  # the machine goes down: nobody learns of it
            victims = {"driver": [driver.pid], "server": [server], "run": [one], "machine": everything}[kind]
            if kill_all(victims):
                killed.append(kind)
        if len(killed) >= kills and driver.poll() is None:
            driver.kill()
        finished_early = driver.wait() == 0
        if finished_early and len(killed) < kills:
            pytest.fail(f"the study ended after {len(killed)} kills; make it longer")
    return killed


def complete(settings: dict[str, object]) -> None:
    """Run to the end, undisturbed; a run that an orphan still holds is waited for."""
    done = subprocess.run([sys.executable, "-c", DRIVER, json.dumps(settings)], timeout=300)
    assert done.returncode == 0


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes through /proc")
@pytest.mark.parametrize("kills", [5, pytest.param(25, marks=pytest.mark.slow)])
def test_kills_at_random_instants(tmp_path: Path, kills: int) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")  # pytest shows it when the test fails
    iterations = 60 * kills
    settings: dict[str, object] = {
        "overrides": ["preset=tiny", "model=painter"], "seeds": [0, 1, 2], "out": str(tmp_path),
        "preload": ["tests.pipeline.launch.fakes"], "entry": "tests.pipeline.launch.fakes:train",
        "options": {"iterations": iterations, "pause": 0.01},
    }  # fmt: skip
    killed = storm(settings, kills, seed, longest_s=1.5)
    assert len(killed) == kills
    settings["options"] = {"iterations": iterations, "pause": 0.0}
    complete(settings)
    for number in (0, 1, 2):
        assert trained(tmp_path, number) == list(range(1, iterations + 1)), "nothing lost, nothing trained twice"
        record = RunStore(tmp_path / "runs").record(tasks(number)[0].resolved.run_id)
        assert record.state == "finished" and not record.is_live
        assert all(attempt["outcome"] in ("preempted", "finished") for attempt in record.status["attempts"])


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes through /proc")
def test_real_training_after_kills_is_bit_for_bit_the_undisturbed_one(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    small = ["preset=tiny", "protocol=quick", "train.iterations=240", "train.batch_size=2", "data.train_images=16",
             "data.val_images=4", "train.validate_images=4", "train.checkpoint_every=10", "train.validate_every=30",
             "train.log_every=10", "tracking.mode=disabled"]  # fmt: skip
    settings: dict[str, object] = {
        "overrides": small, "seeds": [0, 1], "preload": ["pipeline.launch.preload", "pipeline.launch.entry"],
        "entry": TRAIN_ENTRY, "options": {},
    }  # fmt: skip
    kills, began = 6, time.monotonic()
    complete({**settings, "out": str(tmp_path / "calm")})
    longest_s = 0.8 * (time.monotonic() - began) / kills  # the last kill comes before the end, however fast the machine
    storm({**settings, "out": str(tmp_path / "storm")}, kills, seed, longest_s)
    complete({**settings, "out": str(tmp_path / "storm")})
    calm, stormy = (RunStore(tmp_path / name / "runs") for name in ("calm", "storm"))
    assert calm.ids() == stormy.ids() and len(calm.ids()) == 2
    clocks = ("images_per_s", "latency_ms", "hours", "peak_mem")
    for run_id in calm.ids():
        values = [
            {row.key: row.value for row in store.record(run_id).metrics if not any(word in row.name for word in clocks)}
            for store in (calm, stormy)
        ]
        assert values[0] == values[1]
        curves = [
            [{key: value for key, value in row.items() if key != "seconds"} for row in store.record(run_id).history()]
            for store in (calm, stormy)
        ]
        assert curves[0] == curves[1]


@pytest.fixture
def executor() -> Iterator[LocalExecutor]:
    made = LocalExecutor(Resources(2, 1, (), 1, ""), preload=("tests.pipeline.launch.fakes",))
    yield made
    made.close()


def test_full_disk_is_a_failure_with_its_reason_and_the_next_call_completes(
    executor: LocalExecutor, tmp_path: Path
) -> None:
    outcomes = run(executor, tmp_path, [0, 1], plan={"0": "full_once"})
    assert [outcome.how for outcome in outcomes] == ["failed", "finished"]
    assert "cannot write" in outcomes[0].reason and "file too large" in outcomes[0].reason
    record = RunStore(tmp_path / "runs").record(outcomes[0].task.resolved.run_id)
    assert record.state == "preempted", "the record still reads, and nobody is running it"
    outcomes = run(executor, tmp_path, [0, 1], plan={"0": "full_once"})
    assert [outcome.how for outcome in outcomes] == ["finished", "reused"]
    assert trained(tmp_path, 0) == [1, 2, 3]


def test_run_folder_that_cannot_be_written(executor: LocalExecutor, tmp_path: Path) -> None:
    blocked = tmp_path / "runs" / tasks(0)[0].resolved.run_id
    blocked.parent.mkdir()
    blocked.write_text("a file where a folder should be")
    outcomes = run(executor, tmp_path, [0, 1])
    assert [outcome.how for outcome in outcomes] == ["failed", "finished"]
    assert outcomes[0].reason.startswith("cannot write")
    blocked.unlink()
    outcomes = run_tasks(
        tasks(0, 1), tmp_path, executor, Policy.parse("continue"), NoWatch(), entry="tests.pipeline.launch.fakes:train"
    )
    assert [outcome.how for outcome in outcomes] == ["finished", "reused"]


def test_runs_of_a_driver_killed_while_the_server_loads_are_asked_to_stop(tmp_path: Path) -> None:
    """Their requests and the driver's end reach the server together: a fork is asked before it has handlers of its own."""
    asked = [
        {"job": dataclasses.asdict(Job.of(task.resolved, tmp_path, entry="tests.pipeline.launch.fakes:slowly"))}
        for task in tasks(0, 1)
    ]
    server = [sys.executable, "-m", "pipeline.launch.server", "tests.pipeline.launch.slow_fork"]
    lines = "".join(json.dumps(request) + "\n" for request in asked)
    done = subprocess.run(server, input=lines, capture_output=True, text=True, timeout=120, check=True)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    ended = {event["run_id"]: event["status"] for event in events if event["event"] == "ended"}
    assert ended == {request["job"]["run_id"]: EXIT_PREEMPTED for request in asked}
