"""Numbers that papers print: a group of their own in every format, never ranked, each with its source and why it stands apart."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest

from analysis.__main__ import main
from analysis.frame import load_study
from analysis.published import COLUMNS, FOLDER, TITLES, load_published, protocols, published_groups
from analysis.tables.build import build_table
from analysis.tables.render import render
from analysis.tables.spec import TableSpec
from pipeline.schema.yaml12 import read_yaml
from tests.analysis.synthetic import PSNR, Metric, SyntheticArm, make_study
from tests.analysis.test_latex import needs_latex, typeset
from tests.browser import CHROMIUM, browser

FID = Metric("fid", "min", "", 150.0, 1.0, 0.0, 0.5, 0.0, per_image=False)
MIOU = Metric("seg_miou", "max", "", 0.3, 0.01, 0.0, 0.005, 0.0, per_image=False)
TWO = (SyntheticArm("a", "A", reference=True), SyntheticArm("b", "B", {"psnr": 1.0, "fid": -2.0}))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    make_study(folder, arms=TWO, metrics=(PSNR, FID, MIOU))
    return folder


def printed(out: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["table", "synthetic", *words, "--out", str(out)]) == 0
    return capsys.readouterr().out


# -- what is shipped ---------------------------------------------------------------------------------------------------


def test_every_shipped_number_says_what_it_is_and_whose() -> None:
    assert published_groups() == sorted(TITLES) == ["ca2sis", "label_map_only", "remeasured", "scam", "sean"]
    seen: set[tuple[str, ...]] = set()
    for group in published_groups():
        for line in lines_of(group):
            assert tuple(line) == COLUMNS
            assert all(line[name] for name in COLUMNS if name != "unit"), line
            value = float(line["value"])
            assert 0 <= value <= (1 if line["metric"].startswith(("seg_", "ssim", "reid_", "lpips")) else 200), line
            key = (group, *(line[name] for name in ("system", "data", "metric", "value", "source")))
            assert key not in seen, key
            seen.add(key)
    assert {line["protocol"] for group in published_groups() for line in lines_of(group)} == set(protocols())


def lines_of(group: str) -> list[dict[str, str]]:
    return list(csv.DictReader((FOLDER / f"{group}.csv").read_text().splitlines()))


@pytest.mark.parametrize(
    ("group", "system", "data", "metric", "values"),
    [
        ("label_map_only", "SPADE", "ADE20K", "fid", ["33.9"]),
        ("label_map_only", "SPADE", "Cityscapes", "seg_accuracy", ["0.819"]),
        ("label_map_only", "OASIS", "ADE20K", "seg_miou", ["0.488", "0.483"]),  # two sources, two numbers
        ("label_map_only", "PITI", "COCO-Stuff", "fid", ["16.1", "15.6"]),
        ("label_map_only", "INADE", "ADE20K", "lpips_div_alex", ["0.400"]),
        ("label_map_only", "SIMS", "ADE20K", "fid", []),
        ("scam", "SCAM", "CelebAMask-HQ", "psnr", ["21.9"]),
        ("scam", "INADE", "CelebAMask-HQ", "fid_swap", ["23.4"]),
        ("scam", "SPADE", "iDesigner", "reid_accuracy", ["0.26"]),
        ("sean", "SEAN", "CelebAMask-HQ", "ssim_range2", ["0.73"]),
        ("remeasured", "SPADE", "Cityscapes", "fid", ["63.36", "63"]),
        ("ca2sis", "(CA)²-SIS against the best before it", "ADE20K", "gain_fid_percent", ["1.4"]),
    ],
)
def test_numbers_are_those_of_their_sources(group: str, system: str, data: str, metric: str, values: list[str]) -> None:
    wanted = (system, data, metric)
    assert [
        line["value"] for line in lines_of(group) if (line["system"], line["data"], line["metric"]) == wanted
    ] == values


def test_the_groups_hold_as_many_numbers_as_their_sources_print() -> None:
    assert {group: len(lines_of(group)) for group in published_groups()} == {
        "ca2sis": 3, "label_map_only": 125, "remeasured": 15, "scam": 60, "sean": 7,
    }  # fmt: skip


# -- in tables ---------------------------------------------------------------------------------------------------------


def test_published_rows_stand_apart_unranked_with_their_caveats(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(out, capsys, "--published", "label_map_only", "--format", "md")
    head, rest = text.split("*Published: label map only*")
    assert "| **1" in head or "**" in head
    rows = [line for line in rest.splitlines() if line.startswith("| &emsp;*")]
    assert rows and not any("**" in row or "<ins>" in row for row in rows)
    assert any("SPADE, ADE20K" in row and "| 33.9 |" in row and "0.385" in row for row in rows)
    assert "not comparable with what was measured here (other task, data, size and segmenter)" in text
    assert "UperNet101" in text and "copied from: other papers' tables; measured by: not stated" in text
    # its best FID is lower than any measured one: the measured ones are ranked as if it were not there
    assert re.search(r"\| B.*\*\*14\d", text)
    own = printed(out, capsys, "--format", "md")
    first, second = (
        next(line for line in text.splitlines() if line.startswith("| B")).split("|") for text in (head, own)
    )
    assert "Published" not in own and first[3] == second[3]


def test_conflicting_values_of_one_system_are_both_shown(out: Path) -> None:
    table = build_table(load_study(out, "synthetic"), TableSpec(published=["label_map_only"]))
    column = [column.key for column in table.columns].index("seg_miou")
    rows = [row for row in table.rows if row.label == "OASIS, ADE20K"]
    said = [row for row in rows if row.cells[column].main]  # a third source has another of its metrics
    assert sorted(row.cells[column].main for row in said) == ["0.483", "0.488"]
    assert len({row.key for row in said}) == 2 and len({row.notes[0] for row in said}) == 2


def test_metrics_that_papers_alone_have_get_a_column(out: Path) -> None:
    table = build_table(load_study(out, "synthetic"), TableSpec(published=["scam", "ca2sis"], cost=["params"]))
    labels = [column.label for column in table.columns]
    assert labels[-1] == "Parameters" and {"FID of swaps", "Re-identification accuracy", "FID gain"} <= set(labels)
    column = labels.index("FID of swaps")
    assert all(row.cells[column].status == "blank" for row in table.rows if row.kind == "arm")
    (scam,) = [row for row in table.rows if row.label == "SCAM, CelebAMask-HQ"]
    assert scam.cells[column].main == "19.8" and scam.group == "Published: SCAM's protocol"
    assert not table.alarms and not table.problems


def test_groups_can_stand_in_the_specification(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "with.yaml"
    spec.write_text("cost: [params, flops_per_image, train_images_per_s, train_device_hours]\npublished: [sean]\n")
    by_spec = printed(out, capsys, "--spec", str(spec), "--format", "csv")
    assert by_spec == printed(out, capsys, "--published", "sean", "--format", "csv")
    rows = [row for row in csv.DictReader(io.StringIO(by_spec)) if row["kind"] == "published"]
    assert {(row["label"], row["fid"]) for row in rows if row["fid"]} == {
        ("SEAN, CelebAMask-HQ", "17.66"), ("SEAN (released weights), CelebAMask-HQ", "30"),
        ("SPADE with style image and instance map, Cityscapes", "50.38"),
    }  # fmt: skip
    assert all(not row["fid:rank"] for row in rows)


def test_an_unknown_group_is_refused_with_the_nearest(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", "synthetic", "--published", "label_map", "--out", str(out)]) == 2
    line = capsys.readouterr().err
    assert "'label_map' (did you mean label_map_only" in line and line.count("\n") == 1


def test_a_protocol_of_ours_that_measures_alike_takes_the_caveat_away() -> None:
    apart = load_published(["sean"], "standard", "celebamask_hq 256x256")
    alike = load_published(["sean"], "sean_compat", "celebamask_hq 256x256, 28000 train")
    other_data = load_published(["sean"], "sean_compat", "procfaces 32x32")
    assert apart["caveat"].iloc[0].startswith("not comparable")
    assert alike["caveat"].iloc[0].startswith("measured as protocol sean_compat does")
    assert other_data["caveat"].iloc[0].startswith("not comparable")


def test_every_protocol_says_what_it_is_and_why() -> None:
    for name, content in read_yaml(FOLDER / "protocols.yaml", "protocols", ((),)).values.items():
        assert {"what", "why"} <= set(content) <= {"what", "why", "ours", "data"}, name


@needs_latex
def test_the_table_with_published_rows_compiles(out: Path, tmp_path: Path) -> None:
    study = load_study(out, "synthetic")
    assert typeset(tmp_path, *(build_table(study, TableSpec(published=[group])) for group in published_groups())) > 4


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_the_html_table_shows_the_group_in_a_browser(out: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(render(build_table(load_study(out, "synthetic"), TableSpec(published=["sean"])), "html"))
    with browser(tmp_path / "profile") as opened:
        opened.open(page)
        heading = opened.evaluate(
            "[...document.querySelectorAll('tr.group th')].map(cell => cell.textContent).join('|')"
        )
        style = opened.evaluate("getComputedStyle(document.querySelector('tr.published td')).fontStyle")
        assert "Published: SEAN's protocol" in heading and style == "italic"
        assert opened.console == [] and opened.requests == [page.as_uri()]
