"""Printed names of metrics, from `conf/labels.yaml`."""

from __future__ import annotations

import functools
from pathlib import Path

import yaml

CONF = Path(__file__).parent / "conf"


@functools.lru_cache(maxsize=1)
def _labels() -> dict[str, str]:
    return {str(key): str(value) for key, value in yaml.safe_load((CONF / "labels.yaml").read_text()).items()}


def metric_label(name: str) -> str:
    """Label of a metric: listed, or its name with spaces for underscores."""
    return _labels().get(name, name.replace("_", " "))
