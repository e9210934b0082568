"""The tidy frame: what is recorded, what is missing, and records that a crash or an older version left behind."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pandas as pd
import pytest

from analysis import columns
from analysis.frame import load_study
from pipeline.errors import UserError
from pipeline.records import RunStore, StudyManifest, StudyMetric
from pipeline.records.bulk import read_raw
from tests.analysis.synthetic import ARMS, PSNR, SSIM, TWO, SyntheticArm, fingerprint_of, make_study


def record_of(out: Path, manifest: StudyManifest, arm: str, seed: int = 0):  # type: ignore[no-untyped-def]
    cell = next(cell for cell in manifest.cells if (cell.arm, cell.seed) == (arm, seed))
    return RunStore(out / "runs").record(cell.run_id)


def test_frame_holds_what_the_records_hold(tmp_path: Path) -> None:
    manifest = make_study(tmp_path)
    study = load_study(tmp_path, "synthetic")
    expected = {
        (cell.arm, cell.seed, row.name, row.state): row.value
        for cell in manifest.cells
        for row in RunStore(tmp_path / "runs").record(cell.run_id).metrics
    }
    frame = study.frame
    found = {
        (arm, seed, metric, state): None if pd.isna(value) else value
        for arm, seed, metric, state, value in frame[["arm", "seed", "metric", "state", "value"]].itertuples(
            index=False
        )
    }
    assert found == expected
    assert len(study.runs) == len(manifest.cells)
    assert study.reference is not None
    assert study.reference.name == "ca2sis"
    assert study.primary is not None
    assert study.primary.name == "psnr"


def test_columns_are_the_documented_ones_with_their_types(tmp_path: Path) -> None:
    make_study(tmp_path)
    study = load_study(tmp_path, "synthetic")
    assert list(study.frame.columns) == [*columns.FRAME, "factor:arm"]
    assert list(study.runs.columns) == list(columns.RUNS)
    for frame, documented in ((study.frame, columns.FRAME), (study.runs, columns.RUNS)):
        for name, (dtype, _) in documented.items():
            assert str(frame[name].dtype) == dtype
    assert set(study.frame["schema"]) == {columns.FRAME_SCHEMA}


def test_documentation_lists_every_column() -> None:
    text = (Path(__file__).parents[2] / "docs" / "analysis.md").read_text()
    for documented in (columns.FRAME, columns.RUNS):
        for name in documented:
            assert f"`{name}`" in text


def test_what_is_missing_has_a_row_with_a_reason(tmp_path: Path) -> None:
    arms = (
        SyntheticArm("a", "A", reference=True, states={1: "failed", 2: "missing"}),
        SyntheticArm("b", "B", missing=("ssim",), unavailable={"rmse": "weights absent"}),
    )
    make_study(tmp_path, arms=arms)
    frame = load_study(tmp_path, "synthetic").frame
    failed = frame[(frame["arm"] == "a") & (frame["seed"] == 1)]
    assert set(failed["status"]) == {"missing"}
    assert set(failed["metric"]) == {"psnr", "ssim", "rmse", "attention_iou"}
    assert set(failed["reason"]) == {"the run is failed: out of memory"}
    assert set(frame[(frame["arm"] == "a") & (frame["seed"] == 2)]["run_state"]) == {"missing"}
    absent = frame[(frame["arm"] == "b") & (frame["metric"] == "ssim")]
    assert absent["value"].isna().all()
    assert absent["reason"].str.contains("no such metric under protocol standard").all()
    unavailable = frame[(frame["arm"] == "b") & (frame["metric"] == "rmse")]
    assert set(unavailable["status"]) == {"unavailable"}
    assert set(unavailable["reason"]) == {"weights absent"}


@pytest.mark.parametrize("name", ["status.json", "metrics.json", "provenance.json"])
def test_a_record_cut_off_in_the_middle_is_damaged_not_fatal(tmp_path: Path, name: str) -> None:
    manifest = make_study(tmp_path, arms=TWO)
    path = record_of(tmp_path, manifest, "b").path / name
    path.write_bytes(path.read_bytes()[: len(path.read_bytes()) // 2])
    study = load_study(tmp_path, "synthetic")
    run = study.runs[(study.runs["arm"] == "b") & (study.runs["seed"] == 0)].iloc[0]
    assert run["run_state"] == "damaged"
    assert run["run_reason"] == f"{name} is cut off or not JSON"
    rows = study.frame[study.frame["run_id"] == run["run_id"]]
    assert rows["value"].isna().all()
    assert (study.runs["run_state"] == "finished").sum() == 5


def test_an_older_schema_is_named(tmp_path: Path) -> None:
    manifest = make_study(tmp_path, arms=TWO)
    path = record_of(tmp_path, manifest, "b").path / "metrics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 0}))
    runs = load_study(tmp_path, "synthetic").runs
    assert "schema 0, this version reads 1; move it away and evaluate the run again" in "".join(runs["run_reason"])


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "true", '"24.3"', "null"])
def test_a_value_that_is_no_finite_number_never_passes(tmp_path: Path, text: str) -> None:
    manifest = make_study(tmp_path, arms=TWO)
    path = record_of(tmp_path, manifest, "b").path / "metrics.json"
    document = json.loads(path.read_text())
    row = next(row for row in document["rows"] if row["name"] == "psnr" and row["state"] == "trained")
    row["value"] = "HERE"
    path.write_text(json.dumps(document).replace('"HERE"', text))
    frame = load_study(tmp_path, "synthetic").frame
    bad = frame[
        (frame["arm"] == "b") & (frame["seed"] == 0) & (frame["metric"] == "psnr") & (frame["state"] == "trained")
    ]
    assert list(bad["status"]) == ["invalid"]
    assert bad["value"].isna().all()


def test_a_running_state_without_a_process_is_preempted(tmp_path: Path) -> None:
    make_study(tmp_path, arms=(SyntheticArm("a", states={0: "running"}),), seeds=(0,))
    assert list(load_study(tmp_path, "synthetic").runs["run_state"]) == ["preempted"]


def test_bulk_reading_agrees_with_the_record(tmp_path: Path) -> None:
    manifest = make_study(tmp_path, arms=(*ARMS, SyntheticArm("late", states={0: "planned", 1: "failed"})))
    for cell in manifest.cells:
        record, raw = RunStore(tmp_path / "runs").record(cell.run_id), read_raw(tmp_path / "runs", cell.run_id)
        assert raw.state == record.state
        assert raw.provenance == record.provenance
        assert raw.metrics == [row.to_json() for row in record.metrics]
        assert raw.damage == ()


def test_two_runs_at_one_seed_are_refused(tmp_path: Path) -> None:
    manifest = make_study(tmp_path, arms=TWO)
    twin = dataclasses.replace(manifest.cells[0], run_id=manifest.cells[1].run_id)
    dataclasses.replace(manifest, cells=(*manifest.cells, twin)).save(tmp_path / "synthetic")
    with pytest.raises(UserError, match=r"arm 'a' has two runs at seed 0 .* a seed counts once"):
        load_study(tmp_path, "synthetic")


def test_no_study_and_a_damaged_plan_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no study in"):
        load_study(tmp_path, "absent")
    make_study(tmp_path, arms=TWO)
    plan = tmp_path / "synthetic" / "plan.json"
    plan.write_text(plan.read_text()[:100])
    with pytest.raises(UserError, match=r"plan.json is not valid JSON"):
        load_study(tmp_path, "synthetic")
    plan.write_text("{}")
    with pytest.raises(UserError, match="is not a study plan of this version"):
        load_study(tmp_path, "synthetic")


def test_per_image_values_average_to_the_run_value(tmp_path: Path) -> None:
    make_study(tmp_path, images=7)
    study = load_study(tmp_path, "synthetic")
    means = study.per_image("psnr").groupby(["arm", "seed"])["value"].mean()
    rows = study.frame[(study.frame["metric"] == "psnr") & (study.frame["state"] == "trained")]
    for arm, seed, value in rows[["arm", "seed", "value"]].itertuples(index=False):
        assert means[arm, seed] == pytest.approx(value)
    assert study.per_image("psnr", protocol_fingerprint="other").empty
    assert set(study.per_image("psnr", protocol_fingerprint=fingerprint_of("psnr"), arms=["spade"])["arm"]) == {"spade"}


def test_a_damaged_per_image_file_is_named(tmp_path: Path) -> None:
    manifest = make_study(tmp_path, arms=TWO)
    path = record_of(tmp_path, manifest, "b").path / "per_image.parquet"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(UserError, match=r"per_image.parquet is damaged"):
        load_study(tmp_path, "synthetic").per_image("psnr")


def test_metrics_of_another_protocol_do_not_count_as_the_study_s(tmp_path: Path) -> None:
    metrics = (PSNR, dataclasses.replace(SSIM, protocol="quick"))
    make_study(tmp_path, arms=TWO, metrics=metrics, seeds=(0,))
    frame = load_study(tmp_path, "synthetic").frame
    assert sorted(frame[(frame["arm"] == "a") & (frame["metric"] == "ssim")]["status"]) == ["missing", "ok"]


def test_a_run_without_a_cost_does_not_hide_the_others(tmp_path: Path) -> None:
    """A rule is not trained: its missing training speed belongs to no split, as the recorded ones do."""
    manifest = make_study(tmp_path)
    speed = StudyMetric("train_images_per_s", "secondary", "max")
    dataclasses.replace(manifest, metrics=(*manifest.metrics, speed)).save(tmp_path / "synthetic")
    for cell in manifest.cells:
        if cell.arm == "painter":
            path = RunStore(tmp_path / "runs").record(cell.run_id).path / "metrics.json"
            value = json.loads(path.read_text())
            value["rows"] = [row for row in value["rows"] if row["name"] != "train_images_per_s"]
            path.write_text(json.dumps(value))
    frame = load_study(tmp_path, "synthetic").frame
    rows = frame[frame["metric"] == "train_images_per_s"]
    assert set(rows.loc[rows["arm"] == "painter", "status"]) == {"missing"}
    assert set(rows["split"]) == {""}
