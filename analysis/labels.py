"""Printed names of metrics, from `conf/labels.yaml`, and which metrics are costs."""

from __future__ import annotations

import functools
from pathlib import Path

from pipeline.schema.yaml12 import read_yaml

CONF = Path(__file__).parent / "conf"
# What a run costs: shown beside the scores, never ranked.
COSTS = frozenset(
    {
        "params",
        "flops_per_image",
        "latency_ms",
        "eval_images_per_s",
        "peak_mem_gib",
        "train_images_per_s",
        "train_device_hours",
    }
)


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
