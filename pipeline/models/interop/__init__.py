"""Released checkpoints of the model families, mapped onto this project's modules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

from torch import Tensor

from pipeline.errors import UserError
from pipeline.models.contract import Generator
from pipeline.schema.families import FAMILIES, family_spec, load_name


def load_release(
    family: str, generator: Mapping[str, Tensor], *, encoder: Mapping[str, Tensor] | None = None
) -> Generator:
    """The released network of `family` as one of our generators, in eval mode on the CPU, float32.

    `generator`: the release's state dict, keys as released; `encoder`: SPADE's image encoder, where its VAE is used.
    Sizes are read off the tensors; what cannot be read off has the release's default. A missing, extra or misshapen
    key, an unknown family, or an encoder given to a family without one is a UserError that names it.
    """
    importer, takes_encoder = importer_for(family)
    if takes_encoder:
        return importer(generator, encoder=encoder)
    if encoder is not None:
        raise UserError(f"model family {family!r} keeps no separate image encoder; leave it out")
    return importer(generator)


def importer_for(family: str) -> tuple[Callable[..., Generator], bool]:
    """The importer of the family's released weights, and whether it takes a second state dict (image encoder)."""
    spec = family_spec(family)
    if spec.importer is None:
        known = ", ".join(name for name, other in sorted(FAMILIES.items()) if other.importer is not None)
        raise UserError(f"model family {family!r} has no released weights to import; families that have: {known}")
    importer = cast("Callable[[Mapping[str, Tensor]], Generator]", load_name(spec.importer))
    return importer, spec.importer_takes_encoder
