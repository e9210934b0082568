"""Tables: numbers, ranks, ties, marks, refusals, and the same bytes every time."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.frame import Study, load_study
from analysis.labels import metric_label
from analysis.tables import TableSpec, build_table, load_spec, render, shipped_specs
from analysis.tables.model import Table, TableCell, letter
from analysis.tables.numbers import decimals_of, number, scale_of
from analysis.tables.ranking import rank
from analysis.tables.render.csv_text import to_csv
from analysis.tables.render.latex import to_latex
from analysis.tables.render.markdown import escape as markdown_escape
from analysis.tables.spec import ShowSpec, parse_spec
from pipeline.errors import UserError
from pipeline.evaluation.rows import RowMaker
from pipeline.records import MetricRow, RunStore, StudyMetric
from tests.analysis.synthetic import ARMS, PSNR, SSIM, Metric, SyntheticArm, fingerprint_of, make_study

GOLDEN = Path(__file__).parent / "golden"
FULL = TableSpec(title="Full", show=ShowSpec(delta=True, interval=True, stars=True, gain=True))
TWO = (SyntheticArm("a", "A", reference=True), SyntheticArm("b", "B", {"psnr": 1.0, "ssim": 0.1, "rmse": -0.05}))


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The default synthetic study, read only."""
    out = tmp_path_factory.mktemp("default")
    make_study(out)
    return load_study(out, "synthetic")


def table_of(out: Path, spec: TableSpec | None = None, **study: object) -> Table:
    make_study(out, **study)  # type: ignore[arg-type]
    return build_table(load_study(out, "synthetic"), spec or TableSpec())


def cell(table: Table, row: str, column: str) -> TableCell:
    index = [item.key for item in table.columns].index(column)
    return table.row(row).cells[index]


def notes_of(table: Table, row: str, column: str = "") -> str:
    texts = dict(table.footnotes)
    marks = cell(table, row, column).notes if column else table.row(row).notes
    return " | ".join(texts[mark] for mark in marks)


# -- numbers -----------------------------------------------------------------------------------------------------------


def test_cells_are_mean_and_sample_std_over_seeds(default: Study) -> None:
    table = build_table(default, TableSpec())
    frame = default.frame
    values = frame[(frame.arm == "spade") & (frame.metric == "psnr") & (frame.state == "trained")]["value"].to_numpy(
        float
    )
    found = cell(table, "spade", "psnr")
    assert found.value == pytest.approx(values.mean())
    assert found.std == pytest.approx(values.std(ddof=1))
    assert (found.n, len(found.run_ids)) == (3, 3)
    assert found.plain == f"{values.mean():.2f} ± {values.std(ddof=1):.2f}"


def test_untrained_rows_are_not_mixed_in_and_make_the_gain(default: Study) -> None:
    table = build_table(default, FULL)
    gain, trained = cell(table, "ca2sis", "psnr:gain"), cell(table, "ca2sis", "psnr")
    assert trained.value is not None
    assert gain.value == pytest.approx(trained.value - 8.0)
    assert gain.main.startswith("+")
    assert [column.key for column in table.columns if column.kind == "gain"] == ["psnr:gain"]


@pytest.mark.parametrize(
    ("values", "spreads", "decimals"),
    [
        ([24.31, 23.9], [0.25, 0.31], 2),
        ([0.7031], [0.0123], 3),
        ([0.7031], [], 4),
        ([24.3111], [], 2),
        ([1234.0, 5.0], [], 0),
        ([1234.0], [56.0], 0),
        ([0.5], [0.0996], 2),
        ([0.0], [], 0),
        ([], [], 0),
        ([1e-12], [1e-12], 8),
    ],
)
def test_precision_follows_the_spread(values: list[float], spreads: list[float], decimals: int) -> None:
    assert decimals_of(values, spreads) == decimals


