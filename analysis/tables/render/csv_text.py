"""CSV for further calculation: unrounded numbers (12 digits), one row an arm, several columns a metric.

For each column of the table: `<key>` (mean), `<key>:std`, `<key>:n`, `<key>:status`, `<key>:rank`, and, where
compared, the difference to the reference with its interval and corrected p-value. Footnotes are in the column
`notes`.
"""

from __future__ import annotations

import csv
import io

from analysis.tables.model import Row, Table, TableCell

_FORMULA = ("=", "@", "\t", "\r")  # what spreadsheets take for the start of a formula


def to_csv(table: Table) -> str:
    """The table as CSV, RFC 4180 but with plain newlines."""
    compared = {
        column.key: any(row.cells[index].difference is not None for row in table.rows)
        for index, column in enumerate(table.columns)
    }
    header = ["row", "label", "kind", "group", "reference"]
    for column in table.columns:
        header += [column.key, *(f"{column.key}:{name}" for name in ("std", "n", "status", "rank"))]
        if compared[column.key]:
            header += [f"{column.key}:{name}" for name in ("difference", "lower", "upper", "p")]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*map(_safe, header), "notes"])
    texts = dict(table.footnotes)
    for row in table.rows:
        line = [row.key, row.label, row.kind, row.group, "yes" if row.reference else "no"]
        for column, cell in zip(table.columns, row.cells, strict=True):
            line += _cell(cell)
            if compared[column.key]:
                line += [_number(item) for item in (cell.difference, cell.lower, cell.upper, cell.p_value)]
        writer.writerow([*map(_safe, line), _safe(_notes(row, texts, table))])
    return buffer.getvalue()


def _cell(cell: TableCell) -> list[str]:
    rank = f"{cell.rank}" if not cell.tie else f"{cell.rank} tie".strip()
    return [_number(cell.value), _number(cell.std), str(cell.n) if cell.value is not None else "", cell.status, rank]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.12g}"  # beyond, processors differ in the last bits


def _notes(row: Row, texts: dict[str, str], table: Table) -> str:
    parts = [texts[mark] for mark in row.notes]
    for column, cell in zip(table.columns, row.cells, strict=True):
        parts += [f"{column.key}: {texts[mark]}" for mark in (*column.notes, *cell.notes) if cell.status != "blank"]
    return "; ".join(parts)


def _safe(text: str) -> str:
    """A field that no spreadsheet runs as a formula; labels such as "- attention loss" stay as they are."""
    dangerous = text.startswith(_FORMULA) or (text[:1] in "+-" and any(sign in text for sign in "(|!"))
    return f"'{text}" if dangerous else text
