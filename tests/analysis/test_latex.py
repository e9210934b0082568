"""LaTeX: everything escaped, every cell there once, and nothing outside the page when it is typeset."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.tables import TableSpec
from analysis.tables.model import Table
from analysis.tables.render.latex import escape, to_latex
from analysis.tables.render.tiles import PAGE_LINES, TEXT_WIDTH, tiles
from tests.analysis.small_tables import FULL, data_factor, nasty_table, table_of


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Table:
    """The default synthetic study with differences, intervals and gains."""
    return table_of(tmp_path_factory.mktemp("full"), FULL)


@given(st.text(max_size=40))
def test_latex_escape_leaves_nothing_special(text: str) -> None:
    escaped = escape(text)
    assert escaped.isprintable() or not escaped
    bare = re.sub(
        r"\\[a-zA-Z]+\{\}|\\[{}$&#_%]|\$\\[a-zA-Z]+\$|\$-\$|\\textsuperscript\{\d\}|\{\[\}|\{\]\}", "", escaped
    )
    assert not re.search(r"[\\{}$&#_%^|<>\"\[\]`]", bare.replace("``", "").replace("`", ""))


def test_latex_has_as_many_cells_in_every_row(full: Table) -> None:
    pieces = re.findall(r"\\begin\{tabular\}\{l(r+)\}(.*?)\\end\{tabular\}\}", to_latex(full), re.DOTALL)
    assert sum(len(columns) for columns, _ in pieces) == len(full.columns)
    for columns, text in pieces:
        body = text.split(r"\midrule", 1)[1].split(r"\bottomrule")[0]
        rows = [line for line in body.splitlines() if line.strip().endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(columns)}
        # a difference stands in a row of its own, below the value and without a label
        assert body.count("    & {\\scriptsize $\\Delta$") == 3
        assert r"\toprule" in text


def tex_has(name: str) -> bool:
    """Whether the TeX installation here, if any, knows the file `name`."""
    finder = shutil.which("kpsewhich")
    return finder is not None and subprocess.run([finder, name], capture_output=True, check=False).returncode == 0


needs_latex = pytest.mark.skipif(
    shutil.which("pdflatex") is None or not tex_has("booktabs.sty"),
    reason="pdflatex and booktabs are not installed (texlive-latex-base, texlive-latex-recommended)",
)


def typeset(folder: Path, *tables: Table, layout: str = "") -> int:
    """Compile a paper of these tables; the number of its pages. Nothing may stick out of a page, at its side or below."""
    source = (
        f"\\documentclass[{layout}]{{article}}\n\\usepackage[T1]{{fontenc}}\n\\usepackage[utf8]{{inputenc}}\n"
        "\\usepackage{textcomp,booktabs,graphicx}\n\\begin{document}\n"
        + "\\clearpage\n".join(map(to_latex, tables))
        + "\\end{document}\n"
    )
    (folder / "paper.tex").write_text(source)
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
        cwd=folder, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert not re.search(r"Overfull .hbox|Float too large", done.stdout), done.stdout[-2000:]
    found = re.search(r"Output written on paper.pdf .(\d+) page", done.stdout)
    assert found is not None
    return int(found[1])


@needs_latex
def test_latex_compiles(full: Table, tmp_path: Path) -> None:
    by_data = table_of(tmp_path / "pivot", TableSpec(pivot="data", metrics=["psnr"]), arms=data_factor())
    assert typeset(tmp_path, nasty_table(tmp_path / "nasty"), full, by_data) == 3


def spread_out(table: Table, columns: int, rows: int) -> Table:
    """The table with so many columns and rows, of headings and labels as long as real ones."""
    wide = tuple(
        dataclasses.replace(table.columns[0], key=f"c{at}", label=f"Change outside, style transfer {at}")
        for at in range(columns)
    )
    row = dataclasses.replace(table.rows[1], cells=(table.rows[1].cells[0],) * columns)
    long = tuple(
        dataclasses.replace(row, key=f"r{at}", label=f"own class alone, attention loss {at}") for at in range(rows)
    )
    return dataclasses.replace(table, columns=wide, rows=long)


@pytest.mark.parametrize(("columns", "rows"), [(3, 4), (18, 17), (2, 130), (18, 60)])
def test_every_cell_of_a_large_table_is_in_one_piece(full: Table, columns: int, rows: int) -> None:
    large = spread_out(full, columns, rows)
    pieces = tiles(large)
    found = Counter(
        (column.key, row.key) for piece in pieces for column in piece.table.columns for row in piece.table.rows
    )
    assert found == Counter((column.key, row.key) for column in large.columns for row in large.rows)
    assert all(piece.width <= TEXT_WIDTH and piece.lines <= PAGE_LINES for piece in pieces)
    assert (len(pieces) == 1) == ((columns, rows) == (3, 4))


def test_footnotes_that_a_page_does_not_hold_go_on_the_next(full: Table) -> None:
    small = spread_out(full, 2, 20)
    assert len(tiles(small)) == 1
    many = dataclasses.replace(small, notes=("a note of some length, as notes are, and a little more",) * 30)
    none = dataclasses.replace(small, notes=(), footnotes=(), warnings=(), alarms=())
    assert [to_latex(table).count(r"\end{table") for table in (many, none)] == [2, 1]


@needs_latex
@pytest.mark.parametrize("layout", ["", "twocolumn"])
def test_a_table_wider_and_longer_than_a_page_is_typeset_whole(full: Table, tmp_path: Path, layout: str) -> None:
    """18 columns with differences once stuck out of the page by five text widths, 130 rows out of its foot."""
    tables = [spread_out(full, *shape) for shape in ((2, 3), (18, 17), (2, 130))]
    assert 8 <= typeset(tmp_path, *tables, layout=layout) <= 16