@given(st.floats(-1e6, 1e6, allow_nan=False), st.integers(0, 6), st.booleans())
def test_printed_numbers_read_back(value: float, decimals: int, sign: bool) -> None:
    text = number(value, decimals, sign=sign)
    assert float(text.replace("−", "-")) == pytest.approx(value, abs=0.5 * 10**-decimals * (1 + 1e-9) + 1e-9)
    assert not re.fullmatch(r"[−+]0(\.0*)?", text)


def test_large_costs_are_scaled_with_their_unit() -> None:
    assert scale_of([1_234_567.0], "") == (1e6, "M")
    assert scale_of([2.5e11], "FLOP") == (1e9, "GFLOP")
    assert scale_of([24.0], "dB") == (1.0, "dB")
    assert scale_of([], "") == (1.0, "")


# -- ranks and ties ----------------------------------------------------------------------------------------------------


def test_best_and_second_follow_the_direction(default: Study) -> None:
    table = build_table(default, TableSpec())
    for column in table.columns:
        ranked = {row.key: cell(table, row.key, column.key) for row in table.rows if row.kind == "arm"}
        values = {key: item.value for key, item in ranked.items() if item.value is not None}
        order = sorted(values, key=lambda key: values[key], reverse=column.direction == "max")
        if column.kind == "metric":
            assert [ranked[key].rank for key in order[:3]] == ["best", "second", ""][: len(order)]
        else:
            assert {item.rank for item in ranked.values()} == {""}


def test_equal_prints_share_a_rank() -> None:
    assert rank({"a": 1.001, "b": 1.002, "c": 0.5, "d": 0.1}, "max", 2, 1.0) == {
        "a": "best",
        "b": "best",
        "c": "second",
    }
    assert rank({"a": 1.0, "b": 2.0}, "none", 2, 1.0) == {}
    assert rank({"a": 1.0}, "max", 2, 1.0) == {}
    assert rank({"a": 1.0, "b": 1.0}, "max", 2, 1.0) == {}


@given(st.dictionaries(st.text(max_size=3), st.floats(-100, 100), min_size=2, max_size=8))
def test_the_best_is_never_worse_than_any_other(means: dict[str, float]) -> None:
    ranks = rank(means, "min", 3, 1.0)
    for best in (key for key, word in ranks.items() if word == "best"):
        assert round(means[best], 3) == min(round(value, 3) for value in means.values())


def test_a_difference_within_noise_is_a_tie_and_a_clear_one_is_not(tmp_path: Path) -> None:
    arms = (
        SyntheticArm("best", reference=True, effects={"psnr": 0.02}),
        SyntheticArm("near"),
        SyntheticArm("far", effects={"psnr": -3.0}),
    )
    table = table_of(tmp_path, arms=arms, seeds=(0, 1, 2, 3, 4), metrics=(PSNR,))
    order = sorted(("best", "near"), key=lambda name: -(cell(table, name, "psnr").value or 0))
    assert not cell(table, order[0], "psnr").tie
    assert cell(table, order[1], "psnr").tie
    assert not cell(table, "far", "psnr").tie
    assert any("not distinguishable" in note for note in table.notes)


def test_one_seed_has_no_spread_no_ties_and_a_warning(tmp_path: Path) -> None:
    table = table_of(tmp_path, FULL, seeds=(0,))
    found = cell(table, "no_attention_loss", "psnr")
    assert (found.n, found.spread, found.tie, found.p_value) == (1, "", False, None)
    assert found.lower is not None  # over images alone, and said so
    assert any("cover the choice of test images only" in note for note in table.notes)
    assert any(text.startswith("One seed a cell") for text in table.warnings)
    assert "n = 1 seed a cell" in table.notes[0]


@pytest.mark.parametrize(("count", "warned"), [(4, True), (5, False)])
def test_fewer_than_five_seeds_are_warned_of(tmp_path: Path, count: int, warned: bool) -> None:
    table = table_of(tmp_path, arms=TWO, seeds=tuple(range(count)))
    assert any("Fewer than 5 seeds" in text for text in table.warnings) == warned


# -- the trivial baseline ----------------------------------------------------------------------------------------------


