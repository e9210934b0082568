"""Tables: marks and footnotes for what is absent, and what must not share a column."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from analysis.frame import load_study
from analysis.judging import UNKNOWN_FLOOR
from analysis.tables import TableSpec, build_table, render
from analysis.tables.spec import parse_spec
from pipeline.errors import UserError
from pipeline.evaluation.rows import RowMaker
from pipeline.records import SCHEMA_VERSION, MetricRow, RunStore, StudyMetric, atomic
from pipeline.records.external import EXTERNAL
from pipeline.records.judge import LEAST_SKILL_ROW as LEAST
from tests.analysis.small_tables import FULL, TWO, cell, data_factor, notes_of, table_of
from tests.analysis.synthetic import PSNR, Metric, SyntheticArm, fingerprint_of, make_study

# -- marks -------------------------------------------------------------------------------------------------------------

WRONG = (
    SyntheticArm("good", "good", reference=True),
    SyntheticArm("failed", "failed run", states={0: "failed", 1: "failed"}),
    SyntheticArm("diverged", "diverged run", states={0: "diverged", 1: "diverged"}),
    SyntheticArm("missing", "missing run", states={0: "missing", 1: "missing"}),
    SyntheticArm("preempted", "stopped run", states={0: "preempted", 1: "preempted"}),
    SyntheticArm("unavailable", "no weights", unavailable={"psnr": "vgg weights are absent"}),
    SyntheticArm("na", "no attention", not_applicable={"psnr": "the arm has none"}),
    SyntheticArm("partial", "one of two", states={1: "diverged"}),
)


def test_every_kind_of_absence_has_its_mark_and_footnote(tmp_path: Path) -> None:
    table = table_of(tmp_path, arms=WRONG, seeds=(0, 1))
    expected = {
        "failed": ("failed", "failed", "the run is failed: out of memory"),
        "diverged": ("diverged", "diverged", "the run is diverged: loss_g is NaN at iteration 40"),
        "missing": ("missing", "—", "the run is missing"),
        "preempted": ("unfinished", "…", "the run is preempted"),
        "unavailable": ("unavailable", "unavailable", "vgg weights are absent"),
        "na": ("not_applicable", "n/a", "the arm has none"),
    }
    for row, (status, text, reason) in expected.items():
        found = cell(table, row, "psnr")
        assert (found.status, found.plain, found.value) == (status, text, None)
        assert notes_of(table, row, "psnr") == reason
    partial = cell(table, "partial", "psnr")
    assert (partial.status, partial.n, partial.show_n) == ("ok", 1, True)
    assert (
        notes_of(table, "partial", "psnr")
        == "1 of 2 seeds: the run is diverged: loss_g is NaN at iteration 40 (seed 1)"
    )
    assert len({text for _, text in table.footnotes}) == len(table.footnotes)
    joined = "\n".join(table.problems)
    for row in ("failed run", "diverged run", "missing run", "stopped run", "no weights"):
        assert f"{row}, PSNR: " in joined
    assert "one of two, PSNR: 1 of its seeds have no value" in joined
    assert "no attention, PSNR" not in joined  # what does not apply is no defect


def test_what_one_seed_cannot_have_the_others_are_not_asked_for(tmp_path: Path) -> None:
    """Records of two versions: the older one left out the row that says why there is no value."""
    make_study(tmp_path, arms=(TWO[0], dataclasses.replace(WRONG[6], missing=("ssim",))), seeds=(0, 1))
    study = load_study(tmp_path, "synthetic")
    old = study.store.record(next(cell.run_id for cell in study.manifest.cells if cell.arm == "na" and cell.seed == 0))
    kept = [row.to_json() for row in old.metrics if row.name != "psnr"]
    atomic.write_json(old.path / "metrics.json", {"schema": SCHEMA_VERSION, "rows": kept})
    table = build_table(load_study(tmp_path, "synthetic"), TableSpec(metrics=["psnr", "ssim"]))
    assert cell(table, "na", "psnr").plain == "n/a" and notes_of(table, "na", "psnr") == "the arm has none"
    assert cell(table, "na", "ssim").plain == "—", "nothing says that it does not apply"
    assert not any("no attention, PSNR" in problem for problem in table.problems)


def test_a_metric_that_no_run_could_measure_gives_a_line_instead_of_a_column(tmp_path: Path) -> None:
    arms = [dataclasses.replace(arm, unavailable={"ssim": "weights.pth is absent"}) for arm in TWO]
    table = table_of(tmp_path / "all", arms=arms)
    assert "ssim" not in [column.metric for column in table.columns] and not table.alarms
    (line,) = [text for text in table.notes if text.startswith("No column for")]
    assert line == "No column for SSIM: unavailable in every run (weights.pth is absent)."
    assert "SSIM: unavailable in every run (weights.pth is absent)" in table.problems, "--strict does not accept it"
    one = table_of(tmp_path / "one", arms=(arms[0], TWO[1]))
    assert cell(one, "a", "ssim").plain == "unavailable", "a column that has a value keeps its marks"
    primary = [dataclasses.replace(arm, unavailable={"psnr": "weights.pth is absent"}) for arm in TWO]
    assert cell(table_of(tmp_path / "primary", arms=primary), "a", "psnr").plain == "unavailable"


def test_no_format_prints_nan(tmp_path: Path) -> None:
    table = table_of(tmp_path, FULL, arms=WRONG, seeds=(0, 1))
    for form in ("md", "tex", "csv", "html", "terminal"):
        text = (
            render(table, form)
            .replace("loss_g is NaN at iteration 40", "")
            .replace(r"loss\_g is NaN at iteration 40", "")
        )
        assert not re.search(r"\bnan\b", text, re.IGNORECASE)
        assert not re.search(r"\binf\b", text, re.IGNORECASE)


def test_all_failed_is_a_table_of_marks(tmp_path: Path) -> None:
    arms = [dataclasses.replace(arm, states={0: "failed"}) for arm in TWO]
    table = table_of(tmp_path, arms=arms, seeds=(0,))
    assert {item.status for row in table.rows for item in row.cells} == {"failed"}
    assert len(table.problems) == len(table.columns) * 2


def test_an_empty_plan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no runs in its plan"):
        table_of(tmp_path, arms=(), seeds=())


def test_one_arm_is_a_table_without_ranks(tmp_path: Path) -> None:
    table = table_of(tmp_path, FULL, arms=(SyntheticArm("only", reference=True),))
    assert {item.rank for row in table.rows for item in row.cells} == {""}
    assert len(table.rows) == 1


# -- what must not share a column --------------------------------------------------------------------------------------


def evaluate_again(out: Path, arm: str, value: float, fingerprint: str) -> None:
    """Add a row of another metric version to all runs of an arm."""
    study = load_study(out, "synthetic")
    for run_id in study.runs[study.runs["arm"] == arm]["run_id"]:
        row = MetricRow("psnr", value, 12, "dB", "max", "val", "standard", fingerprint)
        RunStore(out / "runs").record(str(run_id)).add_metrics([row])


def test_two_fingerprints_in_one_column_are_refused_with_the_runs_named(tmp_path: Path) -> None:
    manifest = make_study(tmp_path, arms=TWO, seeds=(0,))
    path = RunStore(tmp_path / "runs").record(manifest.cells[1].run_id).path / "metrics.json"
    path.write_text(path.read_text().replace(fingerprint_of("psnr"), "f" * 64))
    with pytest.raises(UserError, match=rf"'psnr' has 2 protocol fingerprints .*{manifest.cells[1].run_id[:10]}"):
        build_table(load_study(tmp_path, "synthetic"), TableSpec())


def test_the_version_all_runs_share_is_taken(tmp_path: Path) -> None:
    make_study(tmp_path, arms=TWO)
    evaluate_again(tmp_path, "b", 99.0, "f" * 64)  # one arm only: the shared version stands
    table = build_table(load_study(tmp_path, "synthetic"), TableSpec())
    assert table.columns[0].fingerprint == fingerprint_of("psnr")
    assert (cell(table, "b", "psnr").value or 0) < 30
    evaluate_again(tmp_path, "a", 98.0, "f" * 64)  # both: two versions are complete, and the spec must name one
    with pytest.raises(UserError, match="name one in the table's specification"):
        build_table(load_study(tmp_path, "synthetic"), TableSpec())
    named = parse_spec({"metrics": [{"metric": "psnr", "fingerprint": "ffff"}]}, "spec")
    assert cell(build_table(load_study(tmp_path, "synthetic"), named), "b", "psnr").value == 99.0
    nobody = parse_spec({"metrics": [{"metric": "psnr", "fingerprint": "zzzz"}]}, "spec")
    with pytest.raises(UserError, match="no run has the fingerprint 'zzzz'; there are .*, ffffffffff "):
        build_table(load_study(tmp_path, "synthetic"), nobody)


def test_pictures_of_other_code_alone_share_a_column_only_where_measured_alike(tmp_path: Path) -> None:
    """No run of ours has a value: the version of most pictures stands, the others are marked and not ranked with them."""
    arms = (
        SyntheticArm("a", "A", missing=("psnr",), reference=True),
        *(SyntheticArm(n, n, kind=EXTERNAL) for n in "bcd"),
    )
    manifest = make_study(tmp_path, arms=arms, metrics=(PSNR,), seeds=(0,), history=False)
    record = next(item.run_id for item in manifest.cells if item.arm == "d")
    path = RunStore(tmp_path / "runs").record(record).path / "metrics.json"
    path.write_text(path.read_text().replace(fingerprint_of("psnr"), "f" * 64))
    table = build_table(load_study(tmp_path, "synthetic"), TableSpec())
    assert [cell(table, arm, "psnr").status for arm in "abcd"] == ["missing", "ok", "ok", "missing"]


def test_costs_on_other_hardware_are_marked_not_mixed(tmp_path: Path) -> None:
    manifest = make_study(tmp_path, arms=TWO, seeds=(0, 1))
    path = RunStore(tmp_path / "runs").record(manifest.cells[3].run_id).path / "metrics.json"
    path.write_text(path.read_text().replace(fingerprint_of("train_images_per_s"), "e" * 64))
    table = build_table(load_study(tmp_path, "synthetic"), TableSpec(cost=["train_images_per_s"]))
    assert cell(table, "b", "train_images_per_s").n == 1
    assert "another protocol fingerprint" in notes_of(table, "b", "train_images_per_s")


def test_a_plan_recorded_upside_down_flips_no_table(tmp_path: Path) -> None:
    upside_down = dataclasses.replace(PSNR, direction="min")
    rows = [SyntheticArm(name, effects={"psnr": shift}) for name, shift in (("good", 2.0), ("bad", -2.0))]
    table = table_of(tmp_path, arms=rows, metrics=(upside_down,), seeds=(0, 1))
    assert table.columns[0].direction == "max"
    assert (cell(table, "good", "psnr").rank, cell(table, "bad", "psnr").rank) == ("best", "second")
    assert "The plan says psnr: min; better is max, as the metric itself says." in table.warnings
    assert load_study(tmp_path, "synthetic").primary == StudyMetric("psnr", "primary", "max")


def test_training_rows_from_before_they_had_specs_share_a_column_with_new_ones(tmp_path: Path) -> None:
    """Old rows named no hardware in their fingerprint; what the record's provenance says of it takes its place."""
    rows = tuple(
        SyntheticArm(name, provenance={"device": "cpu (Model X)", "host": {"processor": processor}})
        for name, processor in (("old", "Model X"), ("new", "Model X"), ("elsewhere", "Model Y"))
    )
    manifest = make_study(tmp_path, arms=rows, seeds=(0, 1))
    new = RowMaker("standard", "", "trained", {}).fingerprint("train_images_per_s", {"hardware": "cpu Model X"})
    for item in manifest.cells:
        record = RunStore(tmp_path / "runs").record(item.run_id)
        written = new if item.arm == "new" else "training-clock-1"
        path = record.path / "metrics.json"
        path.write_text(path.read_text().replace(fingerprint_of("train_images_per_s"), written))
    table = build_table(load_study(tmp_path, "synthetic"), TableSpec(cost=["train_images_per_s"]))
    assert [cell(table, name, "train_images_per_s").n for name in ("old", "new", "elsewhere")] == [2, 2, 0]
    assert "other hardware" in notes_of(table, "elsewhere", "train_images_per_s")
    old = RunStore(tmp_path / "runs").record(manifest.cells[0].run_id)
    assert {row.fingerprint for row in old.metrics if row.name == "train_images_per_s"} == {new}


