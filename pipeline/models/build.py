"""The networks of a config: the one place where a family's name, or a kind of discriminator, becomes a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from pipeline.models.contract import Generator
from pipeline.models.discriminator import Discriminator, Judge
from pipeline.models.segmentation_discriminator import SegmentationDiscriminator
from pipeline.schema.base import Section
from pipeline.schema.discriminator import DiscriminatorConfig
from pipeline.schema.families import family_of, family_spec, load_name


def build_generator(cfg: Section, num_classes: int, size: tuple[int, int]) -> Generator:
    """Generator of `cfg` (the model section, validated) for `num_classes` classes and images of `size` = (height, width)."""
    builder = cast(
        "Callable[[Section, int, tuple[int, int]], Generator]", load_name(family_spec(family_of(cfg)).builder)
    )
    return builder(cfg, num_classes, size)


def build_discriminator(cfg: DiscriminatorConfig, num_classes: int, unknown: int | None = None) -> Judge:
    """Discriminator of `cfg` for label maps of `num_classes` classes; `unknown` is the one that means "not annotated"."""
    if cfg.kind == "segmentation":
        return SegmentationDiscriminator(cfg, num_classes, unknown)
    return Discriminator(cfg, num_classes)
