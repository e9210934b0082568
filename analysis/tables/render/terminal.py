"""The table for a terminal, drawn by rich; without colours and of fixed width where nobody looks."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from analysis.tables.model import RANK_LEGEND, Table, TableCell, heading

if TYPE_CHECKING:
    from rich.table import Table as RichTable

WIDTH = 120


def to_terminal(table: Table, *, width: int = WIDTH, colour: bool = False) -> str:
    """The table as text lines of at most `width` characters, in several blocks of columns where one would not fit.

    Labels are printed literally, whatever markup they hold.
    """
    from rich.console import Console
    from rich.text import Text

    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=colour, color_system="standard" if colour else None)
    for text in table.alarms:
        console.print(Text(f"! {_printable(text)}", style="bold yellow"))
    for index, block in enumerate(_blocks(table, width)):
        if index:
            console.print()
        console.print(_draw(table, block, table.title if index == 0 else f"{table.title} (continued)"))
    for mark, text in table.footnotes:
        console.print(Text(f"({mark}) {_printable(text)}"))
    for text in table.notes:
        console.print(Text(_printable(text.replace(RANK_LEGEND, "①: best; ②: second")), style="dim"))
    for text in table.warnings:
        console.print(Text(f"! {_printable(text)}", style="yellow"))
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def _draw(table: Table, block: list[int], title: str) -> RichTable:
    """The columns of one block as a drawing."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(
        title=Text(_printable(title), style="bold"), box=box.HORIZONTALS, title_justify="left", pad_edge=False
    )
    drawn.add_column("")
    for index in block:
        lines = map(_printable, _head(table, index).split("\n"))
        drawn.add_column(Text("\n".join(lines)), justify="right")
    for number, (group, rows) in enumerate(table.row_groups):
        if number:
            drawn.add_section()
        if group:
            drawn.add_row(Text(_printable(group), style="italic"))
        for row in rows:
            style = "italic" if row.kind in ("baseline", "published", "imported") else ""
            label = Text(_printable(row.label) + _marks(row.notes), style=style)
            drawn.add_row(label, *(Text(_cell(row.cells[index]), style=_style(row.cells[index])) for index in block))
    return drawn


def _head(table: Table, index: int) -> str:
    column = table.columns[index]
    text = heading(column) + _marks(column.notes)
    return f"{column.group}\n{text}" if column.group else text


def _blocks(table: Table, width: int) -> list[list[int]]:
    """Column numbers in blocks that fit beside the labels without breaking a cell; headings may wrap between words."""
    labels = max((len(row.label) + len(_marks(row.notes)) for row in table.rows), default=0)
    room = width - labels - 4
    blocks: list[list[int]] = [[]]
    used = 0
    for index in range(len(table.columns)):
        words = [len(word) for word in _head(table, index).split()]
        lines = [len(line) for row in table.rows for line in _cell(row.cells[index]).splitlines()]
        needed = max([*words, *lines, 8]) + 3
        if blocks[-1] and used + needed > room:
            blocks.append([])
            used = 0
        blocks[-1].append(index)
        used += needed
    return blocks


def _style(cell: TableCell) -> str:
    if cell.value is None:
        return "dim"
    return {"best": "bold", "second": "underline"}.get(cell.rank, "")


def _cell(cell: TableCell) -> str:
    text = f"{cell.main} ± {cell.spread}" if cell.spread else cell.main
    text += {"best": " ①", "second": " ②"}.get(cell.rank, "") + (" ≈" if cell.tie else "")
    text += f" (n={cell.n})" if cell.show_n else ""
    return "\n".join([text + _marks(cell.notes), *cell.details])


def _marks(notes: tuple[str, ...]) -> str:
    return f" ({','.join(notes)})" if notes else ""


def _printable(text: str) -> str:
    """Text without control characters: a label cannot steer the terminal."""
    return "".join(character if character.isprintable() else " " for character in text)
