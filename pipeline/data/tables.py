"""Small files that users write: CSV with a header, named columns and no cell empty; names, one a line."""

from __future__ import annotations

import csv
from pathlib import Path

from pipeline.errors import UserError, nearest


def read_table(path: Path, columns: tuple[str, ...], what: str) -> list[dict[str, str]]:
    """Rows of a CSV file by column; more columns than `columns` may be there.

    UserError, naming the line: a file that does not read, a column or cell that is missing, no row. `what` begins messages.
    """
    reader = csv.DictReader(_text(path, what).splitlines(), skipinitialspace=True)
    header = [name.strip() for name in reader.fieldnames or []]
    for column in columns:
        if column not in header:
            raise UserError(
                f"{what}: has no column {column}{nearest(column, header)}; its first line must be {','.join(columns)}"
            )
    reader.fieldnames = header
    rows = []
    for row in reader:
        cells = {name: (row.get(name) or "").strip() for name in header}
        empty = [column for column in columns if not cells[column]]
        if empty:
            raise UserError(f"{what}, line {reader.line_num}: nothing under {', '.join(empty)}")
        rows.append(cells)
    if not rows:
        raise UserError(f"{what}: has no line below its first")
    return rows


def read_names(path: Path, what: str) -> list[str]:
    """Names, one a line: the first is number 0. Empty lines may end the file.

    UserError, naming the line: a file that does not read, no name, a name that stands there twice, an empty line between names.
    """
    names = [line.strip() for line in _text(path, what).rstrip().splitlines()]
    if not names:
        raise UserError(f"{what}: holds no names; it needs one a line")
    for number, name in enumerate(names, start=1):
        if not name:
            raise UserError(f"{what}, line {number}: is empty, and the names after it would be those of other ids")
        if name in names[: number - 1]:
            raise UserError(f"{what}, line {number}: {name!r} stands there twice")
    return names


def _text(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")  # editors and spreadsheets put a mark before the first letter
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{what}: cannot be read ({getattr(error, 'strerror', None) or error})") from error


def whole_number(text: str, low: int, high: int, what: str) -> int:
    """A cell as a whole number from `low` to `high`; UserError begins with `what`."""
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise UserError(f"{what}: {text!r} is not a whole number from {low} to {high}")
    return value
