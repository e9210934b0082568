"""`python -m analysis figures STUDY`: draw a study's figures as PDF and PNG."""

from __future__ import annotations

import argparse
import re
import sys
from typing import TYPE_CHECKING, Any

from analysis.options import add_part, opened_with_runs
from pipeline.errors import UserError

if TYPE_CHECKING:
    from analysis.figures.build import Options


def register(subparsers: Any) -> None:
    """Add the sub-command to an argparse sub-parser collection."""
    parser = subparsers.add_parser(
        "figures",
        help="draw a study's figures (PDF and PNG)",
        description="Draw every figure that the study's records allow into OUT/STUDY/figures; say what was left out.",
    )
    add_part(parser)
    add_options(parser)
    parser.set_defaults(func=run)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of every command that draws."""
    parser.add_argument(
        "--pick",
        default="spread",
        metavar="RULE",
        help="inputs of image grids: spread (best to worst by the primary metric; default), first, or seed:N",
    )
    parser.add_argument(
        "--rows", type=int, default=5, metavar="N", help="inputs an image grid shows (default: %(default)s)"
    )
    parser.add_argument(
        "--metric",
        action="append",
        default=[],
        metavar="NAME",
        help="an outcome to draw; may be repeated (default: the study's first six, primary ones first)",
    )


def check_options(args: argparse.Namespace) -> Options:
    """The options as figures take them. Raises UserError for a rule that does not exist or a grid without rows."""
    from analysis.figures.build import Options

    if args.rows < 1:
        raise UserError(f"--rows={args.rows}: a grid needs at least 1 row")
    if not re.fullmatch(r"spread|first|seed:[0-9]+", args.pick):
        raise UserError(f"--pick={args.pick!r}: allowed are spread, first and seed:N")
    return Options(pick=args.pick, rows=args.rows, metrics=tuple(args.metric))


def run(args: argparse.Namespace) -> int:
    """Draw and save; says on standard output where, and what was left out."""
    from analysis.figures.build import build_figures
    from analysis.figures.load import figure_data

    options = check_options(args)
    study = opened_with_runs(args)
    figures = build_figures(figure_data(study), options)
    folder = study.made / "figures"
    figures.save(folder)
    lines = [f"{len(figures.pictures)} figures in {folder}:"]
    lines += [f"  {picture.name:<24} {picture.title}" for picture in figures.pictures]
    if figures.left_out:
        lines.append("left out:")
        lines += [f"  {missing.name:<24} {missing.reason}" for missing in figures.left_out]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0
