"""`python -m analysis stale STUDY`: cells that code, data, metric versions or environment have moved past."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from analysis.options import add_part, opened
from analysis.stale import find_stale


def register(subparsers: Any) -> None:
    """Add the `stale` command."""
    parser = subparsers.add_parser(
        "stale",
        help="list runs that code, data, metric versions or environment have moved past",
        description="List the study's finished runs whose numbers the present code, data or metrics might not give again.",
    )
    add_part(parser)
    parser.add_argument("--strict", action="store_true", help="exit with status 1 when anything is stale")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Print one line a reason; equal reasons of an arm are told once, with the seeds."""
    study = opened(args)
    found = find_stale(study)
    finished = int((study.runs["run_state"] == "finished").sum())
    if not found:
        sys.stdout.write(f"nothing stale in {finished} finished runs of {study.name}\n")
        return 0
    seeds: dict[tuple[str, str, str], list[int]] = {}
    for item in found:
        seeds.setdefault((item.arm, item.kind, item.detail), []).append(item.seed)
    for (arm, kind, detail), of_seed in seeds.items():
        sys.stdout.write(f"{arm} (seed {', '.join(map(str, of_seed))}): {kind}: {detail}\n")
    runs = len({item.run_id for item in found})
    sys.stdout.write(f"{runs} of {finished} finished runs are stale\n")
    return 1 if args.strict else 0
