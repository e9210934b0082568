"""docs/performance.md and docs/performance/accuracy.md: the text between its markers is rebuilt from the JSON of measurements."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.bench.text import as_markdown, load
from pipeline.errors import UserError

BEGIN, END = "<!-- tables: written by make bench -->", "<!-- end of tables -->"  # or by bench accuracy


def rewrite(page: Path, folder: Path, names: Sequence[str]) -> None:
    """Put a table for every `folder/NAME.json` there is, in the order of `names`, between the markers of `page`."""
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{page} cannot be read: {error.strerror}") from error
    if BEGIN not in text or END not in text:
        raise UserError(f"{page} lacks the lines {BEGIN!r} and {END!r} that the tables stand between")
    tables = [
        f"### {name}\n\n{as_markdown(load(folder / f'{name}.json'))}\n"
        for name in names
        if (folder / f"{name}.json").exists()
    ]
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    body = "\n".join(tables)
    page.write_text(f"{before}{BEGIN}\n\n{body}\n{END}{after}", encoding="utf-8")
