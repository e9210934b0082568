"""Quality against cost, and the agreement of metrics: the front, whose runs count, and what a blind judge leaves out."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from analysis.figures.load import figure_data
from analysis.figures.model import NotDrawable
from analysis.figures.study_data import StudyData
from analysis.figures.tradeoff import draw_correlation, draw_pareto, pareto_front
from analysis.frame import load_study
from analysis.overview import overview
from analysis.study import Study
from pipeline.records import MetricRow, RunStore
from tests.analysis.synthetic import PSNR, SSIM, Metric, SyntheticArm, fingerprint_of, make_study

ARMS = (
    SyntheticArm("a", "A", {"psnr": 1.0, "seg_miou": 0.1}, reference=True, provenance={"params": 2e6}),
    SyntheticArm("b", "B"),
    SyntheticArm("painter", "painter", {"psnr": -9.0, "seg_miou": 0.3}, kind="rule"),
)
SCORE = Metric("seg_miou", "max", "", 0.3, 0.01, 0.0, 0.01, 0.0, per_image=False, role="primary")


def bound(name: str, value: float) -> Metric:
    return Metric(name, "none", "", value, 0.0, 0.0, 0.0, 0.0, per_image=False)


def judged_by(out: Path, skill: float) -> Study:
    """A study about a metric of a segmenter of this skill, whose arms differ in a cost."""
    metrics = (
        SCORE, dataclasses.replace(PSNR, role="secondary"), SSIM, bound("seg_miou_real", 0.5), bound("seg_miou_floor", 0.04),
        bound("seg_skill_low", skill),
    )  # fmt: skip
    manifest = make_study(out, arms=ARMS, metrics=metrics, costs=False)
    for item in manifest.cells:
        latency = MetricRow(
            "latency_ms", {"a": 5.0, "b": 7.0}.get(item.arm, 1.0), 1, "ms", "min", "", "standard", "cpu"
        )
        RunStore(out / "runs").record(item.run_id).add_metrics([latency])
    return load_study(out, "synthetic")


def test_a_segmenter_that_cannot_judge_ranks_no_arm_and_agrees_with_no_metric(tmp_path: Path) -> None:
    blind, seeing = (
        figure_data(judged_by(tmp_path / name, skill)) for name, skill in (("blind", 0.0), ("seeing", 0.8))
    )
    reason = blind.unjudged["seg_miou"]
    with pytest.raises(NotDrawable, match="the segmenter cannot judge") as caught:
        draw_pareto(blind)
    assert str(caught.value) == reason
    drawn = draw_correlation(blind)
    assert "mIoU" not in drawn.alt and f"Left out is mIoU: {reason}." in drawn.caption
    assert draw_pareto(seeing).title == "mIoU against latency"
    drawn = draw_correlation(seeing)
    assert "mIoU" in drawn.alt and "Left out" not in drawn.caption


def test_figure_and_comparison_correlate_the_same_runs_and_no_rule(tmp_path: Path) -> None:
    """Three equal runs of the painter, far from all others, would make any two metrics agree."""
    study = judged_by(tmp_path, 0.8)
    data = figure_data(study)
    runs = [(arm, seed) for arm in ("a", "b") for seed in (0, 1, 2)]
    psnr, score = ([data.values[name][arm][seed] for arm, seed in runs] for name in ("psnr", "seg_miou"))
    expected = float(stats.spearmanr(psnr, score).statistic)
    found = {frozenset((item.first, item.second)): item for item in overview(study).correlations}
    pair = found[frozenset(("psnr", "seg_miou"))]
    assert (pair.n, pair.coefficient) == (6, pytest.approx(expected))
    drawn = draw_correlation(data)
    assert f"PSNR and mIoU {expected:+.2f}" in drawn.alt
    assert "at least 6 runs a pair" in drawn.caption and "not independent" in drawn.caption


def test_a_metric_of_several_versions_counts_by_the_one_all_runs_share(tmp_path: Path) -> None:
    """Two versions without a shared one leave that metric out, by name, and no other."""
    make_study(tmp_path, arms=ARMS[:2], metrics=(PSNR, SSIM, dataclasses.replace(SCORE, role="secondary")))
    store, cells = RunStore(tmp_path / "runs"), load_study(tmp_path, "synthetic").manifest.cells
    old = MetricRow("ssim", 0.1, 12, "", "max", "val", "standard", "0" * 64)
    store.record(cells[0].run_id).add_metrics([old])  # beside the present version, which all runs have
    before = overview(load_study(tmp_path, "synthetic"))
    assert {frozenset((item.first, item.second)) for item in before.correlations} == {
        frozenset(pair) for pair in (("psnr", "ssim"), ("psnr", "seg_miou"), ("ssim", "seg_miou"))
    }
    assert all(item.n == 6 for item in before.correlations)
    path = store.record(cells[1].run_id).path / "metrics.json"
    path.write_text(path.read_text().replace(fingerprint_of("ssim"), "f" * 64))
    after = overview(load_study(tmp_path, "synthetic"))
    assert [(item.first, item.second) for item in after.correlations] == [("psnr", "seg_miou")]
    assert "Rank correlations are without SSIM: its runs share no one version." in after.warnings


def test_metrics_of_too_few_runs_or_without_spread_agree_with_nothing(tmp_path: Path) -> None:
    def data(name: str, seeds: tuple[int, ...], *metrics: Metric) -> StudyData:
        make_study(tmp_path / name, arms=ARMS[:2], seeds=seeds, metrics=metrics)
        return figure_data(load_study(tmp_path / name, "synthetic"))

    with pytest.raises(NotDrawable, match="at least three runs"):
        draw_correlation(data("few", (0,), PSNR, SSIM))
    with pytest.raises(NotDrawable, match="no two metrics vary together"):
        draw_correlation(data("constant", (0, 1), PSNR, bound("haarpsi", 0.5)))


def test_pareto_front_by_direction() -> None:
    points = {"cheap": (1.0, 10.0), "good": (3.0, 20.0), "bad": (4.0, 15.0), "same": (3.0, 20.0), "middle": (2.0, 9.0)}
    assert pareto_front(points, "min", "max") == ["cheap", "good", "same"]
    assert pareto_front(points, "max", "max") == ["good", "same", "bad"]
    assert pareto_front(points, "min", "min") == ["cheap", "middle"]


@given(st.dictionaries(st.text(max_size=3), st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=1, max_size=8))
def test_pareto_front_is_never_empty_and_undominated(points: dict[str, tuple[float, float]]) -> None:
    front = pareto_front(points, "min", "max")
    assert front
    for name in front:
        x, y = points[name]
        assert not any((a < x and b >= y) or (a <= x and b > y) for a, b in points.values())
