"""Config of the multi-scale patch discriminator (pix2pixHD's, as SPADE, SEAN and CA²-SIS use it)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.schema.base import Section


class DiscriminatorConfig(Section):
    """`scales` equal networks, each on an input half the size of the one before."""

    scales: int = Field(ge=1, le=4)
    layers: int = Field(ge=2, le=6)  # convs before the score conv; all but the last halve the size
    width: int = Field(ge=1)  # channels of the first conv; doubles per layer up to 8 x width
    spectral_norm: bool  # on the convs between the first and the score conv
    norm: Literal["none", "instance", "batch", "sync_batch"]  # param-free, after those convs
    init_gain: float = Field(gt=0)  # Xavier-normal gain of convs
