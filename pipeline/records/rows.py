"""The metric row: one number with everything that says what it is."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

Direction = Literal["max", "min", "none"]
MetricStatus = Literal["ok", "unavailable", "not_applicable"]
METRIC_STATUSES: tuple[str, ...] = ("ok", "unavailable", "not_applicable")


@dataclass(frozen=True)
class MetricRow:
    """One metric of one run.

    `value` is finite when `status` is "ok" and None otherwise; `reason` then says why. Two rows may share a table column
    only if `name` and `fingerprint` agree.
    """

    name: str
    value: float | None
    n: int  # images (or pairs, or steps) behind the value
    unit: str  # "dB", "images/s", "" for pure numbers
    direction: Direction  # which way is better
    split: str  # "train", "val", "test" or "" where no images are involved
    protocol: str  # name, for people
    fingerprint: str  # digest of implementation, weights, resize, range, reference, counts, aggregation
    state: Literal["trained", "untrained"] = "trained"
    status: MetricStatus = "ok"
    reason: str = ""

    def __post_init__(self) -> None:
        if self.status == "ok" and (self.value is None or not math.isfinite(self.value)):
            raise ValueError(f"metric {self.name}: value {self.value} is not finite; say unavailable with a reason")
        if self.status != "ok" and (self.value is not None or not self.reason):
            raise ValueError(f"metric {self.name}: status {self.status} takes no value and needs a reason")

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        """What identifies the row within a record: (name, protocol, split, fingerprint, state)."""
        return (self.name, self.protocol, self.split, self.fingerprint, self.state)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> MetricRow:
        return cls(**value)
