"""Command-line arguments that the analysis commands share."""

from __future__ import annotations

import argparse
from pathlib import Path

DEFAULT_OUT = Path("out")


def add_study(parser: argparse.ArgumentParser) -> None:
    """STUDY and --out (the folder that holds the study and its runs)."""
    parser.add_argument("study", metavar="STUDY", help="name of the study, a folder below --out")
    add_root(parser, "--out", "--root")


def add_root(parser: argparse.ArgumentParser, *flags: str) -> None:
    """The folder with `runs/` and the studies, as `args.root`."""
    parser.add_argument(
        *flags,
        dest="root",
        type=Path,
        default=DEFAULT_OUT,
        metavar="DIR",
        help="folder of studies and runs (default: out)",
    )
