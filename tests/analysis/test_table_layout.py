"""Tables: pivots, groups of rows, specifications and labels."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from analysis.frame import load_study
from analysis.labels import metric_label
from analysis.study import Study
from analysis.tables import TableSpec, build_table, load_spec, shipped_specs
from analysis.tables.model import letter
from analysis.tables.render.latex import to_latex
from analysis.tables.spec import parse_spec
from pipeline.errors import UserError
from tests.analysis.small_tables import cell, data_factor, table_of
from tests.analysis.synthetic import SyntheticArm, make_study

# -- layout ------------------------------------------------------------------------------------------------------------


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
    assert [(row.group, row.key) for row in table.rows] == [
        ("Ours", "ca2sis-faces"), ("Others", "spade-faces"), ("", "ca2sis-scenes"), ("", "spade-scenes")
    ]  # fmt: skip
    assert r"\multicolumn{5}{l}{\textit{Ours}} \\" in to_latex(table)


def test_arms_of_no_group_stand_below_the_groups(default: Study) -> None:
    ours = [{"label": "Ours", "arms": ["spade_conditioning", "ca2sis"]}]
    rows = build_table(default, parse_spec({"groups": ours}, "spec")).rows
    assert [(row.group, row.key) for row in rows] == [
        ("Ours", "spade_conditioning"), ("Ours", "ca2sis"), ("", "no_attention_loss"), ("", "spade"), ("", "painter")
    ]  # fmt: skip
    chosen = parse_spec({"groups": ours, "arms": ["spade", "ca2sis", "painter", "spade_conditioning"]}, "spec")
    assert [(row.group, row.key) for row in build_table(default, chosen).rows] == [
        ("Ours", "ca2sis"), ("Ours", "spade_conditioning"), ("", "spade"), ("", "painter")
    ]  # fmt: skip


def test_a_group_that_names_one_arm_of_a_pivot_s_row_holds_the_row(tmp_path: Path) -> None:
    ours = [{"label": "Ours", "arms": ["spade-faces"]}]
    spec = parse_spec({"groups": ours, "pivot": "data", "metrics": ["psnr"]}, "spec")
    table = table_of(tmp_path, spec, arms=data_factor())
    assert [(row.group, row.label) for row in table.rows] == [("Ours", "spade"), ("", "ca2sis")]
    assert all(cell(table, row, f"{data}/psnr").value for row in ("spade", "ca2sis") for data in ("faces", "scenes"))


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
