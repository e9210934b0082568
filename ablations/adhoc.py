"""Studies without a file: `--grid model=ca2sis,spade train.batch_size=4,8 --seeds 0,1,2`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

from ablations.study import Study, parse_study
from pipeline.errors import UserError

MOST_SEEDS = 10_000  # of a range: more is a slip of the hand, and would fill the memory before anything is refused


def grid_study(grid: Sequence[str], *, name: str | None) -> Study:
    """A full factorial over `key=value,value,...` items; the first value of each is the reference level."""
    factors: dict[str, Any] = {}
    for item in grid:
        key, equals, text = item.partition("=")
        values = split_values(text)
        if not equals or not key or not all(values):
            raise UserError(f"--grid {item!r}: write key=value,value,... for instance model=ca2sis,spade")
        if len(values) < 2 or len(set(values)) != len(values):
            raise UserError(f"--grid {item!r}: needs at least two different values (put single ones into --set)")
        if key in factors:
            raise UserError(f"--grid: {key} is given twice")
        factors[key] = {"reference": values[0], "levels": {value: [f"{key}={value}"] for value in values}}
    label = ", ".join(f"{key} = {factor['reference']}" for key, factor in factors.items())
    made = "grid-" + hashlib.sha256(" ".join(sorted(grid)).encode()).hexdigest()[:8]
    values_of_study = {
        "name": name or made,
        "question": f"ad hoc grid over {', '.join(factors)}",
        "label": label,
        "design": "factorial",
        "factors": factors,
    }
    return parse_study(values_of_study, "--grid")


def split_values(text: str) -> list[str]:
    """Split at commas outside brackets: `a,[1,2],b` has three values."""
    parts, depth, current = [], 0, ""
    for character in text:
        depth += (character in "[{(") - (character in "]})")
        if character == "," and depth == 0:
            parts.append(current.strip())
            current = ""
        else:
            current += character
    return [*parts, current.strip()]


def parse_seeds(text: str) -> tuple[int, ...]:
    """`0,1,2` or `0-4`, or both mixed; raises UserError. Which numbers may be seeds the study's schema says."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,99})(?:-(\d{1,99}))?\s*", part)
        if match is None:
            raise UserError(f"--seeds {text}: write numbers from 0, for instance 0,1,2 or 0-4")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise UserError(f"--seeds {text}: {first}-{last} runs backwards")
        if last - first >= MOST_SEEDS:
            raise UserError(f"--seeds {text}: {first}-{last} is a range of more than {MOST_SEEDS} seeds")
        seeds += range(first, last + 1)
    return tuple(seeds)
