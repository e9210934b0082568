"""Figures: the numbers they draw, what they leave out, and that equal studies give equal bytes."""

from __future__ import annotations

import dataclasses
import math
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.legend import Legend
from scipy import stats

from analysis.__main__ import main
from analysis.figures.access import draw_access
from analysis.figures.build import _plan, build_figures
from analysis.figures.comparison import draw_arms, draw_forest
from analysis.figures.curves import learning_curve
from analysis.figures.interaction import crossed_factors, draw_interaction
from analysis.figures.load import figure_data
from analysis.figures.model import NotDrawable, render
from analysis.figures.robustness import corrupted_metrics, draw_robustness
from analysis.figures.samples import Edit, choose
from analysis.figures.study_data import estimate
from analysis.figures.style import arm_looks, figure_style, number, shorten, wrap
from analysis.frame import load_study
from pipeline.errors import UserError
from pipeline.records import MetricRow, RunStore, StudyManifest
from tests.analysis.drawn import OPTIONS, drawn_and_left_out, study
from tests.analysis.sample_images import CLASSES
from tests.analysis.synthetic import ARMS, PSNR, SyntheticArm, make_study

# -- arithmetic -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(22.3, 4, "22.30"), (-0.1774, 3, "−0.177"), (9.9996, 4, "10.00"), (0.0, 4, "0"), (1234567.0, 3, "1234567"),
     (2.5e9, 3, "2.50e+09"), (0.00012345, 3, "0.000123"), (1e-7, 2, "1.0e-07"), (math.inf, 3, "inf")],
)  # fmt: skip
def test_numbers_keep_their_digits_and_a_true_minus(value: float, digits: int, text: str) -> None:
    assert number(value, digits) == text


def test_signed_numbers() -> None:
    assert number(1.5, 3, sign=True) == "+1.50"
    assert number(-1.5, 3, sign=True) == "−1.50"


@given(st.text(max_size=80), st.integers(4, 30))
def test_labels_never_exceed_their_width_or_lines(text: str, width: int) -> None:
    assert len(shorten(text, width)) <= width
    assert wrap(text, width, 3).count("\n") <= 2


def test_estimate_is_students_interval() -> None:
    values = [20.1, 19.7, 20.6]
    low, high = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    found = estimate(values)
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert estimate([3.0]).low is None
    with pytest.raises(ValueError, match="at least one"):
        estimate([])


def test_every_arm_has_its_own_look() -> None:
    arms = [f"arm{index}" for index in range(30)]
    looks = arm_looks([*arms, "rule"], reference="arm7", trivial=["rule"])
    assert len({(look.colour, look.marker, str(look.dash)) for look in looks.values()}) == 31
    assert looks["arm7"] == arm_looks(["a"])["a"]  # the reference takes the first look
    assert list(looks) == [*arms, "rule"]


def test_robustness_curves_are_recognised_by_name() -> None:
    names = ["robust_psnr_erosion_0.1", "robust_psnr_erosion_0.3", "robust_psnr_area_erosion", "robust_ssim_jitter_2",
             "psnr", "robust_psnr_class_confusion_0", "robust_psnr_class_confusion_0.2"]  # fmt: skip
    curves = corrupted_metrics(names)
    assert [(curve.metric, curve.kind, list(curve.levels)) for curve in curves] == [
        ("psnr", "class_confusion", [0.0, 0.2]),
        ("psnr", "erosion", [0.1, 0.3]),
    ]  # one level alone is no curve


# -- choice of inputs -----------------------------------------------------------------------------------------------------


def test_spread_takes_best_median_worst_by_direction() -> None:
    scores = {"a": 1.0, "b": 5.0, "c": 3.0, "d": 2.0, "e": 4.0}
    up = choose(list(scores), scores, "max", "spread", 3, "PSNR")
    assert (up.keys, up.words) == (("b", "c", "a"), ("best", "median", "worst"))
    assert choose(list(scores), scores, "min", "spread", 3).keys == ("a", "c", "b")
    assert choose(list(scores), scores, "max", "spread", 99).keys == ("b", "e", "c", "d", "a")


def test_spread_without_scores_says_that_it_is_not() -> None:
    found = choose(["a", "b", "c"], {"a": 1.0}, "max", "spread", 2)
    assert found.keys == ("a", "b")
    assert "no score" in found.rule


