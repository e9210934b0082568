"""`python -m analysis diff RUN RUN`: what differs between two runs."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from analysis.options import add_root
from analysis.run_diff import diff_runs
from pipeline.records import RunStore


def register(subparsers: Any) -> None:
    """Add the `diff` command."""
    parser = subparsers.add_parser(
        "diff",
        help="show what differs between two runs: config, versions, metrics",
        description="Show what differs between two runs. RUN is an id or the beginning of one.",
    )
    parser.add_argument("first", metavar="RUN")
    parser.add_argument("second", metavar="RUN")
    add_root(parser, "--out", "--root")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Print the differences by part; 0 whether or not there are any."""
    store = RunStore(args.root / "runs")
    first, second = store.find(args.first), store.find(args.second)
    found = diff_runs(first, second)
    lines = [f"{first.id[:10]} ({first.state}) and {second.id[:10]} ({second.state})"]
    for part in ("config", "provenance", "metric"):
        of_part = [item for item in found if item.part == part]
        lines.append(f"{part}: {len(of_part) or 'no'} difference{'s' if len(of_part) != 1 else ''}")
        lines += [f"  {item.key}: {item.first} -> {item.second}" for item in of_part]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0
