"""Markdown (GitHub's dialect): bold best, underlined second, footnotes as superscript letters."""

from __future__ import annotations

import re

from analysis.tables.model import Column, Row, Table, TableCell, heading, side

GROUP_INDENT = "&emsp;"


def escape(text: str) -> str:
    """Text that Markdown and the HTML inside it leave as it is; line breaks become spaces."""
    text = " ".join(text.split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]|#~!$])", r"\\\1", text)


def to_markdown(table: Table) -> str:
    """The table as Markdown."""
    lines = [line for text in table.alarms for line in (f"⚠ {escape(text)}", "")]
    lines += [f"**{escape(table.title)}**", ""]
    lines.append(_line(["", *(escape(_head(column)) + _sup(column.notes) for column in table.columns)]))
    lines.append("|".join(["", " :--- ", *(" ---: " for _ in table.columns), ""]))
    last_side = ""
    for group, rows in table.row_groups:
        this_side = side(rows[0].kind)
        if group:
            lines.append(_line([f"*{escape(group)}*", *("" for _ in table.columns)]))
        elif last_side and this_side == "elsewhere":
            lines.append(_line(["*From elsewhere*", *("" for _ in table.columns)]))
        last_side = this_side
        lines += [_line([_label(row, indent=bool(group)), *map(_cell, row.cells)]) for row in rows]
    lines.append("")
    lines += [f"<sup>{mark}</sup> {escape(text)}  " for mark, text in table.footnotes]
    lines += [f"{escape(text)}  " for text in table.notes]
    lines += [f"⚠ {escape(text)}  " for text in table.warnings]
    return "\n".join(lines) + "\n"


def _head(column: Column) -> str:
    return f"{column.group}: {heading(column)}" if column.group else heading(column)


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _label(row: Row, *, indent: bool) -> str:
    text = escape(row.label)
    if row.kind in ("baseline", "published", "imported"):
        text = f"*{text}*"
    return (GROUP_INDENT if indent else "") + text + _sup(row.notes)


def _cell(cell: TableCell) -> str:
    text = escape(f"{cell.main} ± {cell.spread}" if cell.spread else cell.main)
    if cell.rank == "best":
        text = f"**{text}**"
    elif cell.rank == "second":
        text = f"<ins>{text}</ins>"
    if cell.tie:
        text += " ≈"
    if cell.show_n:
        text += f" (n = {cell.n})"
    return "<br>".join([text + _sup(cell.notes), *map(escape, cell.details)])


def _sup(marks: tuple[str, ...]) -> str:
    return f"<sup>{','.join(marks)}</sup>" if marks else ""