def test_other_protocols_and_splits_stay_out_unless_asked_for(tmp_path: Path) -> None:
    metrics = (PSNR, dataclasses.replace(PSNR, name="psnr2", protocol="quick"))
    make_study(tmp_path, arms=TWO, metrics=metrics)
    study = load_study(tmp_path, "synthetic")
    table = build_table(study, TableSpec())
    assert cell(table, "a", "psnr2").status == "missing"
    spec = parse_spec({"metrics": ["psnr", {"metric": "psnr2", "protocol": "quick"}]}, "spec")
    assert cell(build_table(study, spec), "a", "psnr2@quick/val").status == "ok"


def test_a_column_of_another_protocol_says_so_and_has_its_own_bounds(tmp_path: Path) -> None:
    still = {"seed_std": 0.0, "image_std": 0.0, "run_std": 0.0, "residual_std": 0.0}
    real, skill = (Metric(name, "none", base=base, **still) for name, base in (("seg_miou_real", 0.9), (LEAST, 0.8)))
    manifest = make_study(tmp_path, arms=TWO, metrics=(PSNR, Metric("seg_miou", base=0.5, **still), real, skill))
    elsewhere = (("seg_miou", 0.4), ("seg_miou_real", 0.6), ("latency_ms", 7.0))
    rows = [MetricRow(name, value, 4, "", "none", "val", "quick", fingerprint_of(name)) for name, value in elsewhere]
    for item in manifest.cells:
        RunStore(tmp_path / "runs").record(item.run_id).add_metrics(rows)
    study = load_study(tmp_path, "synthetic")
    quick = {"protocol": "quick", "split": "val"}
    miou = {"metric": "seg_miou", "decimals": 2}
    named = [miou, {**miou, **quick}, {"metric": "latency_ms", "label": "Mine", "cost": True, **quick}]
    table = build_table(study, parse_spec({"metrics": ["psnr", *named]}, "spec"))
    assert [column.label for column in table.columns] == ["PSNR", "mIoU", "mIoU (quick, val)", "Mine (quick, val)"]
    assert cell(table, "a", "seg_miou@quick/val").value == pytest.approx(0.4)
    assert cell(table, "a", "latency_ms@quick/val").value == pytest.approx(7.0)
    assert table.notes[0].startswith("Protocol standard, split val unless a heading names others, 4 or 12 images; ")
    assert table.notes[-1] == (
        "mIoU: the real images themselves score 0.90; mIoU (quick, val): the real images themselves score 0.60; "
        f"mIoU (quick, val): {UNKNOWN_FLOOR}."
    )
    every = build_table(study, parse_spec({"metrics": [{"metric": "seg_miou", "protocol": "*"}]}, "spec"))
    assert [column.label for column in every.columns] == ["mIoU (quick, val)", "mIoU"]
    assert build_table(study, TableSpec()).notes[0].startswith("Protocol standard, split val, 12 images; ")


