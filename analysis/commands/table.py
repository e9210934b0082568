"""`python -m analysis table STUDY`: print a table of a study, or write it to a file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from analysis.options import add_part, opened
from analysis.published import published_groups
from analysis.tables.build import build_table
from analysis.tables.model import Table
from analysis.tables.render import FORMATS, render
from analysis.tables.spec import load_spec, shipped_specs
from pipeline.records.atomic import write_text


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `table` command."""
    parser = subparsers.add_parser(
        "table",
        help="print a table: mean ± std with n, best marks, ties, footnotes",
        description="Print a table of a study. Cells without a number say why; --strict makes that an error.",
    )
    add_part(parser)
    parser.add_argument(
        "--format",
        choices=[*FORMATS, "terminal"],
        default=None,
        help="md, tex (booktabs), csv (raw numbers), html or terminal; default: terminal on a terminal, else md",
    )
    parser.add_argument(
        "--spec",
        default="main",
        metavar="NAME|FILE",
        help=f"what stands in the table: {', '.join(shipped_specs())}, or a .yaml file (default: main)",
    )
    parser.add_argument(
        "--published",
        action="append",
        default=[],
        metavar="GROUP",
        help=f"show numbers that papers print, apart and unranked: {', '.join(published_groups())}; repeatable",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="exit with status 1 when a cell is no sound number, or code or data are mixed",
    )
    parser.add_argument("--write", metavar="FILE", type=Path, default=None, help="write to FILE instead of printing")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Print or write the table; 1 when --strict finds problems."""
    name, spec = load_spec(args.spec)
    spec = spec.with_published(args.published)
    table = build_table(opened(args), spec, name)
    on_terminal = sys.stdout.isatty() and args.write is None
    form = args.format or (args.write.suffix.lstrip(".") if args.write and args.write.suffix[1:] in FORMATS else None)
    form = form or ("terminal" if on_terminal else "md")
    text = _for_terminal(table) if form == "terminal" and on_terminal else render(table, form)
    if args.write is not None:
        write_text(args.write, text)
    else:
        sys.stdout.write(text)
    if not args.strict or not table.problems:
        return 0
    sys.stdout.flush()
    for problem in table.problems:
        sys.stderr.write(f"strict: {problem}\n")
    return 1


def _for_terminal(table: Table) -> str:
    import os
    import shutil

    from analysis.tables.render.terminal import to_terminal

    return to_terminal(table, width=shutil.get_terminal_size((120, 40)).columns, colour="NO_COLOR" not in os.environ)