def test_the_trivial_baseline_stands_apart_and_is_not_ranked(default: Study) -> None:
    study, table = default, build_table(default, TableSpec())
    assert table.rows[-1].key == "painter"
    assert {item.rank for item in table.rows[-1].cells} == {""}
    assert "does not beat the trivial baseline (region-mean painter)" in notes_of(table, "spade", "psnr")
    assert notes_of(table, "ca2sis", "psnr") == ""
    assert build_table(study, TableSpec(baselines="top")).rows[0].key == "painter"
    assert all(row.key != "painter" for row in build_table(study, TableSpec(baselines="hide")).rows)


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


# -- comparisons -------------------------------------------------------------------------------------------------------


def test_differences_are_paired_by_seed_value(tmp_path: Path) -> None:
    table = table_of(tmp_path, FULL, arms=TWO, seeds=tuple(range(10)))
    frame = load_study(tmp_path, "synthetic").frame
    chosen = frame[(frame["metric"] == "psnr") & (frame["state"] == "trained")]
    wide = chosen.pivot(index="seed", columns="arm", values="value").astype(float)
    found = cell(table, "b", "psnr")
    assert found.difference == pytest.approx((wide["b"] - wide["a"]).mean())
    assert found.lower is not None
    assert found.upper is not None
    assert found.lower < found.difference < found.upper
    assert found.p_value == 2 / 2**10 * 4  # exact over ten seeds; the smallest of four p-values is multiplied by four
    assert cell(table, "a", "psnr").difference is None


def test_the_declared_family_decides_the_correction(tmp_path: Path) -> None:
    make_study(tmp_path, arms=TWO, seeds=tuple(range(10)))
    study = load_study(tmp_path, "synthetic")
    show = ShowSpec(delta=True, stars=True)
    by_table, by_metric = (
        cell(build_table(study, TableSpec(show=show, family=family)), "b", "psnr").p_value
        for family in ("table", "metric")
    )
    assert by_metric == 2 / 2**10
    assert by_table is not None
    assert by_table > by_metric


def test_no_reference_is_refused_when_differences_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="declares no reference arm"):
        table_of(tmp_path, FULL, arms=(SyntheticArm("a"), SyntheticArm("b")))


def test_with_a_pivot_each_data_set_has_its_own_floor(tmp_path: Path) -> None:
    still = {"seed_std": 0.0, "image_std": 0.0, "run_std": 0.0, "residual_std": 0.0}
    metrics = (PSNR, Metric("fd", "min", base=9.0), Metric("fd_floor", "none", base=1.25, **still))
    arms = [
        dataclasses.replace(arm, effects={"fd_floor": 2.0 if arm.levels["data"] == "scenes" else 0.0})
        for arm in data_factor()
    ]
    table = table_of(tmp_path, TableSpec(metrics=["psnr", "fd"], pivot="data"), arms=arms, metrics=metrics)
    (line,) = [text for text in table.notes if "two halves" in text]
    found = re.findall(r"(\w+), fd: two halves of the real images score (\d+\.\d+)", line)
    assert [(name, float(value)) for name, value in found] == [("faces", 1.25), ("scenes", 3.25)]


def test_a_rule_that_has_not_run_is_no_unequal_budget(tmp_path: Path) -> None:
    arms = (*TWO, SyntheticArm("rule", "painter", images_seen=0, states=dict.fromkeys((0, 1, 2), "missing")))
    assert not any("unequal" in text for text in table_of(tmp_path, arms=arms).warnings)


# -- layout ------------------------------------------------------------------------------------------------------------


def data_factor() -> list[SyntheticArm]:
    return [
        SyntheticArm(f"{model}-{data}", levels={"model": model, "data": data}, reference=model == "ca2sis",
                     effects={"psnr": -2.0 if model == "spade" else 0.0})
        for model in ("ca2sis", "spade") for data in ("faces", "scenes")
    ]  # fmt: skip


