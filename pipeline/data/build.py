"""From the config section `data` to the data set of one split."""

from __future__ import annotations

from pathlib import Path

from pipeline.data.label_spaces import LabelSpace, label_space
from pipeline.data.memory import InMemory
from pipeline.data.types import Dataset, Split
from pipeline.errors import UserError
from pipeline.schema.data import DataConfig


def space_of(cfg: DataConfig) -> LabelSpace:
    """The label space a config's samples are in, before any photo is read."""
    if cfg.name == "procfaces":
        return label_space("celebamask_hq")
    from pipeline.data.sources import open_source

    return open_source(cfg).space


def build_dataset(cfg: DataConfig, split: Split, shared: Path | None = None) -> Dataset:
    """Data set of `split` at the training size.

    `shared`: folder for mapped caches where the config names none: runs of one output folder share theirs there.

    Raises UserError for a missing root, unpaired files, an unknown label space and a split without images; label ids
    out of range and unreadable photos are reported, with the file, when the sample is read.
    """
    dataset: Dataset
    limit = cfg.count_limit(split)
    if limit == 0:
        raise UserError(f"data.{split}_images=0: the {split} split of {cfg.name} would be empty; give at least 1")
    if cfg.name == "procfaces":
        from pipeline.data.procfaces.dataset import ProcFaces

        assert limit is not None  # the schema demands numbers for procfaces
        dataset = ProcFaces(cfg, split, limit)
    else:
        from pipeline.data.files import FileDataset
        from pipeline.data.sources import open_source

        dataset = FileDataset(cfg, open_source(cfg), split)
    if cfg.cache == "memory":
        return InMemory(dataset)
    if cfg.cache == "mapped":
        from pipeline.data.mapped import Mapped

        return Mapped(cfg, dataset, split, shared)
    return dataset
