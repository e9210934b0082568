"""Benchmark results as aligned text, as ratios between two files, and as the tables of docs/performance.md."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import UserError

LABELS = (
    "kernel",
    "precision",
    "layout",
    "input",
    "part",
    "cache",
    "workers",
    "command",
    "runs",
    "arm",
    "jobs",
)  # columns that name a row


def as_text(result: dict[str, Any]) -> str:
    """The rows as an aligned table, or the scalars of a result without rows, one a line."""
    lines = [f"{result['benchmark']}: {_where(result)}"]
    if "rows" in result:
        lines += _aligned(_cells(result["rows"]))
    lines += [f"{key:<30} {_number(value)}" for key, value in _scalars(result).items()]
    return "\n".join(lines)


def as_markdown(result: dict[str, Any]) -> str:
    """The rows as a Markdown table under a line that says what was measured where."""
    cells = _cells(result["rows"]) if "rows" in result else [["quantity", "value"]] + [
        [key, _number(value)] for key, value in _scalars(result).items()
    ]  # fmt: skip
    head, *body = [f"| {' | '.join(row)} |" for row in cells]
    overrides = " ".join(result.get("overrides", []))
    title = f"**{result['benchmark']}**{f' (`{overrides}`)' if overrides else ''}: {_where(result)}"
    extra = [f"{key}: {_number(value)}" for key, value in _scalars(result).items()] if "rows" in result else []
    table = [head, f"|{'---|' * len(cells[0])}", *body]
    return "\n".join([title, "", *table, *(["", "; ".join(extra)] if extra else [])])


def compare(first: Path, second: Path) -> str:
    """Ratios second / first of every number both results have, row by row."""
    one, two = load(first), load(second)
    if one["benchmark"] != two["benchmark"]:
        raise UserError(f"{first} holds {one['benchmark']!r}, {second} {two['benchmark']!r}: they do not compare")
    found = [["what", str(first), str(second), "ratio"]]
    numbers_one, numbers_two = _numbers(one), _numbers(two)
    for name in [name for name in numbers_one if name in numbers_two]:
        before, after = numbers_one[name], numbers_two[name]
        found.append([name, _number(before), _number(after), f"{after / before:.3f}" if before else ""])
    return "\n".join(_aligned(found))


def load(path: Path) -> dict[str, Any]:
    """A result written with --json."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no benchmark result: {error}") from error
    if not isinstance(value, dict) or "benchmark" not in value:
        raise UserError(f"{path} is no benchmark result: write one with python -m pipeline bench ... --json FILE")
    return value


def _numbers(result: dict[str, Any]) -> dict[str, float]:
    found = {key: value for key, value in _scalars(result).items() if isinstance(value, int | float)}
    for row in result.get("rows", []):
        name = " ".join(str(row[key]) for key in LABELS if key in row)
        found.update(
            {f"{name}: {key}": value for key, value in row.items()
             if key not in LABELS and isinstance(value, int | float)}
        )  # fmt: skip
    return found


def _scalars(result: dict[str, Any]) -> dict[str, Any]:
    left_out = ("threads", "repeats", "pairs", "batch_size")
    return {key: value for key, value in result.items() if isinstance(value, int | float) and key not in left_out}


def _where(result: dict[str, Any]) -> str:
    parts = [str(result[key]) for key in ("device", "preset", "precision") if key in result]
    if "size" in result:
        parts.append("x".join(map(str, result["size"])) + " pixels")
    parts += [f"{name} {result[key]}" for key, name in (("batch_size", "batch"), ("threads", "threads"),
                                                        ("pairs", "pairs"), ("repeats", "repeats")) if key in result]  # fmt: skip
    if "versions" in result and "torch" in result["versions"]:
        parts.append(f"torch {result['versions']['torch']}")
    return ", ".join(parts)


def _cells(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    names = sorted(rows[0], key=lambda name: name not in LABELS)  # what names the row first, then as they were measured
    return [names, *[[_number(row[name]) for name in names] for row in rows]]


def _aligned(cells: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
