"""Numbers from elsewhere stay apart by source, things that share a name are told apart, and tables say first what they lack."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
from pathlib import Path

import pytest

from analysis.__main__ import main
from analysis.figures.style import shorten_apart
from analysis.frame import load_study
from analysis.tables.build import build_table
from analysis.tables.model import heading
from analysis.tables.render import FORMATS, render
from analysis.tables.spec import TableSpec, load_spec, parse_spec
from pipeline.errors import UserError
from pipeline.records import RunStore, StudyManifest, StudyMetric
from pipeline.schema.yaml12 import parse_yaml
from tests.analysis import synthetic
from tests.analysis.synthetic import TWO, SyntheticArm, make_study
from tests.analysis.test_imports import FakeApi, logged

HEAD = "label,metric,value,source"


def imported(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> list[dict[str, str]]:
    """The table's rows from elsewhere, as `table --format csv` prints them, after an import of `text`."""
    make_study(tmp_path, arms=TWO)
    (tmp_path / "papers.csv").write_text(text)
    assert main(["import-csv", "synthetic", str(tmp_path / "papers.csv"), "--out", str(tmp_path)]) == 0
    capsys.readouterr()
    assert main(["table", "synthetic", "--format", "csv", "--out", str(tmp_path)]) == 0
    rows = csv.DictReader(io.StringIO(capsys.readouterr().out))
    return [row for row in rows if row["kind"] in ("published", "imported")]


def test_two_sources_of_one_number_are_two_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = imported(tmp_path, capsys, f"{HEAD}\nSEAN,psnr,22.5,X\nSEAN,psnr,23.5,Y\nSEAN,ssim,0.7,X\n")
    told = [(row["label"], row["psnr"], row["psnr:std"], row["psnr:n"], row["ssim"]) for row in rows]
    assert told == [("SEAN", "22.5", "", "1", "0.7"), ("SEAN", "23.5", "", "1", "")]
    assert len({row["row"] for row in rows}) == 2
    assert ["X" in row["notes"] for row in rows] == [True, False] and ["Y" in row["notes"] for row in rows] == [
        False,
        True,
    ]


def test_different_numbers_of_one_system_share_a_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = imported(tmp_path, capsys, f"{HEAD}\nSEAN,psnr,22.5,X\nSEAN,ssim,0.7,Y\n")
    assert (row["psnr"], row["ssim"]) == ("22.5", "0.7") and "X; Y" in row["notes"]


def test_a_spread_needs_std_and_n_or_repeats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "label,metric,value,source,std,n\nboth,psnr,1,X,0.5,3\nstd alone,psnr,2,X,0.5,\nn alone,psnr,3,X,,3\n"
    told = [(row["psnr"], row["psnr:std"], row["psnr:n"]) for row in imported(tmp_path, capsys, text)]
    assert told == [("1", "0.5", "3"), ("2", "", "1"), ("3", "", "3")]
    text = f"{HEAD},run\nS,psnr,22,X,first\nS,psnr,24,X,second\nS,psnr,30,Y,\n"
    told = [(row["psnr"], row["psnr:std"], row["psnr:n"]) for row in imported(tmp_path / "runs", capsys, text)]
    assert told == [("23", f"{2**0.5:.12g}", "2"), ("30", "", "1")]


@pytest.mark.parametrize("apart", ["data", "protocol", "split"])
def test_numbers_of_other_data_protocols_and_splits_are_not_averaged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], apart: str
) -> None:
    rows = imported(tmp_path, capsys, f"{HEAD},{apart}\nS,psnr,22,X,one\nS,psnr,24,X,two\n")
    assert [row["psnr"] for row in rows] == ["22", "24"]
    assert f"X ({apart} one)" in rows[0]["notes"] and f"X ({apart} two)" in rows[1]["notes"]


