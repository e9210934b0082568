"""Tables: numbers, ranks, ties, the baseline, and differences with their intervals."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.frame import load_study
from analysis.study import Study
from analysis.tables import TableSpec, build_table
from analysis.tables.numbers import decimals_of, number, scale_of
from analysis.tables.ranking import rank
from analysis.tables.spec import ShowSpec
from pipeline.errors import UserError
from pipeline.records import RunStore
from tests.analysis.small_tables import FULL, TWO, cell, data_factor, notes_of, table_of
from tests.analysis.synthetic import PSNR, SSIM, Metric, SyntheticArm, make_study

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


def test_the_family_of_a_metric_goes_over_all_data_sets(tmp_path: Path) -> None:
    spec = TableSpec(metrics=["psnr", "ssim"], pivot="data", show=ShowSpec(delta=True, stars=True), family="metric")
    table = table_of(tmp_path, spec, arms=data_factor(), seeds=tuple(range(10)), metrics=(PSNR, SSIM))
    smallest = 2 / 2**10  # the exact test's, on either data set; corrected over both
    assert [cell(table, "spade", f"{data}/psnr").p_value for data in ("faces", "scenes")] == [2 * smallest] * 2
    (line,) = [text for text in table.notes if "Holm" in text]
    assert "(paired permutation test over seeds, Holm-corrected within each metric, 2 comparisons each)" in line


def test_families_of_different_sizes_are_told_so(default: Study) -> None:
    show = ShowSpec(stars=True)
    (line,) = [text for text in build_table(default, TableSpec(show=show, family="metric")).notes if "Holm" in text]
    assert "Holm-corrected within each metric, 1 to 3 comparisons each)" in line  # two arms have no attention
    (line,) = [text for text in build_table(default, TableSpec(show=show)).notes if "Holm" in text]
    assert "Holm-corrected within the table, 10 comparisons)" in line


WHOLE = (
    dataclasses.replace(PSNR, name="fid", role="secondary", per_image=False),
    dataclasses.replace(SSIM, name="seg_miou", per_image=False),
)


@pytest.mark.parametrize(
    ("metrics", "pairing", "over"),
    [
        ((PSNR,), "seed and test image", "over seeds and images"),
        (WHOLE, "seed", "over seeds"),
        (
            (PSNR, SSIM, WHOLE[0]),
            "seed, and by test image where the interval is over images",
            "over seeds and images (FID: over seeds alone)",
        ),
        (
            (PSNR, *WHOLE),
            "seed, and by test image where the interval is over images",
            "over seeds (PSNR: over seeds and images)",
        ),
    ],
    ids=["all by image", "none by image", "few by seeds", "few by image"],
)
def test_the_note_says_which_intervals_are_over_images(
    tmp_path: Path, metrics: tuple[Metric, ...], pairing: str, over: str
) -> None:
    show = ShowSpec(delta=True, interval=True, stars=True)
    table = table_of(tmp_path, TableSpec(show=show), arms=TWO, metrics=metrics, costs=False)
    (line,) = [text for text in table.notes if text.startswith("Δ")]
    assert line.startswith(f"Δ: difference to A, paired by {pairing}; [ ]: 95% interval {over}; *, **, ***: p")
    assert "(paired t test over seeds, Holm" in line
    without = build_table(load_study(tmp_path, "synthetic"), TableSpec(show=ShowSpec(delta=True)))
    assert "Δ: difference to A, paired by seed." in without.notes, "no interval is shown, and Δ is a mean over seeds"


def test_a_column_with_both_kinds_of_intervals_is_named_so(tmp_path: Path) -> None:
    arms = (*TWO, SyntheticArm("c", "C"))
    manifest = make_study(tmp_path, arms=arms, metrics=(PSNR,))
    for item in manifest.cells:
        if item.arm == "c":
            (RunStore(tmp_path / "runs").record(item.run_id).path / "per_image.parquet").unlink()
    table = build_table(load_study(tmp_path, "synthetic"), TableSpec(show=ShowSpec(delta=True, interval=True)))
    assert any("over seeds and images (PSNR in part: over seeds alone)." in text for text in table.notes)


def test_no_reference_is_refused_when_differences_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="declares no reference arm"):
        table_of(tmp_path, FULL, arms=(SyntheticArm("a"), SyntheticArm("b")))


@pytest.mark.parametrize("named", [None, "ca2sis"])
def test_a_reference_that_the_specification_leaves_out_is_named(default: Study, named: str | None) -> None:
    show = ShowSpec(delta=True)
    with pytest.raises(UserError) as caught:
        build_table(default, TableSpec(arms=["spade", "no_attention_loss"], reference=named, show=show))
    assert str(caught.value) == (
        "reference arm 'ca2sis' is not among `arms` of the table's specification: add it there, or name one of them (reference)"
    )
    with pytest.raises(UserError, match="reference arm 'painter' is a trivial baseline, .* hides .baselines: hide."):
        build_table(default, TableSpec(reference="painter", baselines="hide", show=show))
    table = build_table(default, TableSpec(arms=["spade", "no_attention_loss"], reference="spade", show=show))
    assert cell(table, "no_attention_loss", "psnr").difference is not None


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
