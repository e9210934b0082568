"""The table for a terminal, drawn by rich; without colours and of fixed width where nobody looks."""

from __future__ import annotations

import io

from analysis.tables.model import RANK_LEGEND, Table, TableCell, heading

WIDTH = 120


def to_terminal(table: Table, *, width: int = WIDTH, colour: bool = False) -> str:
    """The table as text lines of at most `width` characters.

    Labels are printed literally, whatever markup they hold.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(title=Text(table.title, style="bold"), box=box.HORIZONTALS, title_justify="left", pad_edge=False)
    drawn.add_column("")
    grouped = any(group for group, _ in table.column_groups)
    for column in table.columns:
        head = f"{column.group}\n{heading(column)}" if grouped and column.group else heading(column)
        drawn.add_column(Text(head), justify="right")
    for index, (group, rows) in enumerate(table.row_groups):
        if index:
            drawn.add_section()
        if group:
            drawn.add_row(Text(group, style="italic"))
        for row in rows:
            style = "italic" if row.kind in ("baseline", "published", "imported") else ""
            label = Text(_printable(row.label) + _marks(row.notes), style=style)
            drawn.add_row(label, *(Text(_cell(cell), style=_style(cell)) for cell in row.cells))
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=colour, color_system="standard" if colour else None)
    console.print(drawn)
    for mark, text in table.footnotes:
        console.print(Text(f"({mark}) {_printable(text)}"))
    for text in table.notes:
        console.print(Text(_printable(text.replace(RANK_LEGEND, "①: best; ②: second")), style="dim"))
    for text in table.warnings:
        console.print(Text(f"! {_printable(text)}", style="yellow"))
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


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
