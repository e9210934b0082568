"""docs/performance/tables.md: written whole from the JSON of measurements beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.bench.text import as_markdown, load
from pipeline.errors import UserError

HEAD = """# Measurements

Written by `make bench` from the JSON beside this page; what is to be seen in them stands in [performance](../performance.md).
"""


def tables_page(folder: Path, names: Sequence[str]) -> str:
    """The page: a table for every `folder/NAME.json` there is, in the order of `names`."""
    tables = [
        f"## {name}\n\n{as_markdown(load(folder / f'{name}.json'))}\n"
        for name in names
        if (folder / f"{name}.json").exists()
    ]
    return "\n".join([HEAD, *tables])


def write_tables(page: Path, names: Sequence[str]) -> None:
    """Write the page of the measurements beside it. UserError when it cannot be written."""
    text = tables_page(page.parent, names)
    try:
        page.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{page} cannot be written: {error.strerror}") from error
