"""`python -m analysis compare STUDY`: every arm against the reference, with effect sizes and what the study could have seen."""

from __future__ import annotations

import argparse
import io
import math
import shutil
import sys
from typing import Any

from analysis.options import add_part, opened
from analysis.overview import Line, Overview, overview
from pipeline.cli import text_table
from pipeline.errors import UserError

WIDTH = 200  # where nobody looks
SPARE = (
    "IQM",
    "median",
    "g_z",
    "detectable",
    "std",
    "partial eta²",
    "error",
    "d_z",
    "n",
    "interval",
    "95% interval",
    "mean",
)
TEXTS = ("metric", "level")
DESCRIPTIVE = "Descriptive: runs of one arm are alike, so there are fewer independent points than n, and intervals are too narrow."
HEAD = ["arm", "n", "mean", "std", "median", "IQM", "difference", "interval", "p (Holm)", "d_z", "g_z", "detectable"]


def register(subparsers: Any) -> None:
    """Add the `compare` command."""
    parser = subparsers.add_parser(
        "compare",
        help="compare every arm with the reference: interval, test, effect size, detectable effect; factors; correlations",
        description=(
            "Print, for one metric, every arm against the reference arm: difference with interval, corrected p-value,\n"
            "effect size, and the smallest effect this many seeds can find (power 0.8); main effects and interactions of\n"
            "two factors or more, with the runs they are of; and which metrics go together over the runs."
        ),
    )
    add_part(parser)
    parser.add_argument("--metric", default=None, metavar="NAME", help="default: the study's primary metric")
    parser.add_argument("--level", type=float, default=0.95, help="of the intervals (default: 0.95)")
    parser.add_argument(
        "--equivalent-within",
        type=float,
        default=None,
        metavar="X",
        help="also test whether each arm is equivalent to the reference within X, in the metric's unit, as claims of "
        "equivalence are judged: over seeds and images, Holm-corrected over the arms",
    )
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Print the comparison."""
    if not 0 < args.level < 1:
        raise UserError(f"--level {args.level}: must lie between 0 and 1")
    if args.equivalent_within is not None and not 0 < args.equivalent_within < math.inf:
        raise UserError(f"--equivalent-within {args.equivalent_within}: must be positive and finite")
    study = opened(args)
    found = overview(study, args.metric, level=args.level, within=args.equivalent_within)
    sys.stdout.write(describe(found))
    return 0


def describe(found: Overview) -> str:
    """The comparison as text tables."""
    unit = f" [{found.unit}]" if found.unit else ""
    title = (
        f"{found.label}{unit} of {found.study}; {found.direction} is better; differences to {found.reference}, "
        f"{found.level:.0%} intervals\n"
    )
    head = [*HEAD, *(["equivalent"] if found.within is not None else [])]
    parts = [title, _grid(head, [_cells(line, found) for line in found.lines])]
    about = "".join(f"{text}\n" for text in found.about_factors)
    if found.factorial is None and about:
        parts.append(f"\nfactors\n{about}")
    if found.factorial is not None:
        tests = [
            [item.term, str(item.df), _number(item.f), _number(item.p_value), _number(item.partial_eta_squared)]
            for item in found.factorial.tests
        ]
        effects = [
            [item.term, " × ".join(item.levels), _signed(item.effect), _number(item.standard_error), _number(item.mean)]
            for item in found.factorial.effects
        ]
        parts.append("\nfactors (seeds as blocks)\n" + about + _grid(["term", "df", "F", "p", "partial eta²"], tests))
        parts.append("\n" + _grid(["term", "level", "effect", "error", "mean"], effects))
    if found.correlations:
        rows = [
            [item.first, item.second, _signed(item.coefficient), _interval(item), str(item.n)]
            for item in found.correlations
        ]
        parts.append(
            f"\nrank correlation, runs of learned arms\n{DESCRIPTIVE}\n"
            + _grid(["metric", "metric", "rho", "95% interval", "n"], rows)
        )
    parts += [f"\n! {text}\n" for text in found.warnings]
    return "".join(parts)


def _cells(line: Line, found: Overview) -> list[str]:
    summary, comparison, effect = line.summary, line.comparison, line.effect
    return [
        line.label,
        str(summary.n),
        *map(_number, (summary.mean, summary.std, summary.median, summary.iqm)),
        _signed(comparison.difference if comparison else None),
        _interval(comparison.interval if comparison else None),
        _number(comparison.p_holm if comparison else None),
        _signed(effect.d_z if effect else None),
        _signed(effect.g_z if effect else None),
        _number(line.detectable),
        *([_verdict(line.p_within, found.level)] if found.within is not None else []),
    ]


def _grid(head: list[str], rows: list[list[str]]) -> str:
    from rich.console import Console
    from rich.markup import escape

    width = shutil.get_terminal_size((WIDTH, 40)).columns if sys.stdout.isatty() else WIDTH
    plain = [
        [escape("".join(letter if letter.isprintable() else " " for letter in text)) for text in row] for row in rows
    ]
    file = io.StringIO()
    table = text_table(head, plain, width=width, spare=SPARE, right=[name for name in head[1:] if name not in TEXTS])
    Console(file=file, width=width, force_terminal=False).print(table)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.4g}"


def _interval(item: Any) -> str:
    return "" if item is None or item.lower is None else f"[{item.lower:+.4g}, {item.upper:+.4g}]"


def _verdict(p_value: float | None, level: float) -> str:
    """Each side has half of what `level` leaves, as an interval's ends have."""
    if p_value is None:
        return ""
    return f"{'yes' if p_value < (1 - level) / 2 else 'not shown'} (p = {p_value:.3g})"