def test_mixed_code_data_and_budgets_are_said(tmp_path: Path) -> None:
    arms = (
        SyntheticArm("a", "A", reference=True),
        SyntheticArm("b", "B", provenance={"commit": "f" * 40, "dirty": True, "data": {"digest": "other"}}),
        SyntheticArm("c", "C", images_seen=12800),
    )
    table = table_of(tmp_path, arms=arms)
    text = " ".join(table.warnings)
    assert "Code versions are mixed: 0123456789 (6 runs), ffffffffff (3 runs)." in text
    assert "Training data are mixed: data-1 (6 runs), other (3 runs)." in text
    assert "3 of 9 runs were made with uncommitted changes." in text
    assert "Training budgets are unequal: 6400 images: A, B; 12800 images: C." in text
    assert {warning.split(":")[0] for warning in table.problems} >= {
        "Code versions are mixed",
        "Training budgets are unequal",
    }
    declared = table_of(tmp_path / "declared", arms=arms, budget="the third arm needs longer")
    assert not any("budgets are unequal" in warning for warning in declared.warnings)
    assert "Training budgets differ by design: the third arm needs longer." in declared.notes


def test_what_differs_late_in_its_name_is_mixed(tmp_path: Path) -> None:
    """Only digests are shortened, and only in print: cards and builds of torch differ in their last characters."""
    commits = ["0123456789" + letter * 30 for letter in "ab"]
    arms = [
        dataclasses.replace(
            arm, provenance={"device": f"NVIDIA GeForce {card}", "versions": {"torch": torch}, "commit": commit}
        )
        for arm, card, torch, commit in zip(
            TWO, ("RTX 2080", "RTX 4090"), ("2.9.0+cu126", "2.9.0+cu128"), commits, strict=True
        )
    ]
    table = table_of(tmp_path, arms=arms)
    code = "Code versions are mixed: 0123456789 (3 runs), 0123456789 (3 runs)."
    assert {
        "Devices are mixed: NVIDIA GeForce RTX 2080 (3 runs), NVIDIA GeForce RTX 4090 (3 runs).",
        "torch versions are mixed: 2.9.0+cu126 (3 runs), 2.9.0+cu128 (3 runs).",
        code,
    } <= set(table.warnings)
    assert [text for text in table.problems if "mixed" in text] == [code]


