"""Figures of poor, hostile and unusual studies: what is left out is named, and names are text whatever they hold."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest

from analysis.figures.comparison import draw_arms
from analysis.figures.load import figure_data
from analysis.figures.model import FigureSet, LeftOut, Picture, render
from analysis.figures.samples import read_samples, study_samples
from analysis.figures.study_data import estimate, interval_in_words
from analysis.figures.style import figure_style
from analysis.frame import load_study
from pipeline.errors import UserError
from pipeline.records import RunStore, StudyManifest
from tests.analysis.drawn import drawn_and_left_out, study
from tests.analysis.sample_images import add_samples
from tests.analysis.synthetic import ARMS, PSNR, SyntheticArm, make_study

HOSTILE = r"$\frac{1}{2}$ <b>&amp;</b> %_#{}~^ 日本 " + "x" * 60


def test_one_seed_draws_intervals_over_images_and_says_so(tmp_path: Path) -> None:
    data = study(tmp_path, seeds=(0,))
    with figure_style():
        caption = draw_arms(data, data.metrics[0]).caption
    assert "12 test images" in caption and "training noise" in caption
    assert interval_in_words([estimate([1.0])]).startswith("One seed and no values by image")


def test_one_arm_has_no_differences(tmp_path: Path) -> None:
    drawn, left_out = drawn_and_left_out(study(tmp_path, arms=ARMS[:1], metrics=(PSNR,)))
    assert "arms_psnr" in drawn
    assert "deltas_psnr" in left_out and "pareto" in left_out


@pytest.mark.parametrize("state", ["failed", "diverged", "missing", "planned", "running"])
def test_a_study_without_a_finished_run_draws_no_number(tmp_path: Path, state: str) -> None:
    arms = [dataclasses.replace(arm, states={0: state, 1: state, 2: state}) for arm in ARMS]
    drawn, left_out = drawn_and_left_out(study(tmp_path, arms=arms, history=False))
    assert drawn == []
    assert left_out["arms_psnr"] == "no arm has a value of PSNR"


def test_a_metric_that_some_arms_lack_leaves_them_out_by_name(tmp_path: Path) -> None:
    arms = (ARMS[0], dataclasses.replace(ARMS[1], missing=("ssim",)), ARMS[2])
    data = study(tmp_path, arms=arms)
    with figure_style():
        drawing = draw_arms(data, data.metric("ssim"))
    assert "left out: no attention loss" in drawing.caption


def test_two_versions_of_a_metric_never_share_an_axis(tmp_path: Path) -> None:
    manifest = make_study(tmp_path)
    record = RunStore(tmp_path / "runs").record(manifest.cells[0].run_id)
    rows = [dataclasses.replace(row, fingerprint="other") for row in record.metrics if row.name == "psnr"]
    path = record.path / "metrics.json"
    kept = [row for row in record.metrics if row.name != "psnr"]
    path.write_text(json.dumps({"schema": 1, "rows": [row.to_json() for row in [*kept, *rows]]}))
    with pytest.raises(UserError, match="metric 'psnr' has 2 protocol fingerprints"):
        figure_data(load_study(tmp_path, "synthetic"))


def test_names_are_text_whatever_they_hold(tmp_path: Path) -> None:
    arms = [
        SyntheticArm("a$b_{<script>", HOSTILE, reference=True),
        SyntheticArm("b", "\\alpha_1 $$ $x", {"psnr": -1.0}),
    ]
    data = study(tmp_path, arms=arms, metrics=(PSNR,))
    picture = render("arms", lambda: draw_arms(data, data.metrics[0]))
    assert HOSTILE in picture.alt
    drawn, _ = drawn_and_left_out(data)
    assert {"arms_psnr", "deltas_psnr", "learning_psnr"} <= set(drawn)


def test_sample_indexes_lead_to_no_other_files(full: tuple[Path, StudyManifest], tmp_path: Path) -> None:
    out, manifest = full
    record = RunStore(out / "runs").record(manifest.cells[0].run_id)
    good = read_samples(record, manifest.protocol)
    assert len(good) == 6 and set(good["image-0000"].files) == {"style", "mask", "target", "output"}
    copy = RunStore(tmp_path / "runs").record(record.id)
    folder = copy.path / "samples" / "standard"
    folder.mkdir(parents=True)
    item = {"key": "k", "psnr": math.pi, "files": {"output": "../../../secret.png", "mask": "absent.png", "style": 3}}
    (folder / "index.json").write_text(json.dumps({"items": [item, "not an item"]}))
    (tmp_path / "secret.png").write_bytes(b"secret")
    assert read_samples(copy, "standard")["k"].files == {}
    (folder / "index.json").write_text('{"items": [')
    with pytest.raises(UserError, match=r"index\.json"):
        read_samples(copy, "standard")


def test_samples_come_from_the_seed_where_most_arms_have_them(tmp_path: Path) -> None:
    arms = (ARMS[0], dataclasses.replace(ARMS[1], states={0: "failed"}), ARMS[2])
    manifest = make_study(tmp_path, arms=arms, metrics=(PSNR,))
    add_samples(tmp_path, manifest, count=2)
    samples = study_samples(figure_data(load_study(tmp_path, "synthetic")))
    assert samples is not None
    assert (samples.seed, samples.without, len(samples.by_arm)) == (1, (), 3)


def test_a_build_replaces_what_it_no_longer_draws(tmp_path: Path) -> None:
    picture = Picture("one", "One", "", "", b"png", b"pdf", None)
    FigureSet((picture,), ()).save(tmp_path)
    FigureSet((), (LeftOut("one", "One", "no data"),)).save(tmp_path)
    assert list(tmp_path.iterdir()) == []