def test_seeded_choice_repeats_and_differs_between_seeds() -> None:
    keys = [str(index) for index in range(50)]
    one = choose(keys, {}, "max", "seed:1", 5).keys
    assert one == choose(keys, {}, "max", "seed:1", 5).keys
    assert one != choose(keys, {}, "max", "seed:2", 5).keys
    with pytest.raises(UserError, match="spread, first and seed:N"):
        choose(keys, {}, "max", "prettiest", 5)


# -- whole studies --------------------------------------------------------------------------------------------------------


def test_a_full_study_draws_what_it_has_and_names_the_rest(full: tuple[Path, StudyManifest]) -> None:
    drawn, left_out = drawn_and_left_out(figure_data(load_study(full[0], "synthetic")))
    assert drawn[0] == "reconstructions"
    assert {"arms_psnr", "deltas_psnr", "learning_psnr", "arms_ssim", "correlation", "attention", "edits"} <= set(drawn)
    assert "no two factors are fully crossed" in left_out["interaction"]
    assert "noise of the mask" in left_out["robustness"]
    assert "RMSE" in left_out["learning_rmse"]
    assert not set(drawn) & set(left_out)


def test_edits_are_labelled_briefly() -> None:
    labels = [Edit(task, Path("a.png"), None, region).label for task, region in (
        ("style_and_shape_transfer", "hair"), ("global_style_transfer", "all"), ("style of hair", ""))]  # fmt: skip
    assert labels == ["style + shape: hair", "global style", "style of hair"]


def test_intervals_are_those_of_the_shared_statistics(full: tuple[Path, StudyManifest]) -> None:
    data = figure_data(load_study(full[0], "synthetic"))
    found = data.estimates["psnr"]["ca2sis"]
    assert (found.seeds, found.images) == (3, 12)
    assert found.low is not None and found.low < found.mean < (found.high or 0)
    comparison = data.comparisons["psnr"]["spade"]
    assert comparison.difference == pytest.approx(-3.0, abs=0.4)
    assert data.mean("psnr", "spade") == pytest.approx((data.mean("psnr", "ca2sis") or 0) + comparison.difference)
    with figure_style():
        alt = draw_forest(data, data.metrics[0]).alt
    assert f"SPADE {number(comparison.difference, 3, sign=True)}" in alt
    assert "painter" not in alt  # trivial baselines are no variants of the reference


def test_learning_curve_is_mean_and_sample_deviation_over_seeds(tmp_path: Path) -> None:
    manifest = make_study(tmp_path, history=False, arms=ARMS[:1])
    values = {0: 10.0, 1: 12.0, 2: 17.0}
    for cell in manifest.cells:
        record = RunStore(tmp_path / "runs").record(cell.run_id)
        for iteration in (0, 100):
            record.log({"iteration": iteration, "kind": "val", "psnr": values[cell.seed] + iteration})
            record.log({"iteration": iteration, "kind": "train", "psnr": 99.0})
    curve = learning_curve(figure_data(load_study(tmp_path, "synthetic")), "ca2sis", "psnr")
    assert curve is not None
    assert (curve.iterations, curve.mean, curve.n) == ((0, 100), (13.0, 113.0), (3, 3))
    assert curve.std[0] == pytest.approx(np.std([10, 12, 17], ddof=1))


def test_builds_are_byte_identical_with_editable_text_and_no_dates(full: tuple[Path, StudyManifest]) -> None:
    data = figure_data(load_study(full[0], "synthetic"))
    pictures = [render("arms", lambda: draw_arms(data, data.metrics[0])) for _ in range(2)]
    assert pictures[0] == pictures[1]
    pdf = pictures[0].pdf
    assert b"CreationDate" not in pdf and b"Producer" not in pdf
    assert b"/FontFile2" in pdf  # TrueType (Type 42), not outlines (Type 3)
    assert b"/Type3" not in pdf
    assert pictures[0].png.startswith(b"\x89PNG") and b"Software" not in pictures[0].png
    assert pictures[0].svg is not None and b"<dc:date>" not in pictures[0].svg


