"""The table model: everything a renderer needs, nothing that depends on a format.

All formats (LaTeX, Markdown, CSV, HTML, terminal) are drawn from one `Table`, so they cannot disagree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CellStatus = Literal[
    "ok", "missing", "unfinished", "failed", "diverged", "damaged", "unavailable", "not_applicable", "invalid", "blank"
]
RowKind = Literal["arm", "released", "external", "baseline", "published", "imported"]
# Measured here, under the table's protocol: ranked and tested.
MEASURED: tuple[RowKind, ...] = ("arm", "released", "external")
ColumnKind = Literal["metric", "cost", "gain"]
Rank = Literal["", "best", "second"]

# What stands in a cell without a number; each has a footnote with the reason.
MARKS: dict[str, str] = {
    "missing": "—",
    "unfinished": "…",
    "failed": "failed",
    "diverged": "diverged",
    "damaged": "damaged",
    "unavailable": "unavailable",
    "not_applicable": "n/a",
    "invalid": "invalid",
    "blank": "",
}
RANK_LEGEND = "Bold: best; underlined: second"  # a renderer without bold says it with its own marks
# What `--strict` does not accept. A metric that does not apply to an arm (attention of SPADE) is no defect.
DEFECTS = frozenset(MARKS) - {"not_applicable", "blank"}


@dataclass(frozen=True)
class Column:
    """One column of numbers."""

    key: str  # unique in the table, e.g. "psnr", "psnr:gain", "ade20k/fid"
    metric: str
    label: str
    unit: str  # after scaling, e.g. "M", "GFLOP", "dB"
    direction: str  # max, min or none
    kind: ColumnKind
    group: str  # heading above the column, "" for none
    scale: float  # printed number = value / scale
    decimals: int
    fingerprint: str  # of the metric; "" where no run has a value
    notes: tuple[str, ...] = ()  # letters of footnotes


@dataclass(frozen=True)
class TableCell:
    """One cell. `main` and `spread` are printed as `main ± spread`; `details` are printed below."""

    status: CellStatus
    main: str
    spread: str = ""
    details: tuple[str, ...] = ()
    value: float | None = None  # mean over seeds, unscaled
    std: float | None = None  # over seeds, ddof=1, unscaled
    n: int = 0  # seeds behind the value
    show_n: bool = False  # whether n differs from that of the table
    rank: Rank = ""
    tie: bool = False  # not the best, yet not distinguishable from it
    notes: tuple[str, ...] = ()  # letters of footnotes
    lower: float | None = None  # interval of the difference to the reference, unscaled
    upper: float | None = None
    difference: float | None = None
    p_value: float | None = None  # corrected
    run_ids: tuple[str, ...] = ()

    @property
    def plain(self) -> str:
        """The cell as one line of text without markup and footnote letters."""
        text = f"{self.main} ± {self.spread}" if self.spread else self.main
        text = f"{text} (n = {self.n})" if self.show_n else text
        return " ".join([f"{text} ≈" if self.tie else text, *self.details]).strip()


@dataclass(frozen=True)
class Row:
    """One row: an arm, or numbers from elsewhere."""

    key: str
    label: str
    kind: RowKind
    group: str
    reference: bool
    cells: tuple[TableCell, ...]  # one a column
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """A table with its footnotes. `problems` is what `--strict` complains about."""

    name: str
    title: str
    study: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    footnotes: tuple[tuple[str, str], ...]  # (letter, text)
    notes: tuple[str, ...]  # protocol, data, n, code, legend
    warnings: tuple[str, ...]  # few seeds, unequal budgets, mixed code: also printed below the table
    problems: tuple[str, ...]
    alarms: tuple[str, ...] = ()  # what makes the table useless: printed above everything else

    def row(self, key: str) -> Row:
        """The row with this key or label; KeyError when there is none."""
        return next(row for row in self.rows if key in (row.key, row.label))

    @property
    def row_groups(self) -> list[tuple[str, list[Row]]]:
        """Rows in order, split where the group or the side (own runs, baseline, published) changes."""
        groups: list[tuple[str, list[Row]]] = []
        last: tuple[str, str] | None = None
        for row in self.rows:
            mark = (row.group, side(row.kind))
            if mark != last:
                groups.append((row.group, []))
                last = mark
            groups[-1][1].append(row)
        return groups

    @property
    def column_groups(self) -> list[tuple[str, int]]:
        """Headings above the columns as (text, number of columns)."""
        groups: list[tuple[str, int]] = []
        for column in self.columns:
            if groups and groups[-1][0] == column.group:
                groups[-1] = (column.group, groups[-1][1] + 1)
            else:
                groups.append((column.group, 1))
        return groups


def side(kind: RowKind) -> str:
    """Which rows stand together: own runs, the trivial baseline, or numbers from elsewhere."""
    return "own" if kind in MEASURED else "baseline" if kind == "baseline" else "elsewhere"


def arrow(direction: str) -> str:
    """The direction arrow of a column heading."""
    return {"max": "↑", "min": "↓"}.get(direction, "")


def heading(column: Column) -> str:
    """Label, unit and direction of a column: "PSNR [dB] ↑"."""
    unit = f" [{column.unit}]" if column.unit else ""
    return f"{column.label}{unit} {arrow(column.direction)}".strip()


def letter(index: int) -> str:
    """a, b, ..., z, aa, ab, ..."""
    text = ""
    index += 1
    while index:
        index, remainder = divmod(index - 1, 26)
        text = chr(ord("a") + remainder) + text
    return text
