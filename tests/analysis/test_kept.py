"""Kept studies: tables from frames alone are those from the records."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from analysis import __main__ as command
from analysis.frame import load_study
from analysis.tables import TableSpec, build_table, load_spec, render
from analysis.tables.spec import ShowSpec
from pipeline.errors import UserError
from tests.analysis.synthetic import SyntheticArm, make_study

RESULTS = Path(__file__).parents[2] / "docs" / "results"
DIFFERENCES = TableSpec(show=ShowSpec(delta=True, interval=True))


def analysis(*arguments: object) -> int:
    return command.main([str(argument) for argument in arguments])


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A study's folder as it is kept, where its runs are not."""
    make_study(tmp_path / "out")
    folder = tmp_path / "kept" / "synthetic"
    assert analysis("keep", "synthetic", "--out", tmp_path / "out", "--to", folder, "--figure", "learning_psnr") == 0
    return folder


@pytest.mark.parametrize("spec", ["main", "ablation"])
def test_a_table_from_what_is_kept_is_the_table_from_the_records(
    kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], spec: str
) -> None:
    """Intervals over seeds and images included, to the last digit."""
    capsys.readouterr()
    assert analysis("table", "synthetic", "--out", tmp_path / "out", "--spec", spec, "--format", "md") == 0
    from_records = capsys.readouterr().out
    assert analysis("table", kept, "--spec", spec, "--format", "md") == 0
    assert capsys.readouterr().out == from_records
    assert (kept / {"main": "table.md", "ablation": "deltas.md"}[spec]).read_text() == from_records
    over = "95% interval over seeds and images (Attention IoU: over seeds alone)"
    assert (over in from_records) == (spec == "ablation")


def test_what_is_kept_holds_values_curves_and_the_figure_asked_for(kept: Path, tmp_path: Path) -> None:
    study = load_study(tmp_path / "out", "synthetic")
    values = pd.read_parquet(kept / "per_image.parquet")
    own = study.per_image("psnr")
    assert sorted(values.loc[values["metric"] == "psnr", "value"]) == sorted(own["value"]) and len(own) > 100
    curves = pd.read_parquet(kept / "curves.parquet")
    for (arm, run_id), rows in curves[curves["metric"] == "psnr"].groupby(["arm", "run_id"]):
        history = [row for row in study.store.record(str(run_id)).history() if row["kind"] == "val"]
        assert list(rows["value"]) == [row["psnr"] for row in history] and len(history) > 1, arm
    assert sorted(path.name for path in kept.iterdir()) == [
        "claims.txt", "curves.parquet", "deltas.md", "deltas.tex", "frame.parquet", "learning_psnr.png", "per_image.parquet",
        "plan.json", "runs.parquet", "table.md", "table.tex",
    ]  # fmt: skip


