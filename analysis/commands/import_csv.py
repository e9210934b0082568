"""`python -m analysis import-csv STUDY FILE`: published numbers, with their source, as rows of their own kind."""

from __future__ import annotations

import argparse
import csv
import io
import math
import re
import sys
from pathlib import Path
from typing import Any

from analysis.imported import save_imported
from analysis.options import add_study, study_of
from analysis.tables.numbers import factor_of
from pipeline.errors import UserError, nearest
from pipeline.records import StudyManifest
from pipeline.records.metric_specs import find_spec

REQUIRED = ("label", "metric", "value", "source")
OPTIONAL = ("std", "n", "run", "unit", "data", "protocol", "split")
WORDS = {"published": "published", "imported": "imported"}


def register(subparsers: Any) -> None:
    """Add the `import-csv` command."""
    parser = subparsers.add_parser(
        "import-csv",
        help="add published numbers, with their source, to a study's tables",
        description="Add numbers from a CSV file to a study: rows of their own kind in every table, never ranked with or tested "
        f"against\nthe study's runs.\n\ncolumns: {', '.join(REQUIRED)}; optional: {', '.join(OPTIONAL)}\n\n"
        "One label's numbers for the same thing from two sources are two rows. A spread is shown where the file gives std\n"
        "and n, or where a column run says which rows are repeats of one source.",
    )
    add_study(parser)
    parser.add_argument("file", type=Path, metavar="FILE", help="CSV file, UTF-8, one number a line")
    parser.add_argument("--kind", choices=list(WORDS), default="published", help="default: published")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Check every line, then store them all; an import of the same file name is replaced."""
    out, study = study_of(args)
    StudyManifest.load(out / study)
    rows = read_csv(args.file, args.kind)
    name = re.sub(r"[^\w-]+", "-", args.file.stem).strip("-") or "numbers"
    path = save_imported(out / study, name, args.file.name, rows)
    sys.stdout.write(f"wrote {path} ({len(rows)} numbers of {len({row['label'] for row in rows})} rows)\n")
    return 0


def read_csv(path: Path, kind: str) -> list[dict[str, Any]]:
    """The file's rows as `columns.IMPORTED`; raises UserError naming file, line and column."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text") from error
    reader = csv.DictReader(io.StringIO(text))
    header = [name.strip() for name in reader.fieldnames or []]
    reader.fieldnames = header
    for name in REQUIRED:
        if name not in header:
            raise UserError(f"{path}: column {name!r} is missing; required: {', '.join(REQUIRED)}")
    for name in header:
        if name not in REQUIRED + OPTIONAL:
            raise UserError(f"{path}: unknown column {name!r}{nearest(name, REQUIRED + OPTIONAL)}")
    if twice := next((name for name in header if header.count(name) > 1), ""):
        raise UserError(f"{path}: column {twice!r} stands there twice")
    rows = {}
    for line in reader:
        number = reader.line_num  # of the file: a cell may hold line breaks
        if None in line:
            raise UserError(f"{path}, line {number}: has more cells than columns; quote a text that holds a comma")
        rows[number] = _row(line, f"{path}, line {number}", kind)
    if not rows:
        raise UserError(f"{path} holds no numbers")
    _refuse_twice(rows, path)
    return list(rows.values())


def _refuse_twice(rows: dict[int, dict[str, Any]], path: Path) -> None:
    """Two numbers of one source for one thing: which is meant is not ours to guess, nor that they are repeats."""
    seen: dict[tuple[Any, ...], int] = {}
    for line, row in rows.items():
        key = tuple(row[name] for name in ("label", "metric", "source", "data", "protocol", "split", "run"))
        if key in seen:
            again = " again" if row["run"] else "; a column run tells repeats apart"
            run = f" run {row['run']}" if row["run"] else ""
            raise UserError(
                f"{path}, lines {seen[key]} and {line}: {row['metric']} of {row['label']!r} from {row['source']!r}{run}{again}"
            )
        seen[key] = line


def _row(line: dict[str, str | None], origin: str, kind: str) -> dict[str, Any]:
    filled = {name: (text or "").strip() for name, text in line.items() if name is not None}
    for name in REQUIRED:
        if not filled[name]:
            raise UserError(f"{origin}: {name} is empty")
    spec = find_spec(filled["metric"])
    if spec is not None:  # of any other metric the column it comes to stand in says the unit
        factor_of(filled.get("unit", ""), spec.unit, origin, filled["metric"])
    count = _number(filled.get("n", ""), "n", origin)
    if count is not None and (count != int(count) or count < 1):
        raise UserError(f"{origin}: n = {filled['n']} is not a number of seeds")
    std = _number(filled.get("std", ""), "std", origin)
    if std is not None and std < 0:
        raise UserError(f"{origin}: std = {filled['std']} is negative")
    return {
        "label": filled["label"],
        "kind": kind,
        "metric": filled["metric"],
        "value": _number(filled["value"], "value", origin),
        "std": std,
        "n": int(count) if count is not None else None,
        "unit": filled.get("unit", ""),
        "seed": None,
        "run": filled.get("run", ""),
        "data": filled.get("data", ""),
        "protocol": filled.get("protocol", ""),
        "split": filled.get("split", ""),
        "source": filled["source"],
        "reference_id": origin.rsplit("/", 1)[-1],
    }


def _number(text: str, name: str, origin: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError as error:
        raise UserError(f"{origin}: {name} = {text!r} is not a number") from error
    if not math.isfinite(value):
        raise UserError(f"{origin}: {name} = {text} is not finite")
    return value
