"""`python -m analysis claims STUDY`: which claims the study's data support."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from analysis.claims.judge import VERDICTS, Evidence, Judgement, judge
from analysis.claims.spec import load_claims
from analysis.options import add_part, opened
from pipeline.errors import UserError


def register(subparsers: Any) -> None:
    """Add the `claims` command."""
    parser = subparsers.add_parser(
        "claims",
        help="say which claims the data support, contradict or leave undecided",
        description="Judge each claim of a file on the study's records: supported, contradicted, undecided (with the seeds a "
        "decision would take)\nor not testable (the study lacks the arms or the metric).\n\n"
        "exit status: 1 when a claim is contradicted (with --strict also when one is undecided), else 0",
    )
    add_part(parser)
    parser.add_argument(
        "--claims",
        type=Path,
        default=None,
        metavar="FILE",
        help="claims file (default: the shipped one, the paper's claims first)",
    )
    parser.add_argument("--alpha", type=float, default=0.05, help="error rate over the whole file (default: 0.05)")
    parser.add_argument("--strict", action="store_true", help="an undecided claim is an error too")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Print the judgements."""
    if not 0 < args.alpha < 1:
        raise UserError(f"--alpha {args.alpha}: must lie between 0 and 1")
    claims = load_claims(args.claims)
    study = opened(args)
    if study.kept:
        raise UserError(
            f"study {study.name}: its runs are not here, and claims are judged by their configs; see claims.txt"
        )
    judgements = judge(study, claims, alpha=args.alpha)
    sys.stdout.write(_as_json(judgements) if args.json else describe(judgements))
    refused = {"contradicted", "undecided"} if args.strict else {"contradicted"}
    return 1 if any(item.verdict in refused for item in judgements) else 0


def describe(judgements: list[Judgement]) -> str:
    """The judgements as lines for people."""
    lines = []
    for item in judgements:
        lines.append(f"{item.verdict.upper():<13} {item.claim.id}: {item.claim.says}")
        if item.reason:
            lines.append(f"{'':<13}   {item.reason}")
        lines += [f"{'':<13}   {_line(evidence, item.claim.kind)}" for evidence in item.evidence]
    counts = Counter(item.verdict for item in judgements)
    lines.append(", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS))
    return "\n".join(lines) + "\n"


def _line(item: Evidence, kind: str) -> str:
    who = (
        f"{item.metric}: {item.better} against {item.worse}, {len(item.seeds)} seed{'s' if len(item.seeds) > 1 else ''}"
    )
    if item.interval is None:
        return f"{who}: {item.reason}"
    unit = f" {item.unit}" if item.unit else ""
    wanted = f"within ±{item.margin:g}" if kind == "equivalence" else f"wanted > {item.margin:g}"
    beyond = f" beyond {item.percent:g} % of {item.worse}" if item.percent else ""
    text = (
        f"{who}: advantage{beyond} {item.interval.estimate:+.4g}{unit} [{item.interval.lower:+.4g}, {item.interval.upper:+.4g}] "
        f"({wanted}): {item.verdict}"
    )
    if item.verdict != "undecided":
        return text
    if item.seeds_needed is not None:
        needed = f"about {item.seeds_needed} seeds would decide"
    elif item.interval.images == 1:
        needed = "more than 10,000 seeds would decide"
    else:
        needed = "more seeds would not decide: it takes more test images"
    return f"{text}; {needed}, were this the true advantage"


def _as_json(judgements: list[Judgement]) -> str:
    value = [
        {
            "id": item.claim.id,
            "says": item.claim.says,
            "verdict": item.verdict,
            "reason": item.reason,
            "evidence": [
                {
                    "metric": evidence.metric,
                    "better": evidence.better,
                    "worse": evidence.worse,
                    "seeds": list(evidence.seeds),
                    "advantage": evidence.advantage,
                    "lower": evidence.interval.lower if evidence.interval is not None else None,
                    "upper": evidence.interval.upper if evidence.interval is not None else None,
                    "margin": evidence.margin,
                    "percent": evidence.percent,
                    "p_support": evidence.p_support,
                    "p_contradict": evidence.p_contradict,
                    "verdict": evidence.verdict,
                    "reason": evidence.reason,
                    "seeds_needed": evidence.seeds_needed,
                }
                for evidence in item.evidence
            ],
        }
        for item in judgements
    ]
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