def test_units_are_converted_to_the_column_s(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (
        "label,metric,value,source,unit,std,n\nSPADE,params,96.5,CVPR,M,,\nSPADE,flops_per_image,191.3,CVPR,GFLOP,,\n"
        "SPADE,ssim,61.5,CVPR,%,2,3\nSPADE,psnr,20.5,CVPR,dB,,\nSEAN,params,266900000,CVPR,,,\n"
    )
    spade, sean = imported(tmp_path, capsys, text)
    assert [float(spade[name]) for name in ("params", "flops_per_image", "psnr")] == [96.5e6, 191.3e9, 20.5]
    assert (float(spade["ssim"]), float(spade["ssim:std"])) == pytest.approx((0.615, 0.02))
    assert float(sean["params"]) == 266.9e6
    table = build_table(load_study(tmp_path, "synthetic"), load_spec("main")[1])
    shown = dict(zip(map(heading, table.columns), table.row("SPADE").cells, strict=True))
    assert (shown["Parameters [M]"].plain, shown["Compute per image [MFLOP] ↓"].plain) == ("96.500", "191300")


@pytest.mark.parametrize(
    ("metric", "unit", "understood"),
    [
        ("params", "million", "empty, k, M, G, T, %"),
        ("flops_per_image", "GMAC", "empty, FLOP, kFLOP, MFLOP, GFLOP, TFLOP"),
        ("psnr", "%", "empty, dB"),
    ],
)
def test_a_unit_that_is_not_understood_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], metric: str, unit: str, understood: str
) -> None:
    """When it is imported; and where an import of an earlier version let it in, by the table that would show it."""
    make_study(tmp_path, arms=TWO)
    (tmp_path / "papers.csv").write_text(f"{HEAD},unit\nS,ssim,1,X,\nS,{metric},3,X,{unit}\n")
    assert main(["import-csv", "synthetic", str(tmp_path / "papers.csv"), "--out", str(tmp_path)]) == 2
    said = [capsys.readouterr().err]
    (tmp_path / "fine.csv").write_text(f"{HEAD}\nS,ssim,1,X\nS,{metric},3,X\n")
    assert main(["import-csv", "synthetic", str(tmp_path / "fine.csv"), "--out", str(tmp_path)]) == 0
    stored = tmp_path / "synthetic" / "imported" / "fine.json"
    document = json.loads(stored.read_text())
    document["rows"][1]["unit"] = unit
    stored.write_text(json.dumps(document))
    capsys.readouterr()
    assert main(["table", "synthetic", "--out", str(tmp_path)]) == 2
    said.append(capsys.readouterr().err)
    for line in said:
        assert f".csv, line 3: {metric} has unit {unit!r}, which is not understood" in line and line.count("\n") == 1
        assert f"there are: {understood}" in line
    shown = build_table(load_study(tmp_path, "synthetic"), TableSpec(metrics=["rmse", "ssim"]))
    assert shown.row("S").cells[1].value == 1, "what a table does not show does not stop it"


def test_without_any_value_of_ours_a_unit_is_the_metric_s_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_study(tmp_path, arms=[dataclasses.replace(arm, states=dict.fromkeys(range(3), "failed")) for arm in TWO])
    (tmp_path / "papers.csv").write_text(f"{HEAD},unit\nS,psnr,22,X,dB\n")
    assert main(["import-csv", "synthetic", str(tmp_path / "papers.csv"), "--out", str(tmp_path)]) == 0
    table = build_table(load_study(tmp_path, "synthetic"), TableSpec())
    assert table.row("S").cells[0].value == 22


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            f"{HEAD}\nS,psnr,22,X\nS,ssim,1,X\nS,psnr,24,X\n",
            "lines 2 and 4: psnr of 'S' from 'X'; a column run tells repeats apart",
        ),
        (f"{HEAD},run\nS,psnr,22,X,1\nS,psnr,24,X,1\n", "lines 2 and 3: psnr of 'S' from 'X' run 1 again"),
    ],
)
def test_one_source_saying_two_things_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, words: str
) -> None:
    make_study(tmp_path, arms=TWO)
    (tmp_path / "papers.csv").write_text(text)
    assert main(["import-csv", "synthetic", str(tmp_path / "papers.csv"), "--out", str(tmp_path)]) == 2
    assert words in capsys.readouterr().err


