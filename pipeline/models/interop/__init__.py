"""Released checkpoints of the model families, mapped onto this project's modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipeline.errors import UserError
from pipeline.models.registry import importer_for

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.models.contract import Generator
    from pipeline.models.discriminator import Discriminator


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


def load_release_discriminator(discriminator: Mapping[str, Tensor]) -> Discriminator:
    """The released multi-scale discriminator (SPADE's, which SEAN and CA²-SIS share) as ours, in eval mode."""
    from pipeline.models.interop.spade import import_discriminator

    return import_discriminator(discriminator)
