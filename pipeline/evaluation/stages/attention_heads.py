"""Agreement with the mask of single attention heads (paper: attention maps), on the first images of an evaluation.

The decoder averages heads before its logits leave it. This stage looks at each head on its own in a few passes more, so it is
bounded by a number of images rather than run over the stream.
"""

from __future__ import annotations

import pandas as pd
from torch import Tensor

from pipeline.evaluation.context import Context
from pipeline.evaluation.rows import RowMaker
from pipeline.metrics.accumulate import Contribution
from pipeline.metrics.attention import AttentionAgreement
from pipeline.models.contract import Generator
from pipeline.models.head_maps import level_names, observed_heads
from pipeline.records.rows import MetricRow

HEAD_IMAGES = 32  # enough pixels to rank heads; a pass each
HEAD_BATCH = 4  # the scores of all heads and levels are held at once


def attention_heads_stage(context: Context, make: RowMaker) -> tuple[list[MetricRow], list[pd.DataFrame]]:
    """Rows `attention_{miou,leakage,entropy}_<level>_head<i>`; none before training and for families without attention."""
    if not context.generator.capabilities.attention or make.state == "untrained":
        return [], []
    total = min(HEAD_IMAGES, context.total)

    def measure(start: int, stop: int) -> Contribution:
        batch = context.batch(start, stop).to(context.device)
        style = context.generator.encode_style(batch.image, batch.mask)
        heads = head_logits(context.generator, batch.mask, style)
        if not heads:
            return {}
        agreement = AttentionAgreement(context.num_classes, names=list(heads))
        agreement.update(list(heads.values()), batch.label)
        return agreement.contribution("heads")

    size = min(HEAD_BATCH, context.protocol.batch_size)
    totals = context.collect("heads", total, size, measure, title="attention heads")
    if not totals.has("sum/heads_images"):
        return [make.not_applicable("attention_miou_heads", "the family's attention shows no single heads")], []
    agreement = AttentionAgreement.of(totals, "heads", context.num_classes)
    per_head = {name: value for name, value in agreement.values().items() if "_head" in name}
    return [make.ok(name, value, total, logits="of one head") for name, value in per_head.items()], []


def head_logits(generator: Generator, mask: Tensor, style: Tensor) -> dict[str, Tensor]:
    """Scaled pre-softmax scores (N,K,h,w) float32 of every head, by `<level name>_head<i>` (i from 0), coarsest level first.

    mask (N,K,H,W) one-hot, style as the family's `encode_style` gives it. Empty for a family that shows no single heads.
    Their mean over a level's heads is the level's logits. Of several codes a class, their joint score.
    """
    with observed_heads() as layers:
        levels = generator.synthesize(mask, style, attention=True).attention
    if len(layers) != len(levels):
        return {}
    found: dict[str, Tensor] = {}
    names = level_names(level.shape[-2] for level in levels)
    for name, level, scores in zip(names, levels, layers, strict=True):
        maps = scores.transpose(2, 3).unflatten(3, tuple(level.shape[-2:]))  # (N,heads,h*w,K) -> (N,heads,K,h,w)
        found.update({f"{name}_head{i}": maps[:, i] for i in range(maps.shape[1])})
    return found
