"""Tables of synthetic studies for tests, and what one of their cells says."""

from __future__ import annotations

from pathlib import Path

from analysis.frame import load_study
from analysis.tables import TableSpec, build_table
from analysis.tables.model import Table, TableCell
from analysis.tables.spec import ShowSpec
from tests.analysis.synthetic import PSNR, SyntheticArm, make_study

FULL = TableSpec(title="Full", show=ShowSpec(delta=True, interval=True, stars=True, gain=True))
TWO = (SyntheticArm("a", "A", reference=True), SyntheticArm("b", "B", {"psnr": 1.0, "ssim": 0.1, "rmse": -0.05}))
NASTY = [
    "<script>alert(1)</script>",
    r"100% \input{/etc/passwd} & $x_1^2$ #5 ~ {}",
    "| pipe | **bold** `code` [link](http://x)",
    "=cmd|' /C calc'!A0",
    "naïve Größe 汉字 🎨 α→β\x1b[31m",
    '"quoted", comma\nnewline',
]


def table_of(out: Path, spec: TableSpec | None = None, **study: object) -> Table:
    """The table of a synthetic study made in `out`."""
    make_study(out, **study)  # type: ignore[arg-type]
    return build_table(load_study(out, "synthetic"), spec or TableSpec())


def cell(table: Table, row: str, column: str) -> TableCell:
    """The cell of a row's key in a column's key."""
    index = [item.key for item in table.columns].index(column)
    return table.row(row).cells[index]


def notes_of(table: Table, row: str, column: str = "") -> str:
    """The footnotes of a row, or of its cell in `column`, joined by " | "."""
    texts = dict(table.footnotes)
    marks = cell(table, row, column).notes if column else table.row(row).notes
    return " | ".join(texts[mark] for mark in marks)


def data_factor() -> list[SyntheticArm]:
    """Two models on two data sets; SPADE is 2 dB worse on both."""
    return [
        SyntheticArm(f"{model}-{data}", levels={"model": model, "data": data}, reference=model == "ca2sis",
                     overrides=(f"model={model}", f"data={data}"), effects={"psnr": -2.0 if model == "spade" else 0.0})
        for model in ("ca2sis", "spade") for data in ("faces", "scenes")
    ]  # fmt: skip


def nasty_table(out: Path) -> Table:
    """A table whose labels try to break out of every format."""
    arms = [SyntheticArm(f"arm{index}", label, reference=index == 0) for index, label in enumerate(NASTY)]
    return table_of(out, arms=arms, seeds=(0,), metrics=(PSNR,))
