"""A table in pieces that fit a printed page: columns side by side as far as a text width allows, rows as far as a page does.

Widths are estimated in characters of the body of the table; what is a little too wide all the same is shrunk where it is set.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from analysis.tables.model import Column, Row, Table, TableCell, heading

TEXT_WIDTH = 100  # characters of \footnotesize in the text width of a usual paper
COLUMN_WIDTH = 54  # in one of its two columns
PAGE_LINES = 56  # lines of \footnotesize on its page, captions aside
HEAD_WIDTH = 13  # a heading is broken into lines about so long
SMALL = 0.8  # of \scriptsize, beside it
SEPARATION = 1.5  # between two columns


@dataclass(frozen=True)
class Tile:
    """A piece of a table: some of its columns and rows, as a table."""

    table: Table
    lines: int  # in print, headings and rules included
    width: float  # characters


def tiles(table: Table) -> list[Tile]:
    """The table in pieces, row by row of pieces; one piece where it fits."""
    label = max((len(row.label) + 2 * bool(row.group) for row in table.rows), default=0) + 1
    widths = [_width(column, [row.cells[at] for row in table.rows]) for at, column in enumerate(table.columns)]
    return [
        Tile(_cut(table, at, rows), _head_lines(table, at) + _lines(table, rows), label + sum(widths[i] for i in at))
        for rows in _rows(table)
        for at in _columns(table, widths, max(TEXT_WIDTH - label, TEXT_WIDTH / 2))
    ]


def head_lines(column: Column) -> list[str]:
    """A heading in lines of about `HEAD_WIDTH` characters, broken between words; the direction stays beside the last word."""
    words = heading(column).split()
    if len(words) > 1 and len(words[-1]) == 1:
        words[-2:] = [f"{words[-2]} {words[-1]}"]
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + 1 + len(word) > HEAD_WIDTH:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def _width(column: Column, cells: Sequence[TableCell]) -> float:
    return max([*map(len, head_lines(column)), *map(_cell_width, cells)]) + SEPARATION


def _cell_width(cell: TableCell) -> float:
    spread = SMALL * (len(cell.spread) + 3) if cell.spread else 0.0
    count = SMALL * 8 if cell.show_n else 0.0
    marks = SMALL * (2 * len(cell.notes)) + 2 * cell.tie
    return max([len(cell.main) + spread + count + marks, *(SMALL * len(line) for line in cell.details)])


def _columns(table: Table, widths: Sequence[float], room: float) -> list[list[int]]:
    """Positions of the columns of each piece, in order; a piece ends early rather than cut a group that fits into the next one."""
    pieces: list[list[int]] = [[]]
    used = 0.0
    start = 0
    for _, count in table.column_groups:
        group = list(range(start, start + count))
        start += count
        whole = sum(widths[at] for at in group)
        if pieces[-1] and table.columns[group[0]].group and used + whole > room >= whole:
            pieces.append([])
            used = 0.0
        for at in group:
            if pieces[-1] and used + widths[at] > room:
                pieces.append([])
                used = 0.0
            pieces[-1].append(at)
            used += widths[at]
    return pieces


def _rows(table: Table) -> list[list[Row]]:
    """Rows of each piece: so many that a page holds them."""
    pieces: list[list[Row]] = [[]]
    for row in table.rows:
        if pieces[-1] and _lines(table, [*pieces[-1], row]) > PAGE_LINES - 8:
            pieces.append([])
        pieces[-1].append(row)
    return pieces


def _lines(table: Table, rows: Sequence[Row]) -> int:
    groups = len(replace(table, rows=tuple(rows)).row_groups)
    return groups + sum(1 + max((len(cell.details) for cell in row.cells), default=0) for row in rows)


def _head_lines(table: Table, at: Sequence[int]) -> int:
    grouped = any(table.columns[i].group for i in at)
    return 2 + grouped + max((len(head_lines(table.columns[i])) for i in at), default=0)


def _cut(table: Table, at: Sequence[int], rows: Sequence[Row]) -> Table:
    kept = tuple(replace(row, cells=tuple(row.cells[i] for i in at)) for row in rows)
    return replace(table, columns=tuple(table.columns[i] for i in at), rows=kept)


def text_lines(texts: Sequence[str], width: float) -> int:
    """Lines of footnotes across `width` characters."""
    return sum(math.ceil(len(text) / width) or 1 for text in texts)