def test_logged_runs_of_one_label_without_seeds_are_refused() -> None:
    from analysis.commands.import_wandb import read_project

    api = FakeApi(logged("sean", 0, 1.0), logged("sean", 1, 2.0))
    with pytest.raises(UserError, match="are both 'sean' and name no seed"):
        read_project("lab/sean", {"psnr": "val/psnr"}, seed_key="nothing", api=lambda: api)


# --- two things of one name -----------------------------------------------------------------------------------------------


def test_arms_of_one_label_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A plan refuses them; plans from before it did are read so that no two rows look alike."""
    make_study(tmp_path, arms=(TWO[0], SyntheticArm("b", "same", {"psnr": 1.0}), SyntheticArm("c", "same")))
    assert main(["table", "synthetic", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "| same (b)" in said and "| same (c)" in said and "| A" in said


def test_labels_that_begin_alike_stay_different_when_they_are_cut() -> None:
    long = ["attention loss = with, encoder = grouped", "attention loss = with, encoder = shared", "short"]
    cut = shorten_apart(long, 24)
    assert len(set(cut)) == 3 and all(len(text) <= 24 for text in cut) and cut[2] == "short"
    assert cut[0].endswith("grouped") and cut[1].endswith("shared")
    both = [f"{'x' * 30}{end}{'y' * 30}" for end in "ab"]
    assert len(set(shorten_apart(both, 20))) == 2
    assert shorten_apart(["same", "same"], 24) == ["same", "same"]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"groups": [{"label": "g", "arms": ["a"]}, {"label": "h", "arms": ["a"]}]}, "names 'a' twice"),
        ({"groups": [{"label": "g", "arms": ["a"]}, {"label": "g", "arms": ["b"]}]}, "names 'g' twice"),
        ({"arms": ["a", "a"]}, "names 'a' twice"),
        ({"metrics": ["psnr", {"metric": "psnr", "label": "other"}]}, "gives column psnr twice"),
    ],
)
def test_a_specification_that_names_one_thing_twice_is_refused(tmp_path: Path, spec: dict, words: str) -> None:
    make_study(tmp_path, arms=TWO)
    with pytest.raises(UserError, match=words):
        build_table(load_study(tmp_path, "synthetic"), parse_spec(spec, "spec"))


def test_a_column_asked_for_twice_in_the_same_way_is_one(tmp_path: Path) -> None:
    make_study(tmp_path, arms=TWO)
    table = build_table(load_study(tmp_path, "synthetic"), parse_spec({"metrics": ["study", "psnr"]}, "spec"))
    assert [column.metric for column in table.columns].count("psnr") == 1


def test_trace_refuses_a_label_that_two_rows_have(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    imported(tmp_path, capsys, f"{HEAD}\nSEAN,psnr,22.5,X\nSEAN,psnr,23.5,Y\n")
    assert main(["trace", "synthetic", "SEAN", "psnr", "--out", str(tmp_path)]) == 2
    assert "has 2 rows 'SEAN': published:SEAN, published:SEAN:2" in capsys.readouterr().err
    assert main(["trace", "synthetic", "published:SEAN:2", "psnr", "--out", str(tmp_path)]) == 0


# --- a planned metric without any value -----------------------------------------------------------------------------------


def with_metric(tmp_path: Path, name: str, protocol: str = "standard", *, evaluated: bool = True) -> None:
    """The synthetic study, whose plan also asks for `name` under `protocol`."""
    made = make_study(tmp_path, arms=TWO, seeds=(0,))
    asked = dataclasses.replace(made, protocol=protocol, metrics=(*made.metrics, StudyMetric(name, "secondary", "min")))
    asked.save(tmp_path / "synthetic")
    if evaluated:
        for cell in made.cells:
            RunStore(tmp_path / "runs").record(cell.run_id).update_provenance(protocols={protocol: "x"})


@pytest.mark.parametrize("form", [*(name for name in FORMATS if name != "csv"), "terminal"])
def test_a_metric_without_any_value_is_said_on_the_first_line(tmp_path: Path, form: str) -> None:
    with_metric(tmp_path, "fd_seg")
    table = build_table(load_study(tmp_path, "synthetic"), TableSpec())
    text = re.sub(r"(?s)^.*<body>\n<div[^>]*>\n", "", render(table, form))
    assert "No value in any cell: FD (segmenter) (missing)." in text.splitlines()[0].replace("\\", "")
    make_study(tmp_path / "whole", arms=TWO, seeds=(0,))
    whole = build_table(load_study(tmp_path / "whole", "synthetic"), TableSpec())
    assert "No value" not in render(whole, form)


def test_the_advice_of_a_footnote_works_when_it_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan of another day asks a protocol for a split that it does not measure; the runs are then evaluated as advised."""
    monkeypatch.setattr(synthetic, "SPLIT", "test")  # the records' rows, as the advised command writes them
    with_metric(tmp_path, "fd_seg", protocol="quick")
    study = load_study(tmp_path, "synthetic")
    ((_, said),) = build_table(study, TableSpec(metrics=["psnr"])).footnotes
    assert said.startswith(
        "the run has no such metric under protocol quick on split test: protocol quick measures split val, not test "
        "(python -m pipeline evaluate RUN --protocol standard, and in a table's specification "
    )
    advised = parse_yaml(re.findall(r"\{.*\}", said)[0], "the footnote").values
    assert advised == {"metric": "psnr", "protocol": "standard", "split": "test"}
    table = build_table(study, parse_spec({"metrics": [advised]}, "spec"))
    assert all(row.cells[0].value for row in table.rows) and not table.alarms
    assert table.columns[0].label == "PSNR (standard, test)", "which is not the study's protocol, and says so"


