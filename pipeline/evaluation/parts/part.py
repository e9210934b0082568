"""Parts of the image stream: each measures a batch of reconstructions and makes rows of the totals."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from pipeline.evaluation.context import Context
from pipeline.evaluation.rows import RowMaker
from pipeline.evaluation.view import View
from pipeline.metrics.accumulate import Contribution, Totals
from pipeline.records.rows import MetricRow


class Part(Protocol):
    """One metric group over the stream."""

    def __init__(self, context: Context) -> None: ...

    def measure(self, view: View) -> Contribution:
        """What one batch contributes (see `pipeline.metrics.accumulate`)."""
        ...

    def rows(self, totals: Totals, make: RowMaker) -> list[MetricRow]:
        """Rows of all batches together."""
        ...


def mean_row(name: str, totals: Totals, make: RowMaker, **settings: Any) -> MetricRow:
    """Mean over images of an `each/` array."""
    values = totals.stacked(f"each/{name}")
    return make.ok(name, float(np.mean(values)), len(values), aggregation="mean over images", **settings)
