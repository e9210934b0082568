"""`python -m analysis figures STUDY`: draw a study's figures as PDF and PNG."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

DEFAULT_PICK = "spread"
DEFAULT_ROWS = 5


def register(subparsers: Any) -> None:
    """Add the sub-command to an argparse sub-parser collection."""
    parser = subparsers.add_parser(
        "figures",
        help="draw a study's figures (PDF and PNG)",
        description="Draw every figure that the study's records allow into OUT/STUDY/figures; say what was left out.",
    )
    parser.add_argument("study", metavar="STUDY", help="name of the study")
    parser.add_argument(
        "--out", type=Path, default=Path("out"), metavar="DIR", help="folder of runs and studies (default: %(default)s)"
    )
    add_options(parser)
    parser.set_defaults(func=run)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that `figures` and `report` share."""
    parser.add_argument(
        "--pick",
        default=DEFAULT_PICK,
        metavar="RULE",
        help="inputs of image grids: spread (best to worst by the primary metric; default), first, or seed:N",
    )
    parser.add_argument(
        "--rows",
        type=int,
        default=DEFAULT_ROWS,
        metavar="N",
        help=f"inputs an image grid shows (default: {DEFAULT_ROWS})",
    )


def run(args: argparse.Namespace) -> int:
    """Draw and save; says on standard output where, and what was left out."""
    from analysis.figures.build import Options, build_figures
    from analysis.figures.load import figure_data
    from analysis.frame import load_study
    from pipeline.errors import UserError

    if args.rows < 1:
        raise UserError(f"--rows={args.rows}: at least 1")
    study = load_study(args.out, args.study)
    figures = build_figures(figure_data(study), Options(pick=args.pick, rows=args.rows))
    folder = study.folder / "figures"
    figures.save(folder)
    lines = [f"{len(figures.pictures)} figures in {folder}:"]
    lines += [f"  {picture.name:<24} {picture.title}" for picture in figures.pictures]
    if figures.left_out:
        lines.append("left out:")
        lines += [f"  {missing.name:<24} {missing.reason}" for missing in figures.left_out]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0