def test_one_commit_with_two_sources_is_two_versions(tmp_path: Path) -> None:
    arms = (
        SyntheticArm("a", "A", reference=True, provenance={"dirty": True, "code_digest": "one"}),
        SyntheticArm("b", "B", provenance={"dirty": True, "code_digest": "two"}),
    )
    assert "Code versions are mixed: one (3 runs), two (3 runs)." in table_of(tmp_path, arms=arms).warnings


def test_data_that_differ_by_a_factor_are_meant_to(tmp_path: Path) -> None:
    arms = [
        dataclasses.replace(arm, provenance={"data": {"digest": arm.levels["data"], "summary": arm.levels["data"]}})
        for arm in data_factor()
    ]
    table = table_of(tmp_path, TableSpec(pivot="data"), arms=arms)
    assert not any("Training data" in text for text in (*table.warnings, *table.problems))
    assert "Data: faces (faces); scenes (scenes)." in table.notes


def test_floor_and_ceiling_are_told(tmp_path: Path) -> None:
    still = {"seed_std": 0.0, "image_std": 0.0, "run_std": 0.0, "residual_std": 0.0}
    metrics = (PSNR, Metric("fd", "min", base=9.0), Metric("fd_floor", "none", base=1.25, **still))
    table = table_of(tmp_path, TableSpec(metrics=["psnr", "fd"]), arms=TWO, metrics=metrics)
    assert "fd: two halves of the real images score 1.25." in table.notes


def test_arms_that_are_one_run_are_told(tmp_path: Path) -> None:
    manifest = make_study(tmp_path, arms=TWO, seeds=(0,))
    first, second = manifest.cells
    cells = (first, dataclasses.replace(second, run_id=first.run_id))
    dataclasses.replace(manifest, cells=cells).save(tmp_path / "synthetic")
    table = build_table(load_study(tmp_path, "synthetic"), TableSpec())
    assert "Arms that are the same runs: A and B." in table.warnings


def test_commits_with_the_same_sources_are_one_version(tmp_path: Path) -> None:
    arms = (
        SyntheticArm("a", "A", reference=True, provenance={"commit": "1" * 40, "code_digest": "same"}),
        SyntheticArm("b", "B", provenance={"commit": "2" * 40, "code_digest": "same"}),
    )
    assert not any("Code versions" in text for text in table_of(tmp_path, arms=arms).warnings)


def test_a_run_trained_for_longer_than_planned_is_noted(tmp_path: Path) -> None:
    arms = (TWO[0], dataclasses.replace(TWO[1], provenance={"images_seen": 7000}))
    assert notes_of(table_of(tmp_path, arms=arms), "b") == "trained on 7000 images, planned 6400"
