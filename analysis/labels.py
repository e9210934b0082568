"""Printed names of metrics, from `conf/labels.yaml`."""

from __future__ import annotations

import functools
from pathlib import Path

from pipeline.schema.yaml12 import read_yaml

CONF = Path(__file__).parent / "conf"


@functools.lru_cache(maxsize=1)
def _labels() -> dict[str, str]:
    labels: dict[str, str] = read_yaml(CONF / "labels.yaml", "labels", ((),)).values
    return labels


def metric_label(name: str) -> str:
    """Label of a metric: listed; or that of its longest listed beginning and the rest; or its name with spaces."""
    labels = _labels()
    if name in labels:
        return labels[name]
    beginnings = [listed for listed in labels if name.startswith(f"{listed}_")]
    if not beginnings:
        return name.replace("_", " ")
    longest = max(beginnings, key=len)
    return f"{labels[longest]}, {name.removeprefix(longest + '_').replace('_', ' ')}"
