"""Cells that time has passed by: code, data, metric or environment have moved on since the run was made.

A stale number is not wrong; it is no longer what the present code would give, or not comparable with its neighbours: the
runs that were to see the same data, since a study may vary them.
"""

from __future__ import annotations

import functools
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from analysis.asked import data_settings
from analysis.study import Study

ROOT = Path(__file__).parent.parent
CODE = "pipeline"  # the folder whose changes can change a number
PEERS = "most runs with its data settings"
SHORT = 10


@dataclass(frozen=True)
class Stale:
    """One reason why a run's numbers are out of date."""

    arm: str
    seed: int
    run_id: str
    kind: str  # code, data, metric, environment or untraceable
    detail: str


def find_stale(study: Study, *, code_changed: Callable[[str], bool | None] | None = None) -> list[Stale]:
    """Reasons for all finished runs, in the order of the plan.

    `code_changed(commit)` tells whether the code under `pipeline/` differs between a commit and the present checkout
    (None: cannot be told); by default git is asked.
    """
    changed = code_changed or _changed_since
    asked = data_settings(study)
    done = study.runs[study.runs["run_state"] == "finished"]
    usual_data = {
        settings: _most_common(list(of_settings["data_digest"].dropna()))
        for settings, of_settings in done.groupby(done["run_id"].map(asked))
    }
    torch = _installed("torch")
    versions = _versions(study, asked)
    found = []
    for run in done.to_dict("records"):
        reasons: list[tuple[str, str]] = []
        commit = run["commit"]
        if isinstance(commit, str) and changed(commit):
            reasons.append(("code", f"{CODE}/ has changed since commit {commit[:SHORT]}"))
        if isinstance(commit, str) and changed(commit) is None:
            reasons.append(
                ("untraceable", f"commit {commit[:SHORT]} is not in this checkout: nothing can be said about the code")
            )
        if run["dirty"] is True:
            reasons.append(("code", "made with uncommitted changes: cannot be reproduced from its commit"))
        digest, usual = run["data_digest"], usual_data[asked[run["run_id"]]]
        if isinstance(digest, str) and digest != usual:
            reasons.append(("data", f"trained on data {digest[:SHORT]}, {PEERS} on {usual[:SHORT]}"))
        reasons += [("metric", text) for text in versions.get(run["run_id"], [])]
        if isinstance(run["torch"], str) and torch and run["torch"] != torch:
            reasons.append(("environment", f"torch {run['torch']}, installed is {torch}"))
        found += [Stale(run["arm"], int(run["seed"]), run["run_id"], kind, detail) for kind, detail in reasons]
    return found


def _versions(study: Study, asked: Mapping[str, str]) -> dict[str, list[str]]:
    """Runs whose rows of a metric have another fingerprint than most of those with their data settings, {run id: details}."""
    rows = study.frame[
        (study.frame["status"] == "ok") & (study.frame["state"] == "trained") & (study.frame["run_state"] == "finished")
    ]
    details: dict[str, list[str]] = {}
    settings = rows["run_id"].map(asked)  # a fingerprint is of the images measured on, too
    for (metric, protocol, split, _), of_metric in rows.groupby(["metric", "protocol", "split", settings]):
        by_run = of_metric.groupby("run_id")["fingerprint"].agg(set)
        usual = _most_common([name for names in by_run for name in names])
        for run_id, names in by_run.items():
            if usual not in names:
                where = f"{protocol} {split}".strip()
                text = f"{metric} ({where}) has fingerprint {sorted(names)[0][:SHORT]}, {PEERS} have {usual[:SHORT]}"
                details.setdefault(str(run_id), []).append(text)
    return details


def _most_common(items: list[str]) -> str:
    counts = Counter(items)
    return max(sorted(counts), key=lambda name: counts[name], default="")


@functools.lru_cache(maxsize=256)
def _changed_since(commit: str) -> bool | None:
    """Whether `pipeline/` differs between the commit and the working tree; None where git cannot tell."""
    try:
        done = subprocess.run(
            ["git", "diff", "--quiet", commit, "--", CODE], cwd=ROOT, capture_output=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return {0: False, 1: True}.get(done.returncode)


def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
