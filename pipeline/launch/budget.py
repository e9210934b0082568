"""What planners ask about a run without starting it: its training budget in images, and whether a metric exists. No torch."""

from __future__ import annotations

from pipeline.config import ResolvedRun
from pipeline.schema.families import family_of, family_spec


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
