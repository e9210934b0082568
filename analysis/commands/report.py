"""`python -m analysis report STUDY`: table files, figures and the report page of a study."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from analysis.commands.figures import add_options, check_options
from analysis.options import add_part, opened_with_runs

TABLE_FILES = ("md", "tex", "csv")


def register(subparsers: Any) -> None:
    """Add the sub-command to an argparse sub-parser collection."""
    parser = subparsers.add_parser(
        "report",
        help="write a study's report: one HTML file, with tables and figures beside it",
        description=(
            "Write OUT/STUDY/report.html (one file that loads nothing from anywhere), table.md, table.tex, table.csv and "
            "figures/. Built from the records alone: the same records give the same bytes."
        ),
    )
    add_part(parser)
    add_options(parser)
    parser.add_argument(
        "--spec", default="main", metavar="NAME|FILE", help="what stands in the table (default: %(default)s)"
    )
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Write everything and say where; the exit status is 0 even when runs failed: the report says so."""
    from analysis.figures.build import build_figures
    from analysis.figures.load import figure_data
    from analysis.report.page import build_page
    from analysis.report.render import render_html
    from analysis.tables.build import build_table
    from analysis.tables.render import render
    from analysis.tables.render.html import html_fragment
    from analysis.tables.spec import load_spec
    from pipeline.records.atomic import write_text

    options = check_options(args)
    name, spec = load_spec(args.spec)
    study = opened_with_runs(args)
    table = build_table(study, spec, name)
    data = figure_data(study)
    figures = build_figures(data, options)
    page = build_page(study, data, table, html_fragment(table), figures, options.pick)
    html = render_html(page)

    written: list[tuple[Path, str]] = []
    for form in TABLE_FILES:
        write_text(study.made / f"table.{form}", render(table, form))
        written.append((study.made / f"table.{form}", ""))
    figures.save(study.made / "figures")
    left_out = f", {len(figures.left_out)} left out" if figures.left_out else ""
    written.append((study.made / "figures", f"{len(figures.pictures)} figures as PDF and PNG{left_out}"))
    write_text(study.made / "report.html", html)
    written.append((study.made / "report.html", f"{len(html.encode()) / 1e6:.1f} MB"))
    sys.stdout.write("".join(f"wrote {path}{f' ({words})' if words else ''}\n" for path, words in written))
    return 0
