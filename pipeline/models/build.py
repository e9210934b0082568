"""The generator of a config: the one place where a family's name becomes a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from pipeline.models.contract import Generator
from pipeline.schema.base import Section
from pipeline.schema.families import family_of, family_spec, load_name


def build_generator(cfg: Section, num_classes: int, size: tuple[int, int]) -> Generator:
    """Generator of `cfg` (the model section, validated) for `num_classes` classes and images of `size` = (height, width)."""
    builder = cast(
        "Callable[[Section, int, tuple[int, int]], Generator]", load_name(family_spec(family_of(cfg)).builder)
    )
    return builder(cfg, num_classes, size)