def test_pivot_makes_groups_of_columns(tmp_path: Path) -> None:
    table = table_of(tmp_path, TableSpec(metrics=["psnr", "ssim"], pivot="data"), arms=data_factor())
    assert [row.label for row in table.rows] == ["ca2sis", "spade"]
    assert table.column_groups == [("faces", 2), ("scenes", 2)]
    assert [column.key for column in table.columns] == ["faces/psnr", "faces/ssim", "scenes/psnr", "scenes/ssim"]
    assert cell(table, "ca2sis", "scenes/psnr").rank == "best"
    tex = to_latex(table)
    assert r"\multicolumn{2}{c}{faces} & \multicolumn{2}{c}{scenes} \\" in tex
    assert r"\cmidrule(lr){2-3} \cmidrule(lr){4-5}" in tex


def test_a_pivot_s_rows_are_called_what_their_arms_labels_share(tmp_path: Path) -> None:
    arms = [
        SyntheticArm("reference", "CA²-SIS", levels={"model": "ca2sis", "data": "faces"}, reference=True),
        SyntheticArm("b", "CA²-SIS, scenes", levels={"model": "ca2sis", "data": "scenes"}),
        SyntheticArm("c", "SPADE, mask only, faces", levels={"model": "spade", "data": "faces"}),
        SyntheticArm("d", "SPADE, mask only, scenes", levels={"model": "spade", "data": "scenes"}),
        SyntheticArm("e", "SEAN, faces", levels={"model": "sean", "data": "faces"}),
    ]
    table = table_of(tmp_path, TableSpec(metrics=["psnr"], pivot="data"), arms=arms)
    assert [row.label for row in table.rows] == ["CA²-SIS", "SPADE, mask only", "sean"]
    assert cell(table, "sean", "scenes/psnr").plain == ""


def test_by_data_has_the_difference_to_the_reference_on_the_same_data_set(tmp_path: Path) -> None:
    arms = [
        dataclasses.replace(arm, effects={"psnr": {"faces": 1.0, "scenes": -2.0}[arm.levels["data"]]})
        if arm.levels["model"] == "spade"
        else arm
        for arm in data_factor()
    ]
    table = table_of(tmp_path, load_spec("by_data")[1], arms=arms)
    assert table.column_groups[0][0] == "faces" and table.column_groups[-1][0] == "scenes"
    for column, effect in (("faces/psnr", 1.0), ("scenes/psnr", -2.0)):
        found = cell(table, "spade", column)
        assert found.difference == pytest.approx(effect, abs=0.6)
        assert found.lower is not None and found.upper is not None and found.lower < found.difference < found.upper


def test_a_baseline_that_has_run_on_one_data_set_alone_is_a_baseline(tmp_path: Path) -> None:
    """Seen with a study run data set by data set: the painter was ranked and compared as if it had learned."""
    arms = list(data_factor())
    for data in ("faces", "scenes"):
        states = {} if data == "faces" else dict.fromkeys(range(3), "missing")
        levels = {"model": "painter", "data": data}
        arms.append(SyntheticArm(f"painter-{data}", levels=levels, kind="rule", states=states, images_seen=0))
    table = table_of(tmp_path, load_spec("by_data")[1], arms=arms)
    assert table.row("painter").kind == "baseline"
    assert all(cell.difference is None and not cell.rank for cell in table.row("painter").cells)


