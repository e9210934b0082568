"""A segmenter's view of generated and real images over the stream; real images are the ceiling beside every number."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.data.batch import one_hot
from pipeline.data.content import content_digest
from pipeline.errors import UserError
from pipeline.evaluation.context import Context
from pipeline.evaluation.rows import RowMaker
from pipeline.evaluation.view import View
from pipeline.metrics.accumulate import Contribution, Totals
from pipeline.metrics.segmentation import Confusion
from pipeline.models.contract import ComposingGenerator
from pipeline.records.kept import kept_at, read_array, write_array
from pipeline.records.rows import MetricRow
from pipeline.schema.measures import NOT_HERE


class SemanticPart:
    """`seg_miou`, `seg_accuracy`, `seg_iou_<class>` and the same with `_real`; `seg_miou_own` and `layout_miou` of own layouts."""

    def __init__(self, context: Context) -> None:
        self.space = context.dataset.label_space
        self.composing = context.generator if isinstance(context.generator, ComposingGenerator) else None
        self.draws = context.generator.capabilities.draws
        self.segmenter, self.reason = context.segmenter
        self.stored: Path | None = None  # what the segmenter makes of the real images: the same for every run
        if self.segmenter is not None and context.cache is not None:
            content = context.world.of_main(lambda: content_digest(context.dataset, context.total, context.cache))
            depends_on = ["real confusion", self.segmenter.digest, self.space.unknown, content]
            self.stored = kept_at(context.cache / "reference", depends_on)
        shape = (self.space.num_classes, self.space.num_classes)
        self.real = context.world.of_main(lambda: read_array(self.stored, shape))  # read or measured by all alike

    def measure(self, view: View) -> Contribution:
        """Confusion counts on outputs and on targets."""
        found = self._own_layout(view)
        if self.segmenter is None:
            return found
        judged = {"output": view.output} | ({"real": view.target} if self.real is None else {})
        for name, images in judged.items():
            confusion = Confusion(self.space.num_classes, self.space.unknown)
            # Real images come from 8-bit files: generated ones are judged on the same grid.
            confusion.update(self.segmenter.labels(images.quantised()), view.label)
            found[f"sum/seg_{name}"] = confusion.counts.numpy()
        return found

    def rows(self, totals: Totals, make: RowMaker) -> list[MetricRow]:
        """Whole-set scores, then every class that occurs in the labels."""
        rows = self._own_rows(totals, make)
        if self.segmenter is None:
            names = ("seg_miou", "seg_accuracy", "seg_miou_real", "seg_accuracy_real")
            return rows + [make.unavailable(name, self.reason) for name in names]
        settings: dict[str, Any] = {"segmenter": self.segmenter.digest, "ignored": self.space.unknown, "resize": "none"}
        output = totals.sums["sum/seg_output"]
        real = totals.sums.get("sum/seg_real", np.zeros_like(output)) if self.real is None else self.real
        if real.sum() != output.sum():  # the same pixels were judged
            raise UserError(
                "cache/reference was emptied while this evaluation was interrupted: remove cache/evaluating too"
            )
        if self.real is None and self.stored is not None:
            write_array(self.stored, real)
        for counts, suffix in ((output, ""), (real, "_real")):
            confusion = Confusion.of(counts)
            pixels_from = len(totals.stacked("each/content"))
            rows.append(make.ok(f"seg_miou{suffix}", confusion.mean_iou(), pixels_from, **settings))
            rows.append(make.ok(f"seg_accuracy{suffix}", confusion.accuracy(), pixels_from, **settings))
            for class_name, value in zip(self.space.classes, confusion.iou(), strict=True):
                if not math.isnan(value):
                    rows.append(make.ok(f"seg_iou{suffix}_{class_name}", value, pixels_from, **settings))
        return rows

    def _own_layout(self, view: View) -> Contribution:
        """Counts of the layout a family drew itself: against the given mask, and the segmenter on the picture against it."""
        if self.composing is None or view.layout is None:
            return {}
        own, classes = view.layout.argmax(dim=1), self.composing.layout_classes
        given = Confusion(classes, self._merged_unknown())
        given.update(own, self.composing.merged(view.batch.mask).argmax(dim=1))
        found: Contribution = {"sum/layout_given": given.counts.numpy()}
        if self.segmenter is not None:
            seen = one_hot(self.segmenter.labels(view.output.quantised()), self.space.num_classes)
            shown = Confusion(classes)
            shown.update(self.composing.merged(seen).argmax(dim=1), own)
            found["sum/layout_shown"] = shown.counts.numpy()
        return found

    def _own_rows(self, totals: Totals, make: RowMaker) -> list[MetricRow]:
        """`layout_miou` and `seg_miou_own`, or why a family has none."""
        if self.composing is None:
            reason = "the family draws the layout it is given" if self.draws else NOT_HERE
            return [make.not_applicable(name, reason) for name in ("layout_miou", "seg_miou_own")]
        count, classes = len(totals.stacked("each/content")), self.composing.layout_classes
        given = Confusion.of(totals.sums["sum/layout_given"]).mean_iou()
        rows = [make.ok("layout_miou", given, count, classes=classes)]
        if self.segmenter is None:
            return [*rows, make.unavailable("seg_miou_own", self.reason)]
        shown = Confusion.of(totals.sums["sum/layout_shown"]).mean_iou()
        return [*rows, make.ok("seg_miou_own", shown, count, classes=classes, segmenter=self.segmenter.digest)]

    def _merged_unknown(self) -> int | None:
        """The family's class that stands for pixels without a label, None where the data label every pixel."""
        if self.composing is None or self.space.unknown is None:
            return None
        pixel = one_hot(torch.full((1, 1, 1), self.space.unknown), self.space.num_classes)
        return int(self.composing.merged(pixel).argmax(dim=1))