def test_a_mistake_keeps_nothing(kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_study(tmp_path / "out", name="other")
    before = {path.name: path.read_bytes() for path in kept.iterdir()}
    run_id = load_study(tmp_path / "out", "synthetic").manifest.cells[0].run_id
    for words, said in (
        (
            ("synthetic", "--out", tmp_path / "out", "--to", tmp_path / "new", "--figure", "access_a"),
            "access_a: unknown",
        ),
        (
            ("synthetic", "--out", tmp_path / "out", "--to", tmp_path / "new", "--figure", "attention"),
            "no finished run kept",
        ),
        (("other", "--out", tmp_path / "out", "--to", kept), "holds another study: synthetic"),
        (("synthetic", "--out", tmp_path / "out", "--to", tmp_path / "out"), "what the study itself is made of"),
        (
            ("synthetic", "--out", tmp_path / "out", "--to", tmp_path / "out" / "runs"),
            "what the study itself is made of",
        ),
        (("synthetic", "--out", tmp_path / "out", "--to", tmp_path / "out" / "synthetic"), "what the study itself"),
        (("synthetic", "--out", tmp_path / "out", "--to", tmp_path / "out" / "runs" / run_id), "what the study itself"),
        (("synthetic", "--out", tmp_path / "out", "--to", kept / "table.md"), "cannot write into"),
        (
            ("synthetic", "--out", tmp_path / "out", "--to", tmp_path / "new", "--spec", "main", "--spec", "main"),
            "two tables",
        ),
        (
            ("synthetic", "--out", tmp_path / "out", "--to", tmp_path / "new", "--figure", "learning_psn"),
            "learning_psnr",
        ),
        (("synthetic", "--out", kept.parent, "--to", tmp_path / "new"), "its runs are not here"),
    ):
        capsys.readouterr()
        assert analysis("keep", *words) == 2
        line = capsys.readouterr().err
        assert said in line and line.count("\n") == 1
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == before and not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["figures", "report"])
def test_what_needs_records_refuses_a_kept_study_and_leaves_it_as_it_is(
    kept: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    before = {path: path.read_bytes() for path in kept.parent.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert analysis(name, kept) == 2
    said = capsys.readouterr()
    assert said.err == f"error: study synthetic: its runs are not here; {kept} holds what is kept of it\n"
    assert said.out == "" and {path: path.read_bytes() for path in kept.parent.rglob("*") if path.is_file()} == before


def test_what_was_imported_is_kept_and_a_folder_may_have_any_name(
    kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "papers.csv").write_text("label,metric,value,source\nTheirs,psnr,22.5,X\n")
    assert analysis("import-csv", "synthetic", tmp_path / "papers.csv", "--out", tmp_path / "out") == 0
    monkeypatch.chdir(tmp_path)
    assert (
        analysis("keep", "synthetic", "--out", "out", "--to", "other", "--spec", "main", "--figure", "arms_psnr") == 0
    )
    assert "python -m analysis table other" in capsys.readouterr().out
    assert analysis("table", "other", "--format", "md") == 0
    said = capsys.readouterr().out
    assert "Theirs" in said and said == Path("other/table.md").read_text()
    assert analysis("claims", "other") == 2
    assert "its runs are not here" in capsys.readouterr().err


def test_a_study_without_a_reference_is_kept_and_one_without_runs_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_study(tmp_path / "out", arms=[SyntheticArm("a"), SyntheticArm("b")])
    assert (
        analysis("keep", "synthetic", "--out", tmp_path / "out", "--to", tmp_path / "k", "--figure", "arms_psnr") == 0
    )
    assert (tmp_path / "k" / "table.md").exists() and not (tmp_path / "k" / "deltas.md").exists()
    make_study(tmp_path / "none", arms=[SyntheticArm("a", states=dict.fromkeys(range(3), "failed"))])
    assert analysis("keep", "synthetic", "--out", tmp_path / "none", "--to", tmp_path / "l") == 2
    assert "no finished run" in capsys.readouterr().err and not (tmp_path / "l").exists()


def test_without_values_an_image_intervals_cover_seeds(kept: Path, tmp_path: Path) -> None:
    (kept / "per_image.parquet").unlink()
    here, there = (build_table(load_study(out, "synthetic"), DIFFERENCES) for out in (kept.parent, tmp_path / "out"))
    assert "paired by seed; [ ]: 95% interval over seeds" in "\n".join(here.notes)
    pairs = [
        (one, other)
        for row, twin in zip(here.rows, there.rows, strict=True)
        for one, other in zip(row.cells, twin.cells, strict=True)
        if other.difference is not None
    ]
    assert pairs
    for one, other in pairs:
        assert one.difference == other.difference
        assert one.lower is not None and one.upper is not None and one.lower < one.upper


def test_the_frame_alone_is_enough(tmp_path: Path) -> None:
    arms = (
        SyntheticArm("a", reference=True),
        SyntheticArm("b"),
        SyntheticArm("c", states=dict.fromkeys(range(3), "missing")),
    )
    make_study(tmp_path / "out", arms=arms)
    kept = tmp_path / "kept" / "synthetic"
    assert analysis("keep", "synthetic", "--out", tmp_path / "out", "--to", kept, "--figure", "arms_psnr") == 0
    for name in ("runs.parquet", "per_image.parquet", "curves.parquet"):
        (kept / name).unlink()
    table = build_table(load_study(kept.parent, "synthetic"), TableSpec())
    assert all(cell.status in ("ok", "not_applicable") for row in table.rows[:2] for cell in row.cells)
    assert {cell.status for cell in table.rows[2].cells} == {"missing"}


def test_records_come_before_kept_frames(kept: Path, tmp_path: Path) -> None:
    shutil.copy(kept / "frame.parquet", tmp_path / "out" / "synthetic")
    frame = pd.read_parquet(tmp_path / "out" / "synthetic" / "frame.parquet")
    frame.assign(value=0.0).to_parquet(tmp_path / "out" / "synthetic" / "frame.parquet")
    assert load_study(tmp_path / "out", "synthetic").frame["value"].max() > 0


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda frame: frame.assign(schema=99), "another version .its schema is 99; wanted: 1"),
        (lambda frame: frame.drop(columns="status"), "another version .it has no column status"),
        (lambda frame: frame.assign(run_id="f" * 64), "not of the plan beside it: run ffffffffff is not planned"),
    ],
)
def test_a_frame_that_does_not_fit_is_refused(kept: Path, damage, words: str) -> None:  # type: ignore[no-untyped-def]
    damage(pd.read_parquet(kept / "frame.parquet")).to_parquet(kept / "frame.parquet")
    with pytest.raises(UserError, match=words):
        load_study(kept.parent, "synthetic")
    (kept / "frame.parquet").write_bytes(b"cut off")
    with pytest.raises(UserError, match="cannot be read"):
        load_study(kept.parent, "synthetic")


