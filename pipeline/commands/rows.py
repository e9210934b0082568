"""Metric rows as a command prints them: numbers as a table, what has none by its reason, single heads counted."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.cli import text_table
from pipeline.records import MetricRow
from pipeline.records.judge import cannot_judge

NUMBERS = ("value", "untrained")


def print_rows(rows: Sequence[MetricRow], untrained: Sequence[MetricRow] = ()) -> None:
    """Print `rows`, in their order, beside the same numbers of the `untrained` network where there are any."""
    from rich.console import Console
    from rich.markup import escape

    before = {_key(row): row.value for row in untrained if row.value is not None}
    heads = [row for row in rows if row.name.startswith("attention_") and "_head" in row.name]
    lines: list[tuple[str, ...]] = []
    lost: dict[str, list[str]] = {}
    for row in rows:
        if row in heads:  # dozens; whoever asks finds them in the record
            continue
        if row.value is None:
            lost.setdefault(f"{row.status.replace('_', ' ')}: {row.reason}", []).append(row.name)
            continue
        earlier = before.get(_key(row))
        lines.append((row.name, f"{row.value:.5g}", "" if earlier is None else f"{earlier:.5g}", escape(row.unit)))
    columns: tuple[str, ...] = ("metric", *NUMBERS, "unit")
    if not before:
        columns, lines = ("metric", "value", "unit"), [(name, value, unit) for name, value, _, unit in lines]
    console = Console(soft_wrap=True, highlight=False)
    if lines:
        console.print(text_table(columns, lines, width=console.width, spare=("unit", "untrained"), right=NUMBERS))
    for reason, names in lost.items():
        print(f"{', '.join(names)}: {reason}")
    blind = cannot_judge({row.name: row.value for row in rows if row.value is not None})
    if blind:
        print(f"tables will not rank what rests on the segmenter: {blind}")
    if heads:
        print(f"and {len(heads)} rows of single attention heads: {heads[0].name}, ...")


def _key(row: MetricRow) -> tuple[str, str, str]:
    return row.name, row.split, row.fingerprint
