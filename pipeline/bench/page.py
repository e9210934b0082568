"""Pages of docs/performance that are written whole from the JSON of measurements beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.bench.text import as_markdown, load
from pipeline.errors import UserError

HEAD = """# Measurements

Written by `make bench` from the JSON beside this page; what is to be seen in them stands in [performance](../performance.md).
"""
ACCURACY_HEAD = """# Accuracy of every kernel

Written by `python -m pipeline bench accuracy --docs docs` from the JSON beside this page; how it is measured and what is to be seen
in it stands in [accuracy](accuracy.md).
"""


def tables_page(folder: Path, names: Sequence[str], head: str = HEAD) -> str:
    """The page: a table for every `folder/NAME.json` there is, in the order of `names`."""
    tables = [
        f"## {name}\n\n{as_markdown(load(folder / f'{name}.json'))}\n"
        for name in names
        if (folder / f"{name}.json").exists()
    ]
    return "\n".join([head, *tables])


def write_tables(page: Path, names: Sequence[str], head: str = HEAD) -> None:
    """Write the page of the measurements beside it. UserError when it cannot be written."""
    text = tables_page(page.parent, names, head)
    try:
        page.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{page} cannot be written: {error.strerror}") from error