def test_a_table_kept_with_the_project_follows_from_the_frame_beside_it() -> None:
    made = render(build_table(load_study(RESULTS, "attention"), load_spec("main")[1]), "md").splitlines()
    kept = (RESULTS / "attention" / "table.md").read_text().splitlines()
    rows = [line for line in kept if line.startswith("| ")]
    assert [line for line in made if line.startswith("| ")] == rows and len(rows) > 10


def test_a_kept_study_of_three_data_sets_gives_its_table_by_data_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    effects = {"fashion": 2.0, "faces": 1.0, "street": -1.0}
    arms = [
        SyntheticArm(
            f"{model}-{data}",
            f"{label}, {data}",
            {"psnr": effects[data] if model == "access" else -3.0 if model == "painter" else 0.0},
            reference=(model, data) == ("ca2sis", "fashion"),
            kind="rule" if model == "painter" else "trained",
            levels={"model": model, "data": data},
            provenance={"data": {"digest": data, "summary": data}},
        )
        for data in effects
        for model, label in (("ca2sis", "(CA)²-SIS"), ("access", "learned access"), ("painter", "painter"))
    ]
    make_study(tmp_path / "out", name="photos", arms=arms)
    folder = tmp_path / "kept" / "photos"
    assert analysis("keep", "photos", "--out", tmp_path / "out", "--to", folder, "--figure", "arms_psnr") == 0
    capsys.readouterr()
    assert analysis("table", folder, "--spec", "by_data", "--format", "md") == 0
    said = capsys.readouterr().out
    table = build_table(load_study(folder.parent, "photos"), load_spec("by_data")[1])
    assert [row.label for row in table.rows] == ["(CA)²-SIS", "learned access", "painter"]
    assert [group for group, _ in table.column_groups] == list(effects)
    access = dict(zip([column.group for column in table.columns], table.row("learned access").cells, strict=True))
    for data, effect in effects.items():
        found = access[data]
        assert found.difference == pytest.approx(effect, abs=0.6)
        assert found.lower is not None and found.upper is not None and found.lower < found.difference < found.upper
        assert f"{found.difference:+.2f}"[:4] in said.replace("−", "-")
    assert all(cell.difference is None for cell in table.row("painter").cells), "the trivial baseline is not compared"
