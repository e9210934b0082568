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
from pipeline.evaluation.stages.robustness import robustness_names, robustness_stage
from pipeline.models.external import ExternalPictures
from pipeline.records.rows import MetricRow
from pipeline.schema.evaluation import MetricGroup
from pipeline.schema.measures import MEASURED, NOT_HERE, OF_NO_SPLIT, OF_THE_NETWORK

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
    groups = _measured(context)
    return [part(context) for group, part in PARTS.items() if group in groups]


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
    groups = _measured(context)
    for group, stage in STAGES.items():
        if group in groups:
            stage_rows, stage_frames = stage(context, make)
            rows += stage_rows
            frames += stage_frames
    return rows, frames


def rows_without_network(context: Context, make: RowMaker) -> list[MetricRow]:
    """What cannot be said of pictures that other code has made, one row a metric; none where there is a network."""
    left_out = [group for group in context.groups if group not in _measured(context)]
    rows: list[MetricRow] = []
    bare = RowMaker(make.protocol, "", make.state, make.data)  # of no split
    for group in left_out:
        names = robustness_names(context.protocol.robustness) if group == "robustness" else MEASURED[group]
        rows += [(bare if name in OF_NO_SPLIT else make).not_applicable(name, NOT_HERE) for name in names]
    return rows


def _measured(context: Context) -> tuple[MetricGroup, ...]:
    """The groups of the evaluation that can be measured on what it has."""
    if not isinstance(context.generator, ExternalPictures):
        return context.groups
    return tuple(group for group in context.groups if group not in OF_THE_NETWORK)
