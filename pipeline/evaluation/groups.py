"""What the groups of a protocol are made of: parts of the image stream, and the stages that follow it."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from pipeline.evaluation.context import Context
from pipeline.evaluation.parts.attention import AttentionPart
from pipeline.evaluation.parts.cost import CostPart
from pipeline.evaluation.parts.distribution import DistributionPart
from pipeline.evaluation.parts.part import Part
from pipeline.evaluation.parts.perceptual import PerceptualPart
from pipeline.evaluation.parts.reconstruction import ReconstructionPart
from pipeline.evaluation.parts.semantic import SemanticPart
from pipeline.evaluation.rows import RowMaker
from pipeline.evaluation.stages.attention_heads import attention_heads_stage
from pipeline.evaluation.stages.diversity import diversity_stage
from pipeline.evaluation.stages.editing import editing_stage
from pipeline.evaluation.stages.robustness import robustness_stage
from pipeline.records.rows import MetricRow

StageResult = tuple[list[MetricRow], list[pd.DataFrame]]


PARTS: dict[str, type[Part]] = {
    "reconstruction": ReconstructionPart,
    "perceptual": PerceptualPart,
    "attention": AttentionPart,
    "semantic": SemanticPart,
    "distribution": DistributionPart,
    "cost": CostPart,
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
