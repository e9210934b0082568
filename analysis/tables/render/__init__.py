"""Drawing a `Table` in a format. Every renderer is a pure function of the table: equal tables give equal bytes."""

from __future__ import annotations

from collections.abc import Callable

from analysis.tables.model import Table
from analysis.tables.render.csv_text import to_csv
from analysis.tables.render.html import to_html
from analysis.tables.render.latex import to_latex
from analysis.tables.render.markdown import to_markdown

FORMATS: dict[str, Callable[[Table], str]] = {"md": to_markdown, "tex": to_latex, "csv": to_csv, "html": to_html}


def render(table: Table, form: str) -> str:
    """The table as text in one of `FORMATS` (or "terminal", 120 columns without colours), ending in a newline."""
    if form == "terminal":
        from analysis.tables.render.terminal import to_terminal

        return to_terminal(table)
    return FORMATS[form](table)


__all__ = ["FORMATS", "render", "to_csv", "to_html", "to_latex", "to_markdown"]
