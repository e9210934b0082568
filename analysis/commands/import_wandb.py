"""`python -m analysis import-wandb STUDY ENTITY/PROJECT`.

Summaries of runs that other code logged to Weights & Biases.

Only summaries are read, never sampled histories, and what was read is cached in the study's folder: tables do not
need the network. Imported rows are marked as such and stay apart from the study's own runs.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from analysis.imported import load_document, save_imported
from analysis.options import add_study, study_of
from pipeline.errors import UserError
from pipeline.records import StudyManifest


def register(subparsers: Any) -> None:
    """Add the `import-wandb` command."""
    parser = subparsers.add_parser(
        "import-wandb",
        help="add summaries of runs logged to W&B by other code to a study's tables",
        description="Read the summaries of a project's finished runs once, keep them in the study's folder, and show them as "
        "imported rows.\n\nexample: python -m analysis import-wandb baselines lab/sean --metric psnr=val/psnr --label model",
    )
    add_study(parser)
    parser.add_argument("project", metavar="ENTITY/PROJECT")
    parser.add_argument(
        "--metric",
        action="append",
        required=True,
        metavar="NAME=KEY",
        help="metric NAME is summary key KEY; repeat for several",
    )
    parser.add_argument(
        "--label", default="", metavar="KEY", help="config key that names a run's row (default: the run's name)"
    )
    parser.add_argument("--seed", default="seed", metavar="KEY", help="config key of the seed (default: seed)")
    parser.add_argument("--refresh", action="store_true", help="read again although the project is cached")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Import, or say what is cached."""
    out, study = study_of(args)
    folder = out / study
    StudyManifest.load(folder)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", args.project):
        raise UserError(f"{args.project!r} is not ENTITY/PROJECT")
    name = "wandb-" + args.project.replace("/", "-")
    request = {"project": args.project, "metrics": dict(_pair(item) for item in args.metric), "label": args.label}
    request["seed"] = args.seed
    cached = load_document(folder, name)
    if cached is not None and cached.get("request") == request and not args.refresh:
        sys.stdout.write(f"{len(cached['rows'])} numbers of {args.project} are cached (--refresh reads them again)\n")
        return 0
    rows, skipped = read_project(args.project, request["metrics"], label_key=args.label, seed_key=args.seed)
    path = save_imported(folder, name, f"wandb {args.project}", rows, request=request)
    sys.stdout.write(f"wrote {path} ({len(rows)} numbers)\n")
    for reason in skipped:
        sys.stderr.write(f"left out: {reason}\n")
    return 0


def _pair(text: str) -> tuple[str, str]:
    name, equals, key = text.partition("=")
    if not (name and equals and key):
        raise UserError(f"--metric {text!r}: write NAME=KEY, for instance psnr=val/psnr")
    return name, key


def read_project(
    project: str,
    metrics: Mapping[str, str],
    *,
    label_key: str = "",
    seed_key: str = "seed",
    api: Callable[[], Any] | None = None,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows (`columns.IMPORTED`) of a project's finished runs, and what was left out and why.

    Raises UserError when the project cannot be read, has no finished run, or has two runs of one label and seed: a seed
    counts once, and which run is meant is not ours to guess. `api` makes the W&B client (tests pass a fake).
    """
    rows: list[dict[str, Any]] = []
    skipped: list[str] = []
    seen: dict[tuple[str, Any], str] = {}
    for run_ in _runs(project, api or _client):
        if run_.state != "finished":
            skipped.append(f"run {run_.id} is {run_.state}")
            continue
        config = dict(run_.config)
        label = str(_lookup(config, label_key)) if label_key else str(run_.name)
        seed = _lookup(config, seed_key)
        seed = seed if isinstance(seed, int) and not isinstance(seed, bool) else None
        if (label, seed) in seen:
            at = (
                f"at seed {seed}"
                if seed is not None
                else f"and name no seed ({seed_key}); --seed and --label name other keys"
            )
            raise UserError(f"{project}: runs {seen[label, seed]} and {run_.id} are both {label!r} {at}")
        seen[label, seed] = str(run_.id)
        for metric, key in metrics.items():
            value = _lookup(dict(run_.summary), key)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                skipped.append(f"run {run_.id}: summary has no finite number {key!r}")
                continue
            rows.append(_row(project, str(run_.id), label, seed, metric, float(value)))
    if not rows:
        states = Counter(skipped)
        raise UserError(f"{project} has no number to import" + (f": {'; '.join(list(states)[:3])}" if states else ""))
    return rows, skipped


def _row(project: str, run_id: str, label: str, seed: int | None, metric: str, value: float) -> dict[str, Any]:
    return {
        "label": label,
        "kind": "imported",
        "metric": metric,
        "value": value,
        "std": None,
        "n": None,
        "unit": "",
        "seed": seed,
        "run": "",
        "data": "",
        "protocol": "",
        "split": "",
        "source": f"W&B {project}",
        "reference_id": run_id,
    }


def _lookup(values: Mapping[str, Any], key: str) -> Any:
    """A value by its key, or by the dots in it ("model.name")."""
    if key in values:
        return values[key]
    current: Any = values
    for part in key.split("."):
        if not isinstance(current, Mapping) or part not in current:
            return None
        current = current[part]
    return current


def _client() -> Any:
    try:
        import wandb
    except ImportError as error:
        raise UserError("import-wandb needs the package wandb (pip install wandb)") from error
    return wandb.Api(timeout=30)


def _runs(project: str, api: Callable[[], Any]) -> list[Any]:
    """All runs of a project; whatever the client raises (network, rights, name) becomes one line."""
    try:
        return list(api().runs(project))
    except UserError:
        raise
    except Exception as error:  # the client documents no set of exceptions
        raise UserError(f"cannot read {project} from W&B: {' '.join(str(error).split())[:200]}") from error
