"""Rows of an evaluation: what makes two numbers the same measurement, as a fingerprint, and rows that carry it.

A fingerprint covers the metric's definition and version, the digest of the images and labels measured on, their number, and
whatever settings, weights or reference the metric uses. It leaves out names, paths, batch sizes and devices: invariances that
the tests hold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from pipeline.records.metric_specs import fingerprint_of, spec_of
from pipeline.records.rows import MetricRow


@dataclass(frozen=True)
class RowMaker:
    """Makes the rows of one evaluation: same split, protocol, state and data for all of them."""

    protocol: str
    split: str
    state: Literal["trained", "untrained"]
    data: dict[str, Any]  # digest of the images measured on, label space, size
    note: str = (
        ""  # what every value of this evaluation means beyond its metric, as the note of rows without one of their own
    )
    always: str = ""  # what every score of this evaluation says beside its own note
    fingerprints: dict[str, str] = field(default_factory=dict)  # by row name, of the rows made so far

    def fingerprint(self, name: str, settings: dict[str, Any]) -> str:
        """Digest of definition, version, data and settings of metric `name`."""
        return fingerprint_of(name, self.data, settings)

    def ok(self, name: str, value: float, n: int, *, note: str = "", **settings: Any) -> MetricRow:
        """A measured row; `note` is kept as its reason (a warning about the value) and does not enter the fingerprint.

        A value that is not finite becomes `unavailable` and says so: NaN never ranks.
        """
        if not math.isfinite(value):
            return self.unavailable(name, f"the value is {value}", **settings)
        counted = {} if spec_of(name).kind == "training" else {"n": n}  # how long to train is what a study may vary
        return self._row(name, float(value), n, "ok", note, {**counted, **settings})

    def unavailable(self, name: str, reason: str, **settings: Any) -> MetricRow:
        """A row that could not be measured, with why and how it could be."""
        return self._row(name, None, 0, "unavailable", reason, settings)

    def not_applicable(self, name: str, reason: str, **settings: Any) -> MetricRow:
        """A row that has no meaning for this family or data set."""
        return self._row(name, None, 0, "not_applicable", reason, settings)

    def _row(
        self,
        name: str,
        value: float | None,
        n: int,
        status: Literal["ok", "unavailable", "not_applicable"],
        reason: str,
        settings: dict[str, Any],
    ) -> MetricRow:
        spec = spec_of(name)
        if status == "ok" and spec.kind == "score":  # bounds are of the real images
            reason = "; ".join(filter(None, (reason or self.note, self.always)))
        fingerprint = self.fingerprint(name, settings)
        self.fingerprints[name] = fingerprint
        return MetricRow(
            name=name,
            value=value,
            n=n,
            unit=spec.unit,
            direction=spec.direction,
            split=self.split,
            protocol=self.protocol,
            fingerprint=fingerprint,
            state=self.state,
            status=status,
            reason=reason,
        )
