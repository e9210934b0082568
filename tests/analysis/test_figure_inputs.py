"""Figures of poor, hostile and unusual studies: what is left out is named, and names are text whatever they hold."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from analysis.figures.build import _plan
from analysis.figures.comparison import draw_arms
from analysis.figures.curves import learning_curves
from analysis.figures.load import figure_data
from analysis.figures.model import FigureSet, LeftOut, Picture, render
from analysis.figures.samples import read_samples, study_samples
from analysis.figures.study_data import estimate, interval_in_words
from analysis.figures.style import figure_style
from analysis.frame import load_study
from pipeline.errors import UserError
from pipeline.records import RunStore, StudyManifest
from tests.analysis.drawn import OPTIONS, drawn_and_left_out, study
from tests.analysis.sample_images import add_samples
from tests.analysis.synthetic import ARMS, PSNR, TWO, SyntheticArm, make_study

HOSTILE = r"$\frac{1}{2}$ <b>&amp;</b> %_#{}~^ 日本 " + "x" * 60


def test_one_seed_draws_intervals_over_images_and_says_so(tmp_path: Path) -> None:
    data = study(tmp_path, seeds=(0,))
    with figure_style():
        caption = draw_arms(data, data.metrics[0]).caption
    assert "12 test images" in caption and "training noise" in caption
    assert interval_in_words([("A", estimate([1.0]))]).startswith("One seed and no values by image")


def test_curves_and_pictures_are_of_finished_runs_alone(tmp_path: Path) -> None:
    states = {0: "running", 1: "failed", 2: "diverged"}
    arms = (ARMS[0], dataclasses.replace(ARMS[1], states=states), dataclasses.replace(ARMS[2], states={1: "running"}))
    manifest = make_study(tmp_path, arms=arms, metrics=(PSNR,))
    add_samples(tmp_path, manifest, count=2)
    data = figure_data(load_study(tmp_path, "synthetic"))
    assert {arm: sorted(runs) for arm, runs in data.runs.items()} == {"ca2sis": [0, 1, 2], "spade_conditioning": [0, 2]}
    curves = learning_curves(data, "psnr")
    assert {arm: max(curve.n) for arm, curve in curves.items()} == {"ca2sis": 3, "spade_conditioning": 2}
    samples = study_samples(data)
    assert samples is not None and samples.without == ("no_attention_loss",)


def test_one_arm_has_no_differences(tmp_path: Path) -> None:
    drawn, left_out = drawn_and_left_out(study(tmp_path, arms=ARMS[:1], metrics=(PSNR,)))
    assert "arms_psnr" in drawn
    assert "deltas_psnr" in left_out and "pareto" in left_out


@pytest.mark.parametrize("state", ["failed", "diverged", "missing", "planned", "running"])
def test_a_study_without_a_finished_run_draws_no_number(tmp_path: Path, state: str) -> None:
    arms = [dataclasses.replace(arm, states={0: state, 1: state, 2: state}) for arm in ARMS]
    drawn, left_out = drawn_and_left_out(study(tmp_path, arms=arms))
    assert drawn == []
    assert left_out["learning_psnr"] == "no finished run recorded PSNR at two or more validations"
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


def test_a_build_replaces_what_it_no_longer_draws_and_nothing_else(tmp_path: Path) -> None:
    one, two = (Picture(name, name, "", "", b"png", b"pdf", None) for name in ("one", "two"))
    folder = tmp_path / "figures"
    FigureSet((one, two), ()).save(folder)
    mine = {folder / "mine.png", folder / "notes.txt", folder / "left_out.png", tmp_path / "outside.png"}
    for path in mine:
        path.write_bytes(b"the user's own")
    written = FigureSet((two,), (LeftOut("left_out", "Left out", "no data"),)).save(folder)
    assert written == [folder / "two.png", folder / "two.pdf"]
    names = {path.name for path in folder.iterdir()}
    assert names == {"two.png", "two.pdf", "mine.png", "notes.txt", "left_out.png", "index.json"}
    assert json.loads((folder / "index.json").read_text()) == ["two.pdf", "two.png"]
    (folder / "index.json").write_text('["../outside.png", "notes.txt", 3, "two.png"]')
    FigureSet((), ()).save(folder)
    assert {path.name for path in folder.iterdir()} == {
        "two.pdf",
        "mine.png",
        "notes.txt",
        "left_out.png",
        "index.json",
    }
    assert all(path.read_bytes() == b"the user's own" for path in mine)


@pytest.mark.parametrize("index", [None, "[", "{}"])
def test_without_a_list_of_an_earlier_build_what_is_left_out_goes(tmp_path: Path, index: str | None) -> None:
    (tmp_path / "one.png").write_bytes(b"of a build before there was a list")
    if index is not None:
        (tmp_path / "index.json").write_text(index)
    FigureSet((), (LeftOut("one", "One", "no data"),)).save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["index.json"]


def test_names_that_look_alike_have_files_of_their_own(tmp_path: Path) -> None:
    names = ("weight=-1", "weight=1", "Weight 1", "lr=1e-4", "lr=1e+4", "日本", "汉字", "access=on", "a.b")
    arms = [SyntheticArm(name, name, reference=name == "a.b") for name in names]
    data = study(tmp_path, arms=arms, seeds=(0,), metrics=(PSNR,), history=False)
    for runs in data.runs.values():
        runs[0].set_access_tables({"8": np.ones((1, 2, 2), dtype=np.float32)})
    titles = {plan.name: plan.title for plan in _plan(data, OPTIONS) if plan.name.startswith("access_")}
    assert sorted(titles.values()) == sorted(f"Access learned: {name}" for name in names)
    assert titles["access_access_on"] == "Access learned: access=on" and titles["access_a_b"] == "Access learned: a.b"
    assert all(re.fullmatch(r"access_[a-z0-9_]+", name) for name in titles)
    assert re.fullmatch(r"access_weight_1_[0-9a-f]{8}", next(k for k, v in titles.items() if v.endswith("=-1")))


def test_a_rule_with_a_seed_to_come_is_a_baseline_as_in_tables(tmp_path: Path) -> None:
    """Or it would be one more comparison of Holm's correction, and a learned arm to the verdict."""
    painter = SyntheticArm("painter", "painter", kind="rule", states={2: "missing"})
    data = study(tmp_path, arms=(*TWO, painter), metrics=(PSNR,), history=False)
    assert data.trivial == {"painter"} and set(data.comparisons["psnr"]) == {"b"}
