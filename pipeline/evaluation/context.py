"""What one evaluation works with, handed to every part and stage of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from pipeline.data.types import Dataset, Split
from pipeline.evaluation.resume import Resume
from pipeline.metrics.segmenter import Segmenter, external_segmenter, trained_segmenter
from pipeline.models.contract import Generator
from pipeline.progress import Progress
from pipeline.schema.evaluation import ProtocolConfig

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
    _segmenter: list[tuple[Segmenter | None, str]] = field(default_factory=list)  # made once, when first asked for

    def segmenter(self) -> tuple[Segmenter | None, str]:
        """The protocol's segmenter, or None and the reason why there is none."""
        if not self._segmenter:
            self._segmenter.append(self._make_segmenter())
        return self._segmenter[0]

    def _make_segmenter(self) -> tuple[Segmenter | None, str]:
        cfg = self.protocol.segmenter
        if cfg.external is not None:
            return external_segmenter(Path(cfg.external), self.num_classes, self.device), ""
        if self.splits is None:
            return None, "the train split, on which the segmenter is trained, was not given to the evaluation"
        return trained_segmenter(cfg, self.splits("train"), self.device, self.cache, self.progress), ""

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
