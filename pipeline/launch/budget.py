"""What planners ask about a run without starting it: its training budget in images, and whether a metric exists. No torch."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.config import ResolvedRun
from pipeline.errors import UserError, nearest
from pipeline.metrics.registry import SPECS, spec_of
from pipeline.models.registry import family_of, family_spec

TRAINING_METRICS = ("train_images_per_s", "train_device_hours")  # rows that training writes, not evaluation
# Rows that describe the process a run was trained in: evaluating it later, in another process, does not change them.
OF_THE_TRAINING_PROCESS = (*TRAINING_METRICS, "peak_mem_gib")


def images_seen(resolved: ResolvedRun) -> int:
    """Training budget in images; 0 for a rule, which does not train."""
    config = resolved.config
    if not family_spec(family_of(config.model)).learned:
        return 0
    if config.train.iterations is not None:
        return config.train.iterations * config.train.batch_size
    return config.train.total_iterations(train_images(resolved)) * config.train.batch_size


def train_images(resolved: ResolvedRun) -> int:
    """Size of the training split."""
    from pipeline.data import build_dataset

    config = resolved.config
    if config.data.name == "procfaces" and config.data.train_images is not None:
        return config.data.train_images
    return len(build_dataset(config.data.model_copy(update={"cache": "none"}), "train"))  # planning writes nothing


def refuse_unknown_metrics(names: Iterable[str], where: str) -> None:
    """Raise UserError for a name that no metric row can have."""
    for name in names:
        if name in TRAINING_METRICS:
            continue
        try:
            spec_of(name)
        except KeyError as error:
            known = [*SPECS, *TRAINING_METRICS]
            raise UserError(f"{where}: unknown metric {name!r}{nearest(name, known)}") from error
