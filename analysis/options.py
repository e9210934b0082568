"""Command-line arguments that the analysis commands share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli import OUT, add_only
from pipeline.errors import UserError
from pipeline.schema.files import find_folder

if TYPE_CHECKING:
    from analysis.study import Study

STUDY = "a study: its name, its file, or its folder OUT/NAME"


def add_study(parser: argparse.ArgumentParser) -> None:
    """STUDY and --out (the folder that holds the study and its runs)."""
    parser.add_argument("study", metavar="STUDY", help=STUDY)
    add_root(parser, "--out", "--root")


def study_of(args: argparse.Namespace) -> tuple[Path, str]:
    """(output folder, name) of the study that the command line means."""
    return find_folder(args.study, args.root)


def add_part(parser: argparse.ArgumentParser) -> None:
    """STUDY, --out and --only: what `opened` opens."""
    add_study(parser)
    add_only(parser)


def opened(args: argparse.Namespace) -> Study:
    """The study, or the part of it, that the command line means."""
    from analysis.part import load_part

    return load_part(*study_of(args), args.only)


def opened_with_runs(args: argparse.Namespace) -> Study:
    """As `opened`, for what takes the records themselves. Raises UserError for a study of which frames alone are kept."""
    study = opened(args)
    if study.kept:
        raise UserError(f"study {study.name}: its runs are not here; {study.folder} holds what is kept of it")
    return study


def add_root(parser: argparse.ArgumentParser, *flags: str) -> None:
    """The folder with `runs/` and the studies, as `args.root`."""
    parser.add_argument(
        *flags,
        dest="root",
        type=Path,
        default=OUT,
        metavar="DIR",
        help="folder of studies and runs (default: out)",
    )
