"""`python -m analysis frame STUDY`: the tidy frame as a file for other tools."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from analysis.columns import FRAME, encoded
from analysis.options import STUDY, add_root, opened
from pipeline.cli import add_only
from pipeline.errors import UserError
from pipeline.records.atomic import write_bytes


def register(subparsers: Any) -> None:
    """Add the `frame` command."""
    parser = subparsers.add_parser(
        "frame",
        help="write the tidy frame: one row per (arm, seed, metric)",
        description="Write the study's tidy frame, typed, with a row (and a reason) for whatever is missing.\n\nColumns:\n"
        + "\n".join(f"  {name:<14} {text}" for name, (_, text) in FRAME.items())
        + "\n  factor:NAME    level of each factor of the study",
    )
    parser.add_argument("study", metavar="STUDY", help=STUDY)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="file to write, ending in .parquet or .csv"
    )
    parser.add_argument("--runs", type=Path, default=None, metavar="FILE", help="also write one row per run here")
    add_root(parser, "--root")
    add_only(parser)
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Write the files and say how many rows each has."""
    targets = [path for path in (args.out, args.runs) if path is not None]
    for path in targets:
        if path.suffix not in (".parquet", ".csv"):
            raise UserError(f"--out {path}: the name must end in .parquet or .csv")
    study = opened(args)
    frames = [study.frame, study.runs]
    for path, frame in zip(targets, frames, strict=False):
        write_bytes(path, encoded(frame, path.suffix))
        sys.stdout.write(f"wrote {path} ({len(frame)} rows)\n")
    return 0
