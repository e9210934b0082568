"""What one evaluation works with, handed to every part and stage of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from pipeline.data.batch import Batch, collate
from pipeline.data.types import Dataset, Split
from pipeline.evaluation.resume import Resume
from pipeline.metrics.accumulate import Contribution, Totals
from pipeline.metrics.perceptual import Lpips, PerceptualDistance, too_small
from pipeline.metrics.segmenter import Segmenter, external_segmenter, trained_segmenter
from pipeline.models.contract import Generator
from pipeline.progress import Progress
from pipeline.schema.evaluation import ProtocolConfig
from pipeline.weights import WeightsMissing

Splits = Callable[[Split], Dataset]  # the data set of another split, at the same size


@dataclass(frozen=True)
class Context:
    """One evaluation in progress."""

    generator: Generator
    dataset: Dataset  # the split the protocol names
    protocol: ProtocolConfig
    groups: tuple[str, ...]  # metric groups measured this time
    total: int  # images of `dataset` that are measured
    device: torch.device
    cache: Path | None  # reference statistics, segmenter; None: keep nothing
    splits: Splits | None
    progress: Progress
    resume: Resume

    @cached_property
    def segmenter(self) -> tuple[Segmenter | None, str]:
        """The protocol's segmenter, or None and the reason why there is none."""
        cfg = self.protocol.segmenter
        if cfg.external is not None:
            return external_segmenter(Path(cfg.external), self.num_classes, self.device), ""
        if self.splits is None:
            return None, "the train split, on which the segmenter is trained, was not given to the evaluation"
        return trained_segmenter(cfg, self.splits("train"), self.device, self.cache, self.progress), ""

    @cached_property
    def lpips(self) -> tuple[PerceptualDistance | None, str]:
        """LPIPS on AlexNet, which several groups use, or None and the reason why there is none."""
        small = too_small(self.dataset.height, self.dataset.width)
        if small:
            return None, small
        try:
            return Lpips("alex", self.protocol.weights_dir, self.device), ""
        except WeightsMissing as error:
            return None, str(error)

    def batch(self, start: int, stop: int) -> Batch:
        """Samples `start` to `stop` (left out) of the data set, on the CPU."""
        return collate([self.dataset[i] for i in range(start, stop)], self.num_classes)

    def collect(
        self,
        stage: str,
        total: int,
        size: int,
        measure: Callable[[int, int], Contribution],
        *,
        title: str = "",
        anew: int = 0,
    ) -> Totals:
        """What `measure(start, stop)` contributes of items 0 to `total` (left out), `size` at a time, added up in order.

        Contributions are kept on disk under the name `stage` while the evaluation runs: one that was killed measures what is not
        there yet. The first `anew` items are measured whatever is there, for the sake of what else is made of them. `title`: what
        progress is told, if not the stage.
        """
        totals = Totals()
        self.progress.start(title or stage, total)
        for number, start in enumerate(range(0, total, size)):
            stop = min(start + size, total)
            found = self.resume.get(stage, number) if start >= anew else None
            if found is None:
                found = measure(start, stop)
                self.resume.put(stage, number, found)
            totals.add(found)
            self.progress.update(stop)
        self.progress.stop()
        return totals

    @property
    def num_classes(self) -> int:
        """K of the data set's label space."""
        return self.dataset.label_space.num_classes


def split_source(build: Callable[[Split], Dataset]) -> Splits:
    """A `splits` argument that builds each split once."""
    built: dict[Split, Dataset] = {}

    def source(split: Split) -> Dataset:
        if split not in built:
            built[split] = build(split)
        return built[split]

    return source