def test_group_by_and_groups_make_groups_of_rows(tmp_path: Path) -> None:
    make_study(tmp_path, arms=data_factor())
    study = load_study(tmp_path, "synthetic")
    table = build_table(study, TableSpec(group_by="data", metrics=["psnr"]))
    assert {row.group for row in table.rows} == {"faces", "scenes"}
    spec = parse_spec(
        {"groups": [{"label": "Ours", "arms": ["ca2sis-faces"]}, {"label": "Others", "arms": ["spade-faces"]}]}, "x"
    )
    table = build_table(study, spec)
    assert [(row.group, row.key) for row in table.rows] == [("Ours", "ca2sis-faces"), ("Others", "spade-faces")]
    assert r"\multicolumn{5}{l}{\textit{Ours}} \\" in to_latex(table)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"arms": ["ca2siss"]}, r"has no arm 'ca2siss' \(did you mean ca2sis"),
        ({"pivot": "dataset"}, "has no factor 'dataset'; it has: arm"),
        ({"metrics": ["fid_*"]}, r"no recorded metric for this table \(looked for: fid_\*\)"),
    ],
)
def test_a_specification_that_does_not_fit_the_study_is_refused(default: Study, spec: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_table(default, parse_spec(spec, "spec"))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"metrcs": ["psnr"]}, r"spec.yaml: unknown key metrcs \(did you mean metrics"),
        ({"show": {"delta": "yes"}}, r'show.delta = "yes": it must be true or false'),
        ({"level": 1.5}, "level = 1.5: it must be less than 1"),
        ([1], "the file is a list; it must be a mapping"),
    ],
)
def test_a_wrong_specification_names_its_key(value: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_spec(value, "spec.yaml")


def test_shipped_specifications_are_valid_and_unknown_ones_named() -> None:
    assert set(shipped_specs()) >= {
        "main",
        "ablation",
        "baselines",
        "baselines_by_data",
        "editing",
        "robustness",
        "cost",
    }
    for name in shipped_specs():
        assert load_spec(name)[0] == name
    with pytest.raises(UserError, match="unknown table 'mian'.*did you mean main"):
        load_spec("mian")
    with pytest.raises(UserError, match="table file absent.yaml is missing"):
        load_spec("absent.yaml")


def test_labels_of_derived_metrics() -> None:
    assert metric_label("psnr") == "PSNR"
    assert metric_label("edit_psnr_style_transfer") == "Edit PSNR, style transfer"
    assert metric_label("robust_psnr_area_jitter") == "PSNR under mask noise, jitter"
    assert metric_label("my_metric") == "my metric"


def test_letters() -> None:
    assert [letter(index) for index in (0, 25, 26, 27, 701, 702)] == ["a", "z", "aa", "ab", "zz", "aaa"]


# -- the same bytes ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Table:
    """The table of the golden files."""
    arms = (
        *ARMS,
        SyntheticArm("broken", "broken", states={0: "failed", 1: "diverged", 2: "missing"}, levels={"arm": "broken"}),
    )
    return table_of(tmp_path_factory.mktemp("golden"), FULL, arms=arms)


@pytest.mark.parametrize("form", ["md", "tex", "csv", "html", "terminal"])
def test_golden_tables(golden: Table, form: str) -> None:
    """To renew after a wanted change: delete tests/analysis/golden/ and run this test once."""
    text = render(golden, form)
    path = GOLDEN / f"full.{form}"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        pytest.fail(f"{path.name} did not exist and was written: look at it and commit it")
    assert text == path.read_text()


def test_the_order_of_records_and_arms_on_disk_does_not_matter(tmp_path: Path) -> None:
    make_study(tmp_path, seeds=(0, 1, 2))
    before = render(build_table(load_study(tmp_path, "synthetic"), FULL), "csv")
    path = tmp_path / "synthetic" / "plan.json"
    plan = json.loads(path.read_text())
    plan["cells"].reverse()
    path.write_text(json.dumps(plan))
    assert render(build_table(load_study(tmp_path, "synthetic"), FULL), "csv") == before


# -- formats -----------------------------------------------------------------------------------------------------------

NASTY = [
    "<script>alert(1)</script>",
    r"100% \input{/etc/passwd} & $x_1^2$ #5 ~ {}",
    "| pipe | **bold** `code` [link](http://x)",
    "=cmd|' /C calc'!A0",
    "naïve Größe 汉字 🎨 α→β\x1b[31m",
    '"quoted", comma\nnewline',
]


class Cells(HTMLParser):
    """Collects tags and the text of the row headers."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.labels: list[str] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "th" and ("scope", "row") in attrs:
            self._inside = True
            self.labels.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "th":
            self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.labels[-1] += data


def nasty_table(out: Path) -> Table:
    arms = [SyntheticArm(f"arm{index}", label, reference=index == 0) for index, label in enumerate(NASTY)]
    return table_of(out, arms=arms, seeds=(0,), metrics=(PSNR,))


def test_html_injects_nothing(tmp_path: Path) -> None:
    parser = Cells()
    parser.feed(render(nasty_table(tmp_path), "html"))
    assert "script" not in parser.tags
    assert parser.labels == NASTY


def test_csv_is_read_back_whole_and_runs_no_formula(tmp_path: Path) -> None:
    import csv
    import io

    table = nasty_table(tmp_path)
    rows = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert [row["label"] for row in rows] == [f"'{label}" if label.startswith("=") else label for label in NASTY]
    assert [float(row["psnr"]) for row in rows] == pytest.approx([row.cells[0].value for row in table.rows])


def test_markdown_keeps_its_columns(tmp_path: Path) -> None:
    lines = [line for line in render(nasty_table(tmp_path), "md").splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(NASTY)
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {3}
    assert markdown_escape("<b>*a*") == r"&lt;b&gt;\*a\*"


def test_a_wide_table_is_split_into_blocks_without_broken_cells(tmp_path: Path) -> None:
    metrics = [PSNR, *(dataclasses.replace(SSIM, name=f"ssim_{index}") for index in range(12))]
    table = table_of(tmp_path, FULL, arms=TWO, metrics=metrics)
    text = render(table, "terminal")
    assert max(map(len, text.splitlines())) <= 120
    assert "…" not in text
    assert text.count("(continued)") >= 1
    for row in table.rows:
        for item in row.cells:
            assert f"{item.main} ± {item.spread}" in text
            assert all(detail in text for detail in item.details)


def test_a_pattern_in_a_group_is_labelled_by_what_it_matches(tmp_path: Path) -> None:
    metrics = (
        PSNR,
        dataclasses.replace(SSIM, name="edit_ssim_style"),
        dataclasses.replace(SSIM, name="edit_ssim_shape"),
    )
    spec = parse_spec({"metrics": [{"metric": "edit_ssim_*", "group": "Edit SSIM"}]}, "spec")
    table = table_of(tmp_path, spec, arms=TWO, metrics=metrics)
    assert [(column.group, column.label) for column in table.columns] == [
        ("Edit SSIM", "shape"),
        ("Edit SSIM", "style"),
    ]


def test_terminal_prints_no_control_characters(tmp_path: Path) -> None:
    text = render(nasty_table(tmp_path), "terminal")
    assert "\x1b" not in text


# -- robustness of the whole -------------------------------------------------------------------------------------------


def test_every_state_in_every_place_gives_a_table(tmp_path: Path) -> None:
    """Random wreckage: whatever states runs are in, the table is built and no cell shows a number it should not."""
    generator = np.random.default_rng(3)
    states = ("finished", "failed", "diverged", "missing", "planned", "preempted", "pruned")
    for trial in range(6):
        arms = [
            SyntheticArm(
                f"arm{index}",
                reference=index == 0,
                states={seed: str(generator.choice(states)) for seed in range(3)},
                kind="rule" if index == 3 else "trained",
            )
            for index in range(4)
        ]
        out = tmp_path / str(trial)
        make_study(out, arms=arms, metrics=(PSNR, SSIM, Metric("odd", "none")), history=False)
        try:
            table = build_table(load_study(out, "synthetic"), FULL)
        except UserError as error:
            assert "no recorded metric" in str(error)
            continue
        for arm, row in ((arm, table.row(arm.name)) for arm in arms):
            finished = sum(arm.states[seed] == "finished" for seed in range(3))
            psnr = cell(table, row.key, "psnr")
            assert psnr.n == finished
            assert (psnr.value is None) == (finished == 0)
            assert psnr.value is None or math.isfinite(psnr.value)
            assert finished == 3 or psnr.notes
