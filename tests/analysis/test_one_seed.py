"""Arms of one seed beside arms of more: nothing calls them better, best or as sure as the others without saying so."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from analysis.__main__ import main
from analysis.figures.comparison import draw_arms, draw_forest
from analysis.figures.curves import draw_learning
from analysis.figures.load import figure_data
from analysis.figures.study_data import Estimate, estimate, interval_in_words
from analysis.figures.style import figure_style
from analysis.figures.tradeoff import draw_pareto
from analysis.frame import load_study
from analysis.report.verdict import write_verdict
from tests.analysis.drawn import study
from tests.analysis.small_tables import cell, table_of
from tests.analysis.synthetic import ARMS, PSNR, SyntheticArm, make_study


def test_an_arm_of_one_seed_is_undecided_beside_arms_of_more_and_every_finding_says_its_n(tmp_path: Path) -> None:
    lost = dict.fromkeys(range(1, 5), "missing")
    arms = (*ARMS[:3], dataclasses.replace(ARMS[3], states=lost), ARMS[4])
    make_study(tmp_path, arms=arms, seeds=range(5), metrics=(PSNR,), history=False)
    data = figure_data(load_study(tmp_path, "synthetic"))
    item = data.comparisons["psnr"]["spade"]
    assert item.interval is not None and item.interval.excludes(0.0)  # 3 dB: over images alone it looks decided
    verdict = write_verdict(data)
    found = {finding.arm: finding for finding in verdict.findings if finding.arm and "trivial" not in finding.text}
    assert {arm: finding.tone for arm, finding in found.items()} == {
        "no_attention_loss": "worse",
        "spade_conditioning": "worse",
        "spade": "untested",
    }
    assert found["spade"].text.startswith("SPADE against CA²-SIS is undecided (n = 1): −")
    assert "95 % interval over test images −" in found["spade"].text and found["spade"].text.endswith(", n = 1 seed.")
    assert found["spade_conditioning"].text.endswith(", n = 5 seeds.")
    assert verdict.lead.endswith(
        "(n = 5 seeds). Against CA²-SIS, of 3 other arms: 2 clearly worse, 1 undecided (n = 1)."
    )
    assert any(re.search(r"SPADE does not beat the trivial .*, n = 1 seed\.", item.text) for item in verdict.findings)
    assert "(n = 1) allows no such test" in verdict.rule
    assert main(["report", "synthetic", "--out", str(tmp_path)]) == 0
    words = (tmp_path / "synthetic" / "report.html").read_text()
    assert "Undecided: </span>SPADE against CA²-SIS is undecided (n = 1)" in words
    assert "hence over test images alone (narrower: training noise is not in them): SPADE." in words


def test_marks_whose_intervals_cover_less_are_named(tmp_path: Path) -> None:
    lost = {1: "missing", 2: "failed"}
    data = study(tmp_path, arms=(*ARMS[:3], dataclasses.replace(ARMS[3], states=lost), ARMS[4]))
    psnr, whole = data.metric("psnr"), data.metric("attention_iou")
    named = "Of one seed, hence over test images alone (narrower: training noise is not in them): SPADE."
    bars = f"Bars: 95 % intervals, over seeds and 12 test images. {named}"
    params = {arm: {0: float(index)} for index, arm in enumerate(data.arms)}
    data = dataclasses.replace(data, values={**data.values, data.costs[0].name: params})
    with figure_style():
        for drawing in (draw_arms(data, psnr), draw_forest(data, psnr), draw_pareto(data)):
            assert bars in drawing.caption
        assert "Of one seed" not in draw_arms(data, whole).caption  # SPADE has no attention
        assert "One seed, hence no band: SPADE." in draw_learning(data, psnr).caption
    many, few, one = Estimate(1, 0, 2, 3, 8), Estimate(1, 0, 2, 3, 1), Estimate(1, 0, 2, 1, 12)
    assert interval_in_words([("A", many), ("B", few), ("C", one), ("D", estimate([1.0]))]) == (
        "Bars: 95 % intervals, over seeds and 8 to 12 test images. "
        "No values by image, hence over seeds alone: B. "
        "Of one seed, hence over test images alone (narrower: training noise is not in them): C. "
        "One seed and no values by image, hence no bar: D."
    )
    assert interval_in_words([("A", few), ("B", few)]) == "Bars: 95 % intervals, over seeds (Student's t)."


@pytest.mark.parametrize("lone", ["best", "far"])
def test_ranks_by_one_seed_among_more_are_warned_of_and_called_untested(tmp_path: Path, lone: str) -> None:
    lost = dict.fromkeys(range(1, 5), "missing")
    shifts = {"best": 5.0, "near": 0.0, "far": -3.0}
    arms = [
        SyntheticArm(
            name, f"arm {name}", {"psnr": shift}, reference=name == "near", states=lost if name == lone else {}
        )
        for name, shift in shifts.items()
    ]
    table = table_of(tmp_path, arms=arms, seeds=range(5), metrics=(PSNR,), costs=False)
    assert [cell(table, name, "psnr").rank for name in shifts] == ["best", "second", ""]
    assert not any(cell(table, name, "psnr").tie for name in shifts)
    untold = "not tested against the best: cells that share fewer than two seeds with it"
    assert f"Bold: best; underlined: second; {untold}." in table.notes
    assert f"Ranked by one seed (n = 1) beside cells of more: arm {lone}; these ranks may be chance." in table.warnings


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_equal_numbers_of_seeds_need_no_word_about_untested_ranks(tmp_path: Path, seeds: tuple[int, ...]) -> None:
    table = table_of(tmp_path, seeds=seeds, metrics=(PSNR,), costs=False)
    assert not any("not tested" in text or "Ranked by one seed" in text for text in (*table.notes, *table.warnings))


def test_seeds_that_are_not_shared_are_called_untested_too(tmp_path: Path) -> None:
    arms = (
        SyntheticArm("a", states={2: "missing", 3: "missing"}, effects={"psnr": 5.0}),
        SyntheticArm("b", states={0: "missing", 1: "missing"}),
    )
    table = table_of(tmp_path, arms=arms, seeds=range(4), metrics=(PSNR,), costs=False)
    assert any("share fewer than two seeds" in text for text in table.notes)
    assert not any("Ranked by one seed" in text for text in table.warnings)
