"""What one evaluation works with, handed to every part and stage of it, and how several processes share its batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from pipeline.data.batch import Batch, collate
from pipeline.data.types import Dataset, Split
from pipeline.evaluation.resume import Resume
from pipeline.metrics.accumulate import Contribution, Totals
from pipeline.metrics.perceptual import Lpips, PerceptualDistance, too_small
from pipeline.metrics.segmenter import Segmenter, external_segmenter, trained_segmenter
from pipeline.models.contract import Generator
from pipeline.progress import Progress
from pipeline.schema.evaluation import MetricGroup, ProtocolConfig
from pipeline.training.distributed import World
from pipeline.weights import WeightsMissing

Splits = Callable[[Split], Dataset]  # the data set of another split, at the same size


@dataclass(frozen=True)
class Context:
    """One evaluation in progress."""

    generator: Generator
    dataset: Dataset  # the split the protocol names
    protocol: ProtocolConfig
    groups: tuple[MetricGroup, ...]  # metric groups measured this time
    total: int  # images of `dataset` that are measured
    device: torch.device
    cache: Path | None  # reference statistics, segmenter; None: keep nothing
    splits: Splits | None
    progress: Progress
    resume: Resume
    world: World = field(default_factory=World)  # the processes that share it

    @cached_property
    def segmenter(self) -> tuple[Segmenter | None, str]:
        """The protocol's segmenter, or None and the reason why there is none."""
        cfg = self.protocol.segmenter
        if cfg.external is not None:
            return external_segmenter(Path(cfg.external), self.num_classes, self.device), ""
        if self.splits is None:
            return None, "the train split, on which the segmenter is trained, was not given to the evaluation"
        train = self.splits("train")

        def made() -> Segmenter:
            return trained_segmenter(cfg, train, self.device, self.cache, self.progress)

        def keep() -> None:
            made()

        if self.cache is not None and self.world.size > 1:
            self.world.of_main(keep)
        return made(), ""

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

        Several processes share the work, a batch each at a time; every one of them returns the same totals, which are those of a
        single process bit for bit: the same batches, added up in the same order. Whatever is drawn from torch's generator follows
        from the stage and the batch's number.

        Contributions are kept on disk under the name `stage` while the evaluation runs: one that was killed measures what is not
        there yet. The first `anew` items are measured whatever is there, and by the main process, for the sake of what else is
        made of them. `title`: what progress is told, if not the stage.
        """

        def contribution(number: int) -> Contribution:
            start = number * size
            found = self.resume.get(stage, number) if start >= anew else None
            if found is None:
                torch.manual_seed(batch_seed(stage, number))
                found = measure(start, min(start + size, total))
                self.resume.put(stage, number, found)
            return found

        totals = Totals()
        self.progress.start(title or stage, total)
        for numbers in rounds(-(-total // size), self.world.size, -(-min(anew, total) // size)):

            def own(numbers: range = numbers) -> Contribution | None:
                found = contribution(numbers[self.world.rank]) if self.world.rank < len(numbers) else None
                self.progress.update(min(numbers.stop * size, total))
                return found

            for found in self.world.gather(own):
                if found is not None:
                    totals.add(found)
        self.progress.stop()
        return totals

    @property
    def num_classes(self) -> int:
        """K of the data set's label space."""
        return self.dataset.label_space.num_classes


def rounds(batches: int, processes: int, first: int) -> list[range]:
    """Numbers of `batches` batches in rounds of at most one a process; the `first` ones each begin a round: the main one's."""
    begins = [*range(first - 1), *range(max(first - 1, 0), batches, processes)]
    return [range(begin, end) for begin, end in zip(begins, [*begins, batches][1:], strict=True)]


def batch_seed(stage: str, number: int) -> int:
    """Seed of what is drawn while batch `number` of `stage` is measured: by whom and after what does not matter."""
    return int(np.random.SeedSequence([*stage.encode(), number]).generate_state(1)[0])


def split_source(build: Callable[[Split], Dataset]) -> Splits:
    """A `splits` argument that builds each split once."""
    built: dict[Split, Dataset] = {}

    def source(split: Split) -> Dataset:
        if split not in built:
            built[split] = build(split)
        return built[split]

    return source
