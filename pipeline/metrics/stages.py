"""What the groups of a protocol are made of: parts of the image stream, and the stages that follow it."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from pipeline.editing.stage import editing_stage
from pipeline.metrics.attention_heads import attention_heads_stage
from pipeline.metrics.context import Context
from pipeline.metrics.distribution_part import DistributionPart
from pipeline.metrics.diversity import diversity_stage
from pipeline.metrics.parts import AttentionPart, Part, ReconstructionPart
from pipeline.metrics.perceptual_part import PerceptualPart
from pipeline.metrics.semantic_part import SemanticPart
from pipeline.protocols import RowMaker
from pipeline.records.rows import MetricRow
from pipeline.robustness import robustness_stage

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


STAGES: dict[str, Callable[[Context, RowMaker], StageResult]] = {
    "attention": attention_heads_stage,
    "diversity": diversity_stage,
    "editing": editing_stage,
    "robustness": robustness_stage,
}


def run_stages(context: Context, make: RowMaker) -> StageResult:
    """Run the stages of the groups the evaluation measures, in a fixed order."""
    rows: list[MetricRow] = []
    frames: list[pd.DataFrame] = []
    for group, stage in STAGES.items():
        if group in context.groups:
            stage_rows, stage_frames = stage(context, make)
            rows += stage_rows
            frames += stage_frames
    return rows, frames