def test_command_writes_files_and_says_what_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_study(tmp_path, metrics=(PSNR,), seeds=(0,), arms=ARMS[:2], costs=False)
    stale = tmp_path / "synthetic" / "figures" / "attention.png"
    stale.parent.mkdir()
    stale.write_bytes(b"from an earlier build")
    assert main(["figures", "synthetic", "--out", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    written = sorted(path.name for path in stale.parent.iterdir())
    assert written == sorted(
        ["index.json"]
        + [f"{name}.{kind}" for name in ("arms_psnr", "deltas_psnr", "learning_psnr") for kind in ("pdf", "png")]
    )
    assert "left out:" in text and "no finished run kept sample images" in text
    assert main(["figures", "synthetic", "--out", str(tmp_path), "--pick", "prettiest"]) == 2
    assert main(["figures", "synthetic", "--out", str(tmp_path), "--rows", "0"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2 and "seed:N" in errors[0] and "--rows=0" in errors[1]


def test_drawing_needs_no_torch() -> None:
    code = (
        "import sys; import analysis.figures.build, analysis.figures.load, analysis.report.render, analysis.report.page;"
        "assert not {'torch', 'matplotlib', 'jinja2'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_factorial_study_has_interaction_panels(tmp_path: Path) -> None:
    arms = [
        SyntheticArm(
            f"{a}-{b}", f"{a}, {b}", reference=(a, b) == ("x", "1"), levels={"kind": a, "weight": b, "fixed": "f"}
        )
        for a in ("x", "y")
        for b in ("1", "2")
    ]
    arms.append(SyntheticArm("scam", "SCAM", {"psnr": -1.0}))  # beside the design
    data = study(tmp_path, arms=arms, metrics=(PSNR,), design="factorial")
    assert crossed_factors(data) == [("kind", "weight")]
    assert "interaction" in drawn_and_left_out(data)[0]
    drawing = draw_interaction(data, data.metrics[0])
    assert f"beside the design, SCAM: {data.mean('psnr', 'scam'):.4g}" in drawing.alt
    assert [line.get_ydata()[0] for line in drawing.figure.axes[0].lines if list(line.get_xdata()) == [0, 1]][-1] == (
        data.mean("psnr", "scam")
    )


@pytest.mark.parametrize("beside", [False, True])
def test_names_along_an_interaction_stay_apart_and_its_legends_in_the_picture(tmp_path: Path, beside: bool) -> None:
    families = ("ca2sis", "access", "spade", "clade", "oasis", "sean", "inade", "maskgan", "scam")
    arms = [
        SyntheticArm(
            f"{a}-{b}",
            f"{a}, {b}",
            reference=(a, b) == ("ca2sis", "1"),
            levels={"family": a, "learning rate of both": b},
        )
        for a in families
        for b in ("1", "2")
    ]
    if beside:
        arms.append(SyntheticArm("scam", "SCAM", {"psnr": -1.0}))
    data = study(tmp_path, arms=arms, metrics=(PSNR,), design="factorial", history=False, costs=False)
    with figure_style():
        figure = draw_interaction(data, data.metrics[0]).figure
        figure.draw_without_rendering()
        (axes,) = [item for item in figure.axes if item.get_visible()]
        names = [label.get_window_extent() for label in axes.get_xticklabels()]
        frame = figure.get_tightbbox().transformed(figure.dpi_scale_trans)
        legends = [item.get_window_extent() for item in axes.get_children() if isinstance(item, Legend)]
    assert all(left.x1 < right.x0 for left, right in pairwise(names))
    assert len(legends) == 1 + beside and all(box.x1 <= frame.x1 + 1 for box in legends)


def test_robustness_rows_become_curves(tmp_path: Path) -> None:
    manifest = make_study(tmp_path, arms=ARMS[:2], metrics=(PSNR,))
    for cell in manifest.cells:
        rows = [
            MetricRow(f"robust_psnr_erosion_{level}", 20.0 - 10 * level, 8, "dB", "max", "val", "robust", f"r{level}")
            for level in (0.0, 0.1, 0.3)
        ]
        RunStore(tmp_path / "runs").record(cell.run_id).add_metrics(rows)
    data = figure_data(load_study(tmp_path, "synthetic"))
    with figure_style():
        alt = draw_robustness(data).alt
    assert "erosion, CA²-SIS: 20.00 at 0, 17.00 at 0.3" in alt


def test_attention_is_named_by_class_and_only_for_arms_with_maps(full: tuple[Path, StudyManifest]) -> None:
    out, manifest = full
    for cell in manifest.cells:
        RunStore(out / "runs").record(cell.run_id).update_provenance(data={"digest": "d", "class_names": CLASSES})
    data = figure_data(load_study(out, "synthetic"))
    plan = next(plan for plan in _plan(data, OPTIONS) if plan.name == "attention")
    with figure_style():
        drawing = plan.draw()
        assert [axes.get_title() for axes in drawing.figure.axes][:4] == [
            "input",
            "strongest\nclass",
            "background",
            "skin",
        ]
    assert "CA²-SIS, no attention loss" in drawing.alt and "SPADE" not in drawing.alt


def test_learned_access_is_drawn_a_panel_a_level_and_head_less_the_mean_of_its_rows(tmp_path: Path) -> None:
    data = study(tmp_path)
    assert "access_ca2sis" not in [plan.name for plan in _plan(data, OPTIONS)]
    with pytest.raises(NotDrawable, match="no finished run learned an access table"):
        draw_access(data, "ca2sis")
    record = data.runs["ca2sis"][1]
    table = np.array([[[9.0, 1.0, 2.0], [0.0, 3.0, 0.0], [5.0, 5.0, 5.0]]], dtype=np.float32)
    record.set_access_tables({"8": np.concatenate([table, table]), "16": table})
    record.update_provenance(data={"class_names": ["sky", "hair", "hat"]})
    assert [name for name in (plan.name for plan in _plan(data, OPTIONS)) if "access" in name] == ["access_ca2sis"]
    with figure_style():
        drawing = draw_access(data, "ca2sis")
        panels = [axes for axes in drawing.figure.axes if axes.images and axes.get_title("left")]
        drawing.figure.draw_without_rendering()
        first = panels[0]
        assert [axes.get_title("left") for axes in panels] == ["8 px, head 0", "8 px, head 1", "16 px, head 0"]
        assert np.asarray(first.images[0].get_array()).tolist() == [[5, -3, -2], [-1, 2, -1], [0, 0, 0]]
        assert first.images[0].get_clim() == (-5, 5) and first.images[0].get_cmap().name == "RdBu_r"
        assert [text.get_text() for text in first.get_yticklabels()] == ["sky", "hair", "hat"]
        assert [text.get_text() for text in panels[1].get_xticklabels()] == ["sky", "hair", "hat"]  # nothing below it
        assert [text.get_text() for text in first.get_xticklabels()] == ["", "", ""]
    assert "Seed 1" in drawing.caption
    assert "the own class gets +2.33" in drawing.alt


def test_named_metrics_are_drawn_instead_of_the_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    later = [dataclasses.replace(PSNR, name=f"edit_psnr_task{index}", role="secondary") for index in range(8)]
    make_study(tmp_path, arms=ARMS[:2], metrics=(PSNR, *later), seeds=(0, 1), history=False, costs=False)
    command = ["figures", "synthetic", "--out", str(tmp_path)]
    drawn = tmp_path / "synthetic" / "figures"
    assert main([*command, "--metric", "edit_psnr_task7"]) == 0
    assert (drawn / "arms_edit_psnr_task7.png").exists() and not (drawn / "arms_psnr.png").exists()
    assert main(command) == 0
    assert (drawn / "arms_psnr.png").exists() and not (drawn / "arms_edit_psnr_task6.png").exists()
    assert main([*command, "--metric", "psnrr"]) == 2
    assert re.search(
        r"--metric psnrr: not an outcome of study synthetic .*did you mean psnr.*it has psnr, edit",
        capsys.readouterr().err,
    )


def test_build_collects_pictures_in_order(tmp_path: Path) -> None:
    data = study(tmp_path, arms=ARMS[:1], metrics=(PSNR,), seeds=(0,), history=False, costs=False)
    figures = build_figures(data, OPTIONS)
    assert [picture.name for picture in figures.pictures] == ["arms_psnr"]
    assert {item.name for item in figures.left_out} >= {"deltas_psnr", "learning_psnr", "pareto", "reconstructions"}
