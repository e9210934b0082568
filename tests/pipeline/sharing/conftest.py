"""One small run and its archive, for every test of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.records import RunRecord
from tests.pipeline.tiny import command, run


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    return run(tmp_path_factory.mktemp("shared") / "out", "model=ca2sis", "model.attention.masking=access", "seed=3")


@pytest.fixture(scope="module")
def archive(record: RunRecord) -> Path:
    out = record.path.parents[1]
    file = out.parent / "run.zip"
    done = command("pipeline", "pack", record.id[:10], "--to", str(file), "--licence", "apache-2.0", "--out", str(out))
    assert done.returncode == 0 and str(file) in done.stdout, done.stderr
    return file
