"""Parts of the image stream: each measures a batch of reconstructions and makes rows of the totals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from pipeline.data.batch import Batch
from pipeline.images import ImageBatch
from pipeline.metrics import reconstruction
from pipeline.metrics.accumulate import Contribution, Totals
from pipeline.metrics.attention import AttentionAgreement
from pipeline.metrics.context import Context
from pipeline.protocols import RowMaker
from pipeline.records.rows import MetricRow


@dataclass(frozen=True)
class View:
    """A batch and its reconstruction, on the evaluation's device."""

    batch: Batch
    target: ImageBatch
    output: ImageBatch
    attention: list[Tensor]  # per level (N,K,h,w) logits, or empty
    seconds: float  # wall time of encode and synthesise
    first_index: int  # index of the first image within the data set

    @property
    def label(self) -> Tensor:
        """(N,H,W) int64."""
        return self.batch.label


class Part(Protocol):
    """One metric group over the stream."""

    def __init__(self, context: Context) -> None: ...

    def measure(self, view: View) -> Contribution:
        """What one batch contributes (see `pipeline.metrics.accumulate`)."""
        ...

    def rows(self, totals: Totals, make: RowMaker) -> list[MetricRow]:
        """Rows of all batches together."""
        ...


class ReconstructionPart:
    """PSNR, SSIM, RMSE of reconstructions, per image."""

    def __init__(self, context: Context) -> None:
        self.range2 = context.protocol.ssim_range2
        self.small = min(context.dataset.height, context.dataset.width) < reconstruction.SSIM_WINDOW

    def measure(self, view: View) -> Contribution:
        """Per-image values."""
        found = {
            "each/psnr": reconstruction.psnr(view.output, view.target),
            "each/rmse": reconstruction.rmse(view.output, view.target),
        }
        if not self.small:
            found["each/ssim"] = reconstruction.ssim(view.output, view.target)
            if self.range2:
                found["each/ssim_range2"] = reconstruction.ssim(view.output, view.target, data_range=2.0)
        return {name: value.cpu().numpy() for name, value in found.items()}

    def rows(self, totals: Totals, make: RowMaker) -> list[MetricRow]:
        """Means over images."""
        rows = [mean_row(name, totals, make) for name in ("psnr", "rmse")]
        names = ("ssim", "ssim_range2") if self.range2 else ("ssim",)
        if self.small:
            reason = f"images are smaller than the SSIM window of {reconstruction.SSIM_WINDOW} pixels"
            return rows + [make.not_applicable(name, reason) for name in names]
        return rows + [mean_row(name, totals, make) for name in names]


class AttentionPart:
    """Agreement of attention with the mask, where the family has attention."""

    def __init__(self, context: Context) -> None:
        self.classes = context.num_classes
        self.applicable = context.generator.capabilities.attention
        self.names: list[str] = []

    def measure(self, view: View) -> Contribution:
        """Confusion counts and sums per level."""
        if not self.applicable:
            return {}
        agreement = AttentionAgreement(self.classes)
        agreement.update(view.attention, view.label)
        return agreement.contribution("attention")

    def rows(self, totals: Totals, make: RowMaker) -> list[MetricRow]:
        """Means over levels, and every level."""
        if not self.applicable:
            reason = "the family has no attention"
            names = ("attention_miou", "attention_leakage", "attention_entropy")
            return [make.not_applicable(name, reason) for name in names]
        agreement = AttentionAgreement.of(totals, "attention", self.classes)
        return [make.ok(name, value, agreement.images) for name, value in agreement.values().items()]


def mean_row(name: str, totals: Totals, make: RowMaker, **settings: Any) -> MetricRow:
    """Mean over images of an `each/` array."""
    values = totals.stacked(f"each/{name}")
    return make.ok(name, float(np.mean(values)), len(values), aggregation="mean over images", **settings)
