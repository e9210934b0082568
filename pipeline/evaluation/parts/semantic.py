"""A segmenter's view of generated and real images over the stream; ceiling and floor stand beside every number."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.data.batch import one_hot
from pipeline.data.content import content_digest
from pipeline.errors import UserError
from pipeline.evaluation.context import Context
from pipeline.evaluation.rows import RowMaker
from pipeline.evaluation.view import View
from pipeline.metrics.accumulate import Contribution, Totals
from pipeline.metrics.images import ImageBatch
from pipeline.metrics.segmentation import Confusion
from pipeline.metrics.skill import HIT, RESAMPLES, SEED, TRUE, ious, mean_iou, skill_of, tallies
from pipeline.models.contract import ComposingGenerator
from pipeline.records.kept import kept_at, read_array, write_array
from pipeline.records.rows import MetricRow
from pipeline.schema.measures import NOT_HERE


class SemanticPart:
    """`seg_miou`, `seg_accuracy`, `seg_iou_<class>`, the same with `_real`, floors, `seg_skill`; `seg_miou_own`, `layout_miou`."""

    def __init__(self, context: Context) -> None:
        self.space = context.dataset.label_space
        self.composing = context.generator if isinstance(context.generator, ComposingGenerator) else None
        self.draws = context.generator.capabilities.draws
        self.segmenter, self.reason = context.segmenter
        self.stored: Path | None = None  # what the segmenter makes of the real images: the same for every run
        if self.segmenter is not None and context.cache is not None:
            content = context.world.of_main(lambda: content_digest(context.dataset, context.total, context.cache))
            depends_on = ["real tallies", self.segmenter.digest, self.space.unknown, content]
            self.stored = kept_at(context.cache / "reference", depends_on)
        shape = (context.total, 3, self.space.num_classes)
        self.real = context.world.of_main(lambda: read_array(self.stored, shape))  # read or measured by all alike

    def measure(self, view: View) -> Contribution:
        """Tallies of the outputs, and of each target."""
        found = self._own_layout(view)
        if self.segmenter is None:
            return found
        # Real images come from 8-bit files: generated ones are judged on the same grid.
        found["sum/seg_output"] = self._tallies(view.output.quantised(), view).sum(axis=0)
        if self.real is None:
            found["feat/seg_real"] = self._tallies(view.target.quantised(), view)
        return found

    def _tallies(self, images: ImageBatch, view: View) -> NDArray[np.int64]:
        assert self.segmenter is not None, "asked where there is one"
        return tallies(self.segmenter.labels(images), view.label, self.space.num_classes, self.space.unknown)

    def rows(self, totals: Totals, make: RowMaker) -> list[MetricRow]:
        """Whole-set scores, ceilings, floors and skill; then every class that occurs in the labels."""
        rows = self._own_rows(totals, make)
        if self.segmenter is None:
            names = ("seg_miou", "seg_accuracy", "seg_miou_real", "seg_accuracy_real")
            return rows + [make.unavailable(name, self.reason) for name in names]
        settings: dict[str, Any] = {"segmenter": self.segmenter.digest, "ignored": self.space.unknown, "resize": "none"}
        output = totals.sums["sum/seg_output"]
        each = totals.stacked("feat/seg_real") if self.real is None else self.real
        if each[:, TRUE].sum() != output[TRUE].sum():  # the same pixels were judged
            raise UserError(
                "cache/reference was emptied while this evaluation was interrupted: remove cache/evaluating too"
            )
        if self.real is None and self.stored is not None:
            write_array(self.stored, each)
        n = len(totals.stacked("each/content"))
        real, skill = each.sum(axis=0), skill_of(each)
        for suffix, counts in (("", output), ("_real", real)):
            accuracy = float(counts[HIT].sum() / max(counts[TRUE].sum(), 1))
            rows.append(make.ok(f"seg_miou{suffix}", float(mean_iou(counts)), n, **settings))
            rows.append(make.ok(f"seg_accuracy{suffix}", accuracy, n, **settings))
            for class_name, value in zip(self.space.classes, ious(counts).tolist(), strict=True):
                if not math.isnan(value):
                    rows.append(make.ok(f"seg_iou{suffix}_{class_name}", value, n, **settings))
        labels: dict[str, Any] = {"ignored": self.space.unknown}
        rows.append(make.ok("seg_miou_floor", skill.miou_floor, n, **labels))
        rows.append(make.ok("seg_accuracy_floor", skill.accuracy_floor, n, **labels))
        rows.append(make.ok("seg_skill", skill.value, n, note=_how_trained(self.segmenter.record), **settings))
        rows.append(make.ok("seg_skill_low", skill.low, n, **settings, resamples=RESAMPLES, seed=SEED))
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


def _how_trained(record: dict[str, Any]) -> str:
    """Where the segmenter's training ended, as its record says; "" of an external one."""
    if "updates" not in record:
        return ""
    watched = f", watched on {record['held_back']} photos held back" if record["held_back"] else ""
    return f"segmenter of {record['updates']} updates, best after {record['best_at']}{watched}"
