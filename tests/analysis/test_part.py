"""Parts of a study over data sets: `--only` gives each the tables, comparisons and figures it would have as a study of its own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from analysis import __main__ as command
from analysis import load_study
from analysis.part import load_part
from pipeline.errors import UserError
from tests.analysis.synthetic import SyntheticArm, make_study

MODELS = {"ca2sis": "CA²-SIS", "spade": "SPADE, mask only", "sean": "SEAN", "painter": "painter"}
EFFECTS = {"faces": {"spade": -2.0, "sean": 3.0}, "scenes": {"spade": 1.0, "sean": -4.0}}


def arms(*data_sets: str) -> list[SyntheticArm]:
    """Four models on each data set, labelled as a factorial study labels them, other numbers and other photos on each."""
    return [
        SyntheticArm(
            f"model={model},data={data}" if (model, data) != ("ca2sis", "faces") else "reference",
            label if (model, data) == ("ca2sis", "faces") else f"{label}, {data}",
            effects={"psnr": EFFECTS[data].get(model, 0.0)},
            levels={"model": model, "data": data},
            reference=(model, data) == ("ca2sis", "faces"),
            kind="rule" if model == "painter" else "trained",
            overrides=(f"model={model}", f"data={data}"),
            measured_on=data,
        )
        for data in data_sets
        for model, label in MODELS.items()
    ]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    make_study(folder, arms=arms("faces", "scenes"))
    return folder


def analysis(*arguments: object) -> int:
    return command.main([str(argument) for argument in arguments])


@pytest.mark.parametrize("words", [("compare",), ("table",), ("figures",), ("trace", "SEAN", "psnr")])
def test_what_lies_on_several_data_sets_is_refused_with_what_to_ask_for(
    out: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    assert analysis(words[0], "synthetic", *words[1:], "--out", out) == 2
    assert capsys.readouterr().err == (
        "error: metric 'psnr' was measured on several data sets: one at a time (--only data=faces or --only data=scenes), or a "
        "group of columns each (pivot: data, in the table's specification)\n"
    )


def test_a_part_compares_with_the_reference_of_its_own_data_set(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The true effects on scenes, which have another sign than those on faces; labels without what all its arms share."""
    assert analysis("compare", "synthetic", "--out", out, "--only", "data=scenes") == 0
    said = capsys.readouterr().out
    assert said.startswith(
        "PSNR [dB] of synthetic, data=scenes; higher is better; differences to CA²-SIS, 95% intervals\n"
    )
    lines = {line.split("  ")[0].strip(): line for line in said.splitlines() if line}
    for label, effect in (("SPADE, mask only", 1.0), ("SEAN", -4.0)):
        difference = next(float(word) for word in lines[label].split() if word[0] in "+-")
        assert difference == pytest.approx(effect, abs=0.5), lines[label]
    assert "faces" not in said and "Nothing is told of data: these runs have one level of it." in said


def test_a_part_s_table_is_that_of_a_study_of_these_arms_alone(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every number and mark; the title and a note say what it is a part of."""
    make_study(tmp_path, arms=[replace(arm, label=arm.label.removesuffix(", faces")) for arm in arms("faces")])
    for spec in ("main", "ablation"):
        assert (
            analysis("table", "synthetic", "--out", out, "--only", "data=faces", "--spec", spec, "--format", "csv") == 0
        )
        part = capsys.readouterr().out
        assert analysis("table", "synthetic", "--out", tmp_path, "--spec", spec, "--format", "csv") == 0
        assert capsys.readouterr().out == part
    assert analysis("table", "synthetic", "--out", out, "--only", "data=faces", "--format", "md") == 0
    said = capsys.readouterr().out
    assert "A part of the study: data=faces, 4 of its 8 arms." in said and "| SPADE, mask only |" in said


@pytest.mark.parametrize(
    ("only", "reference", "labels"),
    [
        (["data=faces"], "reference", ["CA²-SIS", "SPADE, mask only", "SEAN", "painter"]),
        (["data=scenes"], "model=ca2sis,data=scenes", ["CA²-SIS", "SPADE, mask only", "SEAN", "painter"]),
        (["model=sean"], "model=sean,data=faces", ["faces", "scenes"]),
        (["data=scenes", "model=sean", "model=spade"], None, ["SPADE, mask only", "SEAN"]),
        (["model=sean", "data=scenes"], "model=sean,data=scenes", ["SEAN, scenes"]),
        ([], "reference", [arm.label for arm in arms("faces", "scenes")]),
    ],
)
def test_reference_and_labels_of_a_part(out: Path, only: list[str], reference: str | None, labels: list[str]) -> None:
    study = load_part(out, "synthetic", only)
    assert [arm.label for arm in study.manifest.arms] == labels
    assert (study.reference.name if study.reference is not None else None) == reference
    assert set(study.frame["arm_label"]) == set(study.runs["arm_label"]) == set(labels)
    assert set(study.runs.loc[study.runs["reference"], "arm"]) == ({reference} if reference else set())
    assert load_study("synthetic", out, only).frame.equals(study.frame)


def test_a_part_is_drawn_reported_and_kept_beside_the_whole(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert analysis("report", "synthetic", "--out", out, "--only", "data=scenes", "--metric", "psnr") == 0
    page = (out / "synthetic" / "data=scenes" / "report.html").read_text()
    assert "<title>synthetic, data=scenes" in page and "python -m analysis report synthetic --only data=scenes" in page
    assert json.loads((out / "synthetic" / "plan.json").read_text())["digest"] in page
    assert not (out / "synthetic" / "report.html").exists()
    kept = tmp_path / "synthetic"
    words = ("synthetic", "--out", out, "--to", kept, "--figure", "arms_psnr")
    assert analysis("keep", *words, "--only", "data=scenes") == 0
    capsys.readouterr()
    assert analysis("table", kept, "--format", "md") == 0
    again = capsys.readouterr().out
    assert again == (kept / "table.md").read_text() and "A part of the study: data=scenes" in again
    assert analysis("table", kept, "--only", "model=sean", "--format", "md") == 0
    assert "A part of the study: data=scenes, model=sean, 1 of its 8 arms." in capsys.readouterr().out
    assert analysis("keep", *words, "--only", "data=faces") == 0
    assert json.loads((kept / "part.json").read_text()) == {"only": ["data=faces"]}
    (kept / "part.json").write_text('{"only": "data=faces"}')
    with pytest.raises(UserError, match="names no part of a study"):
        load_part(tmp_path, "synthetic")
    assert analysis("table", "synthetic", "--out", out, "--only", "data=scene") == 2
    assert "--only data=scene: no such level or arm (did you mean data=scenes" in capsys.readouterr().err


def test_a_study_over_several_data_sets_is_kept_whole_and_its_figures_by_parts(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = tmp_path / "pivot.yaml"
    spec.write_text("metrics: [psnr]\npivot: data\n")
    kept = tmp_path / "kept"
    assert analysis("keep", "synthetic", "--to", kept, "--spec", spec, "--out", out) == 0
    said = capsys.readouterr().out
    assert f"its tables again: python -m analysis table {kept} --spec {spec}" in said
    assert (
        "figures are of one data set: keep parts for them, one at a time (--only data=faces or --only data=scenes)"
        in said
    )
    assert not list(kept.glob("*.png")) and (kept / "pivot.md").exists()
    assert analysis("table", kept, "--only", "data=faces") == 0
    whole = capsys.readouterr().out
    assert analysis("table", "synthetic", "--only", "data=faces", "--out", out) == 0
    assert capsys.readouterr().out == whole
