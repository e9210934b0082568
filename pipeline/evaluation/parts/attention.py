"""Group `attention`, over the stream: how far attention agrees with the mask."""

from __future__ import annotations

from pipeline.evaluation.context import Context
from pipeline.evaluation.rows import RowMaker
from pipeline.evaluation.view import View
from pipeline.metrics.accumulate import Contribution, Totals
from pipeline.metrics.attention import AttentionAgreement
from pipeline.records.rows import MetricRow


class AttentionPart:
    """Agreement of attention with the mask, where the family has attention."""

    def __init__(self, context: Context) -> None:
        self.classes = context.num_classes
        self.applicable = context.generator.capabilities.attention

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
