"""`python -m analysis keep STUDY --to DIR`: what stays of a study in a repository, when its runs do not."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

from analysis.asked import one_at_a_time
from analysis.claims.judge import judge
from analysis.claims.spec import load_claims
from analysis.commands.claims import describe
from analysis.commands.figures import add_options, check_options
from analysis.keeping import keep, refuse_place
from analysis.options import add_part, opened_with_runs
from analysis.study import Study
from analysis.tables.build import build_table
from analysis.tables.render import render
from analysis.tables.spec import load_spec, shipped_specs
from pipeline.errors import UserError

STEMS = {"main": "table", "ablation": "deltas"}  # of files, where a table is not called like its specification
CLAIMS = "claims.txt"
FORMATS = ("md", "tex")  # of every table kept: one to read, one for a paper


def register(subparsers: Any) -> None:
    """Add the `keep` command."""
    parser = subparsers.add_parser(
        "keep",
        help="keep a study in a folder: plan, frames, values an image, tables, claims, figures",
        description="Write what stays of a study when its runs do not, for a repository or a paper's supplement: plan, frames,\n"
        "values of every image, validation curves (parquet), tables (md, tex), claims judged, figures (PNG). Files of an\n"
        "earlier call are replaced, others in DIR are left alone. `python -m analysis table DIR` makes the tables again.",
    )
    add_part(parser)
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--spec", action="append", default=[], metavar="NAME|FILE",
        help=f"a table to keep: {', '.join(shipped_specs())}, or a .yaml file; repeatable (default: main and ablation)",
    )  # fmt: skip
    parser.add_argument(
        "--claims", type=Path, default=None, metavar="FILE", help="claims file (default: the shipped one)"
    )
    parser.add_argument(
        "--figure", action="append", default=[], metavar="NAME",
        help="a figure to keep, as `figures` names it; repeatable (default: all that the study allows)",
    )  # fmt: skip
    add_options(parser)
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Write everything and list it. Whatever can be refused is, before anything is drawn or written."""
    study = opened_with_runs(args)
    if not (study.runs["run_state"] == "finished").any():
        raise UserError(f"study {study.name} has no finished run: nothing to keep")
    texts = _tables(args, study) | _claims(args, study)
    refuse_place(study, args.to)
    files = keep(study, args.to, texts | _pictures(args, study))
    if CLAIMS not in texts:
        (args.to / CLAIMS).unlink(missing_ok=True)  # of an earlier call: nothing here says it any more
    sys.stdout.write(f"study {study.name} is kept in {args.to}:\n")
    sys.stdout.writelines(
        f"  {file.relative_to(args.to).as_posix():<28} {file.stat().st_size / 1024:7.0f} kB\n" for file in files
    )
    spec = f" --spec {args.spec[0]}" if args.spec else ""
    sys.stdout.write(f"its tables again: python -m analysis table {args.to}{spec}\n")
    if not args.figure and (apart := _apart(study)):
        sys.stdout.write(f"figures are of one data set: keep parts for them, {apart}\n")
    return 0


def _tables(args: argparse.Namespace, study: Study) -> dict[str, bytes]:
    made: dict[str, bytes] = {}
    for word in args.spec or (("main", "ablation") if study.reference is not None else ("main",)):
        name, spec = load_spec(word)
        stem = STEMS.get(name, Path(name).stem)
        if f"{stem}.md" in made:
            raise UserError(f"--spec {word}: two tables would be {stem}.md")
        table = build_table(study, spec, name)
        made |= {f"{stem}.{form}": render(table, form).encode() for form in FORMATS}
    return made


def _claims(args: argparse.Namespace, study: Study) -> dict[str, bytes]:
    """The claims judged; no file where the study can test none of them."""
    judgements = judge(study, load_claims(args.claims), alpha=0.05)
    testable = any(item.verdict != "not testable" for item in judgements)
    return {CLAIMS: describe(judgements).encode()} if testable else {}


def _apart(study: Study) -> str:
    """What to ask for where the study's runs are of several data sets, which share no axis; "" where they are of one."""
    return one_at_a_time(study, set(study.runs.loc[study.runs["run_state"] == "finished", "run_id"]))


def _pictures(args: argparse.Namespace, study: Study) -> dict[str, bytes]:
    from analysis.figures.build import build_figures
    from analysis.figures.load import figure_data

    if not args.figure and _apart(study):
        return {}
    options = dataclasses.replace(check_options(args), only=tuple(args.figure))
    figures = build_figures(figure_data(study), options)
    if args.figure and figures.left_out:
        missing = figures.left_out[0]
        raise UserError(f"figure {missing.name}: {missing.reason}")
    return {f"{picture.name}.png": picture.png for picture in figures.pictures}
