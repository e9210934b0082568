"""What one evaluation works with, handed to every part and stage of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.data.types import Dataset, Split
from pipeline.metrics.accumulate import Resume
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

    @property
    def num_classes(self) -> int:
        """K of the data set's label space."""
        return self.dataset.label_space.num_classes
