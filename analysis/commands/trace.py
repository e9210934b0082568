"""`python -m analysis trace STUDY ROW COLUMN`: which runs made this cell."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from typing import Any

from analysis.options import add_part, opened
from analysis.tables.build import build_table
from analysis.tables.spec import load_spec
from analysis.trace import describe, trace


def register(subparsers: Any) -> None:
    """Add the `trace` command."""
    parser = subparsers.add_parser(
        "trace",
        help="say which runs, values, versions and commands are behind a cell of a table",
        description="Print the runs behind one cell of a table: values, identities, commits, commands.\n\n"
        "example: python -m analysis trace demo reference psnr",
    )
    add_part(parser)
    parser.add_argument("row", metavar="ROW", help="arm: its name in `ablations plan`, or its label in the table")
    parser.add_argument("column", metavar="COLUMN", help="metric, by name or heading")
    parser.add_argument("--spec", default="main", metavar="NAME|FILE", help="the table (default: main)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Print the trace."""
    name, spec = load_spec(args.spec)
    study = opened(args)
    found = trace(study, build_table(study, spec, name), args.row, args.column)
    if args.json:
        value = {
            "row": found.row.key,
            "column": found.column.key,
            "metric": found.column.metric,
            "fingerprint": found.column.fingerprint,
            "value": found.cell.value,
            "std": found.cell.std,
            "n": found.cell.n,
            "status": found.cell.status,
            "runs": [dataclasses.asdict(item) for item in found.runs],
        }
        sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(describe(found))
    return 0
