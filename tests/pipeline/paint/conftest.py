"""Two tiny finished runs, and the real command serving them; stopped by Ctrl-C when the tests are over."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.records import RunRecord
from tests.pipeline import tiny


@dataclass(frozen=True)
class Served:
    """A running `python -m pipeline paint`."""

    out: Path
    runs: tuple[RunRecord, ...]
    address: str  # with the token, ends with a slash

    def ask(self, path: str, data: bytes | None = None, **headers: str) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers of a request below the address (POST with `data`)."""
        request = urllib.request.Request(self.address + path, data=data, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read(), dict(answer.headers)
        except urllib.error.HTTPError as error:
            return error.code, error.read(), dict(error.headers)


@pytest.fixture(scope="package")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[RunRecord, ...]]:
    """(output folder, records) of a family with attention and one without: (CA)²-SIS and SEAN at 16 pixels."""
    out = tmp_path_factory.mktemp("paint")
    return out, (tiny.run(out), tiny.run(out, "model=sean"))


@contextlib.contextmanager
def serving(
    out: Path, records: tuple[RunRecord, ...], *, threads: int = 1, killed: bool = False, **environment: str
) -> Iterator[Served]:
    """The real command with these runs, ended by Ctrl-C, or `killed` by force; its end is checked as well."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "paint", *(record.id[:10] for record in records), "--out", str(out)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**tiny.environment(), "OMP_NUM_THREADS": str(threads), **environment},
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    line = process.stdout.readline()
    if not line.startswith("paint: http://127.0.0.1:"):
        process.kill()
        pytest.fail(f"no address but {line!r}: {process.stderr.read()}")
    try:
        yield Served(out, records, line.split()[1])
    finally:
        process.send_signal(signal.SIGKILL if killed else signal.SIGINT)
        status, said = process.wait(timeout=20), process.stderr.read()
    assert (status, said) == (-signal.SIGKILL if killed else 0, "")


@pytest.fixture(scope="package")
def served(runs: tuple[Path, tuple[RunRecord, ...]]) -> Iterator[Served]:
    """Both runs served."""
    with serving(*runs) as found:
        yield found
