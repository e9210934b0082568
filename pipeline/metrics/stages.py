"""What the groups of a protocol are made of: parts of the image stream, and the stages that follow it."""

from __future__ import annotations

import pandas as pd

from pipeline.metrics.context import Context
from pipeline.metrics.distribution_part import DistributionPart
from pipeline.metrics.parts import AttentionPart, Part, ReconstructionPart
from pipeline.metrics.perceptual_part import PerceptualPart
from pipeline.metrics.semantic_part import SemanticPart
from pipeline.protocols import RowMaker
from pipeline.records.rows import MetricRow

StageResult = tuple[list[MetricRow], list[pd.DataFrame]]


PARTS: dict[str, type[Part]] = {
    "reconstruction": ReconstructionPart,
    "perceptual": PerceptualPart,
    "attention": AttentionPart,
    "semantic": SemanticPart,
    "distribution": DistributionPart,
}


def build_parts(context: Context) -> list[Part]:
    """The parts of the groups the evaluation measures, in a fixed order."""
    return [part(context) for group, part in PARTS.items() if group in context.groups]


def run_stages(context: Context, make: RowMaker) -> StageResult:
    """Run the stages of the groups the evaluation measures, in a fixed order."""
    rows: list[MetricRow] = []
    frames: list[pd.DataFrame] = []
    return rows, frames