@pytest.mark.parametrize("evaluated", [False, True], ids=["never", "before the metric was there"])
def test_a_run_that_was_not_evaluated_is_told_the_command(tmp_path: Path, evaluated: bool) -> None:
    with_metric(tmp_path, "fd_seg", evaluated=evaluated)
    manifest = StudyManifest.load(tmp_path / "synthetic")
    dataclasses.replace(manifest, split="test").save(tmp_path / "synthetic")
    table = build_table(load_study(tmp_path, "synthetic"), TableSpec(metrics=["fd_seg"]))
    ((_, said),) = table.footnotes
    assert said == (
        "the run has no such metric under protocol standard on split test (python -m pipeline evaluate RUN --protocol standard)"
    )


# --- which study is meant -------------------------------------------------------------------------------------------------


def test_a_study_is_meant_by_name_file_and_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_study(tmp_path / "out", arms=TWO)
    file = tmp_path / "any.yaml"
    file.write_text("name: synthetic\n")
    assert main(["table", "synthetic", "--out", str(tmp_path / "out")]) == 0
    by_name = capsys.readouterr().out
    assert main(["table", str(file), "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == by_name
    for command in (["table"], ["compare"], ["stale"], ["claims"]):
        assert main([*command, str(tmp_path / "out" / "synthetic")]) in (0, 1), command
    assert by_name in capsys.readouterr().out
    run_id = StudyManifest.load(tmp_path / "out" / "synthetic").cells[0].run_id
    folder = str(tmp_path / "out" / "runs" / run_id)
    assert main(["diff", folder, run_id, "--out", str(tmp_path / "out")]) == 0
    assert main(["diff", folder, run_id, "--out", str(tmp_path)]) == 2
    assert "(--out names the output folder)" in capsys.readouterr().err
