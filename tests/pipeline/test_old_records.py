"""A study as the first version wrote it (`tests/fixtures/old_record`): read, evaluated, reused and tabulated as it was.

Its rows of training carry the fingerprint from before training had specs, its folders names from before the rooms moved.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from pipeline.__main__ import main
from pipeline.config import resolve
from pipeline.records import RunRecord, RunStore, StudyManifest
from pipeline.records.metric_specs import fingerprint_of
from tests.pipeline.tiny import MEASURED

KEPT = Path(__file__).parents[1] / "fixtures" / "old_record"
MANIFEST = StudyManifest.load(KEPT / "kept")
TRAINED = MANIFEST.cells[0]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A copy of the old output folder, to be written to."""
    shutil.copytree(KEPT, tmp_path / "out")
    return tmp_path / "out"


def record_in(out: Path) -> RunRecord:
    return RunStore(out / "runs").record(TRAINED.run_id)


def numbers(record: RunRecord) -> dict[tuple[str, ...], float | None]:
    return {row.key: row.value for row in record.metrics if row.name not in MEASURED}


def test_old_overrides_still_name_the_old_runs() -> None:
    for cell in MANIFEST.cells:
        record = RunStore(KEPT / "runs").record(cell.run_id)
        assert hashlib.sha256((record.path / "identity.json").read_bytes()).hexdigest() == cell.run_id
        resolved = resolve(cell.overrides)
        assert resolved.run_id == cell.run_id and resolved.is_complete(record)


def test_training_an_old_run_again_finds_it_finished(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = record_in(out)
    before = {path: path.read_bytes() for path in record.path.rglob("*") if path.is_file()}
    assert main(["train", "--out", str(out), *TRAINED.overrides]) == 0
    assert "is finished already: reused" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in record.path.rglob("*") if path.is_file()} == before


def test_an_old_checkpoint_evaluates_to_the_old_numbers(out: Path) -> None:
    """The same keys, fingerprints included: no row of another version appears; values but for another machine's rounding."""
    record = record_in(out)
    before, samples = numbers(record), record.path / "samples" / "quick"
    assert not samples.exists()
    assert main(["evaluate", record.id[:10], "--protocol", "quick", "--out", str(out)]) == 0
    assert samples.exists(), "it was measured again"
    after = numbers(record)
    assert set(after) == set(before)
    for key, value in before.items():
        assert after[key] == (None if value is None else pytest.approx(value, rel=1e-3, abs=1e-5)), key


def test_the_table_of_an_old_study_reads_as_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    from analysis.__main__ import main as analysis

    assert analysis(["table", "kept", "--out", str(KEPT)]) == 0
    printed = capsys.readouterr().out
    assert "| (CA)²-SIS | 11.59<sup>a</sup> | 0.0269 | 0.02056 | 9.113 | 0.0004877 |" in printed
    assert "| *painter*<sup>b</sup> | 21.83 | 0.8457 | n/a<sup>c</sup> | n/a<sup>d</sup> | n/a<sup>d</sup> |" in printed


def test_old_rows_of_training_are_the_measurement_that_is_made_now() -> None:
    stored = (record_in(KEPT).path / "metrics.json").read_text()
    assert stored.count('"training-clock-1"') == 2
    hardware = f"cpu {record_in(KEPT).provenance['host']['processor']}"
    rows = [row for row in record_in(KEPT).metrics if row.name.startswith("train_")]
    assert [row.fingerprint for row in rows] == [fingerprint_of(row.name, {}, {"hardware": hardware}) for row in rows]
