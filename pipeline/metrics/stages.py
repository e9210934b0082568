"""Stages that follow the image stream: diversity, editing tasks, robustness. Each yields rows and per-image values."""

from __future__ import annotations

import pandas as pd

from pipeline.metrics.context import Context
from pipeline.protocols import RowMaker
from pipeline.records.rows import MetricRow

StageResult = tuple[list[MetricRow], list[pd.DataFrame]]


def run_stages(context: Context, make: RowMaker) -> StageResult:
    """Run the stages of the groups the evaluation measures, in a fixed order."""
    rows: list[MetricRow] = []
    frames: list[pd.DataFrame] = []
    return rows, frames
