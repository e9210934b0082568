"""A segmenter's view of generated and real images over the stream; real images are the ceiling beside every number."""

from __future__ import annotations

import math
from typing import Any

from pipeline.images import ImageBatch
from pipeline.metrics.accumulate import Contribution, Totals
from pipeline.metrics.context import Context
from pipeline.metrics.parts import View
from pipeline.metrics.segmentation import Confusion
from pipeline.protocols import RowMaker
from pipeline.records.rows import MetricRow


class SemanticPart:
    """`seg_miou`, `seg_accuracy`, `seg_iou_<class>` and the same with `_real`."""

    def __init__(self, context: Context) -> None:
        self.space = context.dataset.label_space
        self.segmenter, self.reason = context.segmenter()

    def measure(self, view: View) -> Contribution:
        """Confusion counts on outputs and on targets."""
        if self.segmenter is None:
            return {}
        found: Contribution = {}
        for name, images in (("output", view.output), ("real", view.target)):
            confusion = Confusion(self.space.num_classes, self.space.unknown)
            confusion.update(self.segmenter.labels(_eight_bit(images)), view.label)
            found[f"sum/seg_{name}"] = confusion.counts.numpy()
        return found

    def rows(self, totals: Totals, make: RowMaker) -> list[MetricRow]:
        """Whole-set scores, then every class that occurs in the labels."""
        if self.segmenter is None:
            names = ("seg_miou", "seg_accuracy", "seg_miou_real", "seg_accuracy_real")
            return [make.unavailable(name, self.reason) for name in names]
        rows: list[MetricRow] = []
        settings: dict[str, Any] = {"segmenter": self.segmenter.digest, "ignored": self.space.unknown, "resize": "none"}
        for name, suffix in (("output", ""), ("real", "_real")):
            confusion = Confusion.of(totals.sums[f"sum/seg_{name}"])
            pixels_from = len(totals.stacked("each/content"))
            rows.append(make.ok(f"seg_miou{suffix}", confusion.mean_iou(), pixels_from, **settings))
            rows.append(make.ok(f"seg_accuracy{suffix}", confusion.accuracy(), pixels_from, **settings))
            for class_name, value in zip(self.space.classes, confusion.iou(), strict=True):
                if not math.isnan(value):
                    rows.append(make.ok(f"seg_iou{suffix}_{class_name}", value, pixels_from, **settings))
        return rows


def _eight_bit(images: ImageBatch) -> ImageBatch:
    """Real images come from 8-bit files: generated ones are judged on the same grid."""
    return images.quantised()
