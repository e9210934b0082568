"""Many workers on a real PostgreSQL, which the test starts in a temporary folder."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from optuna.trial import TrialState

from pipeline.errors import UserError
from sweeps import report
from sweeps.storage import open_storage, open_study
from sweeps.sweep import load_sweep

ENTRY = "tests.sweeps.fakes:train"
TRIALS = 8


def _program(name: str) -> str | None:
    found = shutil.which(name)
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(places[-1]) if places else found


def _as_server_user(command: list[str]) -> list[str]:
    """PostgreSQL refuses to run as root: then it runs as the user that its package made."""
    return ["runuser", "-u", "postgres", "--", *command] if os.geteuid() == 0 else command


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """URL of a cluster that listens on a socket in its own folder alone."""
    initdb, pg_ctl = _program("initdb"), _program("pg_ctl")
    if initdb is None or pg_ctl is None:
        pytest.skip("needs PostgreSQL (initdb, pg_ctl)")
    pytest.importorskip("psycopg", reason="needs the package psycopg")
    if os.geteuid() == 0:
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    folder = Path(tempfile.mkdtemp(prefix="pg"))  # short: a socket's path has at most 107 characters
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
    data = folder / "data"
    try:
        made = subprocess.run(
            _as_server_user([initdb, "-D", str(data), "-U", "tester", "-A", "trust", "--no-sync"]),
            capture_output=True,
            text=True,
        )
        assert made.returncode == 0, made.stderr
        options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off"
        started = subprocess.run(
            _as_server_user([pg_ctl, "-D", str(data), "-w", "-l", str(folder / "log"), "-o", options, "start"]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        assert started.returncode == 0, (folder / "log").read_text()
        yield f"postgresql://tester@/postgres?host={folder}"
        subprocess.run(_as_server_user([pg_ctl, "-D", str(data), "-m", "immediate", "stop"]), capture_output=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_four_workers_one_killed(postgres: str, tmp_path: Path) -> None:
    """No trial lost, none doubled, the killed one continued from where it was."""
    file = tmp_path / "many.yaml"
    file.write_text(yaml.safe_dump({
        "name": "many", "question": "?", "base": ["preset=tiny", "notes=pause"], "objectives": {"psnr": "max"}, "trials": TRIALS,
        "space": {"loss.attention.weight": {"kind": "float", "low": 0.01, "high": 10.0, "log": True}},
        "sampler": {"kind": "random"},
    }))  # fmt: skip
    sweep = load_sweep(str(file))
    study = open_study(open_storage(postgres), sweep)
    command = [sys.executable, "-m", "sweeps", "worker", str(file), "--storage", postgres, "--out", str(tmp_path),
               "--entry", ENTRY, "--beat", "0.5", "--silence", "20"]  # fmt: skip
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(4)]
    deadline = time.monotonic() + 90
    victim = None
    while victim is None:
        assert time.monotonic() < deadline, [worker.poll() for worker in workers]
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            pid = int(trial.user_attrs.get("worker", "::").rsplit(":", 2)[1] or 0)
            trace = tmp_path / "runs" / trial.user_attrs.get("run_id", "none") / "trained.txt"
            if pid and trace.exists():
                victim = trial.number
                os.kill(pid, signal.SIGKILL)
                break
        time.sleep(0.02)
    said = [worker.communicate(timeout=120)[0] for worker in workers]
    assert sorted(worker.returncode for worker in workers) == [-9, 0, 0, 0], said
    trials = report.proper(study)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * TRIALS, said
    assert len({trial.user_attrs["run_id"] for trial in trials}) == TRIALS
    traces = [path.read_text().split() for path in tmp_path.glob("runs/*/trained.txt")]
    assert traces == [["1", "2", "3", "4", "5", "6"]] * TRIALS, "every run trained once, the killed one resumed"
    assert any(f"trial {victim}: its worker is gone; continuing it" in text for text in said)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://nobody:secret@127.0.0.1:9/none", "cannot be opened"),
        (
            "postgresql://nobody:secret@127.0.0.1:notaport/none",
            "none cannot be opened: write postgresql://user:password@host:port",
        ),
        ("mysterydb://x", "cannot be opened"),
        ("", "cannot be opened"),
    ],
)
def test_unreachable_storage_is_one_line_without_the_password(url: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        open_storage(url)
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)
