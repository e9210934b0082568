"""Columns that rest on a segmenter that cannot judge: marked in every format, neither ranked nor compared nor claimed with."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from analysis.claims import Claim, judge
from analysis.commands.compare import describe
from analysis.figures.comparison import draw_forest
from analysis.figures.load import figure_data
from analysis.figures.model import NotDrawable
from analysis.frame import load_study
from analysis.overview import overview
from analysis.report.verdict import write_verdict
from analysis.study import Study
from analysis.tables import Table, TableSpec, build_table, render
from analysis.tables.spec import ShowSpec
from pipeline.records.judge import LEAST_SKILL
from tests.analysis.synthetic import PSNR, Metric, SyntheticArm, make_study

REASON = (
    "the segmenter cannot judge these photos: mIoU 0.052 on the real ones, 0.045 by one class everywhere "
    "(skill at least 0.00; more than 0.2 is needed)"
)
ARMS = (
    SyntheticArm("a", "A", {"seg_miou": 0.02, "fd_seg": -1.0, "psnr": 1.0}, reference=True),
    SyntheticArm("b", "B"),
    SyntheticArm("painter", "painter", {"seg_miou": 0.05}, kind="rule"),
)
CLAIM = Claim(
    id="c",
    says="A shows the mask better.",
    metric="seg_miou",
    better={"arm": "a"},
    worse={"arm": "b"},
    may_differ=["model.*"],
)


def fixed(name: str, value: float) -> Metric:
    return Metric(name, "none", "", value, 0.0, 0.0, 0.0, 0.0, per_image=False)


def score(name: str, base: float, direction: str = "max", role: str = "secondary") -> Metric:
    return Metric(name, direction, "", base, 0.001, 0.0, 0.001, 0.0, per_image=False, role=role)


def study(
    out: Path, low: float | None, *, real: float = 0.052, floor: float = 0.045, primary: str = "seg_miou"
) -> Study:
    """A study whose segmenter has the skill `low` at least; None: an older one, which did not measure it."""
    metrics = [
        score("seg_miou", 0.05), score("edit_mask_agreement_shape_transfer", 0.2), score("fd_seg", 9.0, "min"),
        dataclasses.replace(PSNR, role="secondary", untrained=None), fixed("seg_miou_real", real),
    ]  # fmt: skip
    metrics = [dataclasses.replace(item, role="primary") if item.name == primary else item for item in metrics]
    if low is not None:
        metrics += [fixed("seg_miou_floor", floor), fixed("seg_skill_low", low)]
    make_study(out, arms=ARMS, metrics=metrics)
    return load_study(out, "synthetic")


SPEC = TableSpec(
    metrics=["psnr", "seg_miou", "edit_mask_agreement_shape_transfer", "fd_seg"], show=ShowSpec(delta=True, stars=True)
)


def marks_of(table: Table, column: str) -> list[str]:
    index = [item.key for item in table.columns].index(column)
    return [row.cells[index].rank for row in table.rows if row.kind == "arm"]


@pytest.fixture(scope="module")
def blind(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return study(tmp_path_factory.mktemp("blind"), 0.004)


def test_what_rests_on_a_blind_segmenter_is_marked_and_not_ranked(blind: Study) -> None:
    table = build_table(blind, SPEC)
    assert marks_of(table, "psnr") == ["best", "second"]
    for column in table.columns[1:]:
        assert marks_of(table, column.key) == ["", ""]
        assert [dict(table.footnotes)[mark] for mark in column.notes] == [f"not ranked: {REASON}"]
    assert not any(cell.tie or cell.details or cell.notes for row in table.rows for cell in row.cells[1:])
    assert table.rows[1].cells[0].details, "what rests on pixels is compared as ever"
    assert any(text == f"The primary metric mIoU ranks nothing here: {REASON}." for text in table.warnings)


@pytest.mark.parametrize(
    ("form", "mark"),
    [
        ("md", "mIoU ↑<sup>a</sup>"),
        ("tex", r"mIoU $\uparrow$\textsuperscript{a}"),
        ("html", "</span><sup>a</sup></th>"),
    ],
)
def test_every_format_marks_the_heading_and_says_why(blind: Study, form: str, mark: str) -> None:
    text = render(build_table(blind, SPEC), form)
    assert mark in text and "not ranked: the segmenter cannot judge these photos: mIoU 0.052" in text


def test_terminal_and_csv_say_it_too(blind: Study) -> None:
    table = build_table(blind, SPEC)
    terminal = " ".join(render(table, "terminal").split())
    assert "(a)" in terminal and f"(a) not ranked: {REASON}" in terminal
    assert f"seg_miou: not ranked: {REASON}" in render(table, "csv")


def test_a_segmenter_that_can_judge_ranks(tmp_path: Path) -> None:
    able = build_table(study(tmp_path, LEAST_SKILL + 0.01, real=0.4), SPEC)
    assert marks_of(able, "seg_miou") == ["best", "second"] and marks_of(able, "fd_seg") == ["best", "second"]
    assert not any(column.notes for column in able.columns)
    assert any(
        "the real images themselves score 0.400" in text and "one class everywhere score 0.045" in text
        for text in able.notes
    )


def test_an_older_record_is_ranked_and_says_that_nobody_knows(tmp_path: Path) -> None:
    old = build_table(study(tmp_path, None), SPEC)
    assert marks_of(old, "seg_miou") == ["best", "second"]
    assert any("mIoU" in text and "its floor was not measured" in text for text in old.notes)
    assert not any("PSNR" in text and "its floor was not measured" in text for text in old.notes)


def test_claims_on_it_are_not_testable(blind: Study, tmp_path: Path) -> None:
    (found,) = judge(blind, [CLAIM])
    assert (found.verdict, found.reason) == ("not testable", f"seg_miou: {REASON}")
    (found,) = judge(blind, [CLAIM.model_copy(update={"metric": ["psnr", "fd_seg"]})])
    assert [item.metric for item in found.evidence] == ["psnr"] and found.reason == f"fd_seg: {REASON}"
    assert found.verdict != "supported"
    (found,) = judge(study(tmp_path, 0.3), [CLAIM])
    assert found.verdict == "supported"


def test_compare_report_and_figures_conclude_nothing_from_it(blind: Study) -> None:
    found = overview(blind)
    assert all(line.comparison is None for line in found.lines)
    assert f"! The primary metric mIoU ranks nothing here: {REASON}." in describe(found)
    assert f"! FD (segmenter) compares nothing: {REASON}." in describe(overview(blind, "fd_seg"))
    assert {name for item in found.correlations for name in (item.first, item.second)}.isdisjoint(
        {"seg_miou", "fd_seg"}
    )
    assert overview(blind, "psnr").lines[1].comparison is not None
    data = figure_data(blind)
    assert write_verdict(data).lead == f"mIoU decides nothing: {REASON}."
    with pytest.raises(NotDrawable, match="cannot judge"):
        draw_forest(data, data.metric("seg_miou"))
