"""Tables: the same bytes every time, and no format that a label can break."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from analysis.frame import load_study
from analysis.tables import build_table, render
from analysis.tables.model import Table
from analysis.tables.render.csv_text import to_csv
from analysis.tables.render.markdown import escape as markdown_escape
from analysis.tables.spec import parse_spec
from pipeline.errors import UserError
from tests.analysis.small_tables import FULL, NASTY, TWO, cell, nasty_table, table_of
from tests.analysis.synthetic import ARMS, PSNR, SSIM, Metric, SyntheticArm, make_study

GOLDEN = Path(__file__).parent / "golden"

# -- the same bytes ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Table:
    """The table of the golden files."""
    arms = (
        *ARMS,
        SyntheticArm("broken", "broken", states={0: "failed", 1: "diverged", 2: "missing"}, levels={"arm": "broken"}),
    )
    return table_of(tmp_path_factory.mktemp("golden"), FULL, arms=arms)


@pytest.mark.parametrize("form", ["md", "tex", "csv", "html", "terminal"])
def test_golden_tables(golden: Table, form: str) -> None:
    """To renew after a wanted change: delete tests/analysis/golden/ and run this test once."""
    text = render(golden, form)
    path = GOLDEN / f"full.{form}"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        pytest.fail(f"{path.name} did not exist and was written: look at it and commit it")
    assert text == path.read_text()


def test_the_order_of_records_and_arms_on_disk_does_not_matter(tmp_path: Path) -> None:
    make_study(tmp_path, seeds=(0, 1, 2))
    before = render(build_table(load_study(tmp_path, "synthetic"), FULL), "csv")
    path = tmp_path / "synthetic" / "plan.json"
    plan = json.loads(path.read_text())
    plan["cells"].reverse()
    path.write_text(json.dumps(plan))
    assert render(build_table(load_study(tmp_path, "synthetic"), FULL), "csv") == before


# -- formats -----------------------------------------------------------------------------------------------------------


class Cells(HTMLParser):
    """Collects tags and the text of the row headers."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.labels: list[str] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "th" and ("scope", "row") in attrs:
            self._inside = True
            self.labels.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "th":
            self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.labels[-1] += data


def test_html_injects_nothing(tmp_path: Path) -> None:
    parser = Cells()
    parser.feed(render(nasty_table(tmp_path), "html"))
    assert "script" not in parser.tags
    assert parser.labels == NASTY


def test_csv_is_read_back_whole_and_runs_no_formula(tmp_path: Path) -> None:
    import csv
    import io

    table = nasty_table(tmp_path)
    rows = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert [row["label"] for row in rows] == [f"'{label}" if label.startswith("=") else label for label in NASTY]
    assert [float(row["psnr"]) for row in rows] == pytest.approx([row.cells[0].value for row in table.rows])


def test_markdown_keeps_its_columns(tmp_path: Path) -> None:
    lines = [line for line in render(nasty_table(tmp_path), "md").splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(NASTY)
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {3}
    assert markdown_escape("<b>*a*") == r"&lt;b&gt;\*a\*"


def test_a_wide_table_is_split_into_blocks_without_broken_cells(tmp_path: Path) -> None:
    metrics = [PSNR, *(dataclasses.replace(SSIM, name=f"ssim_{index}") for index in range(12))]
    table = table_of(tmp_path, FULL, arms=TWO, metrics=metrics)
    text = render(table, "terminal")
    assert max(map(len, text.splitlines())) <= 120
    assert "…" not in text
    assert text.count("(continued)") >= 1
    for row in table.rows:
        for item in row.cells:
            assert f"{item.main} ± {item.spread}" in text
            assert all(detail in text for detail in item.details)


def test_a_pattern_in_a_group_is_labelled_by_what_it_matches(tmp_path: Path) -> None:
    metrics = (
        PSNR,
        dataclasses.replace(SSIM, name="edit_ssim_style"),
        dataclasses.replace(SSIM, name="edit_ssim_shape"),
    )
    spec = parse_spec({"metrics": [{"metric": "edit_ssim_*", "group": "Edit SSIM"}]}, "spec")
    table = table_of(tmp_path, spec, arms=TWO, metrics=metrics)
    assert [(column.group, column.label) for column in table.columns] == [
        ("Edit SSIM", "shape"),
        ("Edit SSIM", "style"),
    ]


def test_terminal_prints_no_control_characters(tmp_path: Path) -> None:
    text = render(nasty_table(tmp_path), "terminal")
    assert "\x1b" not in text


# -- robustness of the whole -------------------------------------------------------------------------------------------


def test_every_state_in_every_place_gives_a_table(tmp_path: Path) -> None:
    """Random wreckage: whatever states runs are in, the table is built and no cell shows a number it should not."""
    generator = np.random.default_rng(3)
    states = ("finished", "failed", "diverged", "missing", "planned", "preempted", "pruned")
    for trial in range(6):
        arms = [
            SyntheticArm(
                f"arm{index}",
                reference=index == 0,
                states={seed: str(generator.choice(states)) for seed in range(3)},
                kind="rule" if index == 3 else "trained",
            )
            for index in range(4)
        ]
        out = tmp_path / str(trial)
        make_study(out, arms=arms, metrics=(PSNR, SSIM, Metric("odd", "none")), history=False)
        try:
            table = build_table(load_study(out, "synthetic"), FULL)
        except UserError as error:
            assert "no recorded metric" in str(error)
            continue
        for arm, row in ((arm, table.row(arm.name)) for arm in arms):
            finished = sum(arm.states[seed] == "finished" for seed in range(3))
            psnr = cell(table, row.key, "psnr")
            assert psnr.n == finished
            assert (psnr.value is None) == (finished == 0)
            assert psnr.value is None or math.isfinite(psnr.value)
            assert finished == 3 or psnr.notes
