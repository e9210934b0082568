"""Config of the CLADE generator (CLADE, TPAMI 2021); defaults, with their sources, are in `conf/model/clade.yaml`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipeline.schema.base import ModelSection, Section
from pipeline.schema.model_spade import NoiseDraw, NormName, SpadeEncoder, refuse_noise_beside_z


class IcpeSection(Section):
    """Intra-class positional encoding: where a pixel lies in its connected part scales what its class looks up."""

    enabled: bool
    skipped_class: int | None = Field(ge=0)  # pixels of this class get no position; release: the one stored as 0
    mirror: Literal["fixed", "as_released"]  # as_released: half of the training maps upside down, without new signs
    start: Literal["fixed", "as_released"]  # fixed: starts as CLADE without positions; as_released: at init_gain


class CladeModel(ModelSection):
    """CLADE: SPADE's block schedule, with scale and shift of every norm looked up by class."""

    family: Literal["clade"]
    base_width: int = Field(ge=1)  # channels of the last block ("ngf")
    up_blocks: int = Field(ge=1, le=6)  # blocks that follow an upsampling and halve the width
    middle_upsample: bool  # one more upsampling, between the two middle blocks
    norm: NormName
    spectral_norm: bool  # on the three convs of every residual block
    icpe: IcpeSection
    instance_edges: bool  # borders of instances are one more map channel, and one more channel of every norm's output
    style: Literal["none", "vae"]  # none: start from the label map; vae: start from z
    z_dim: int = Field(ge=1)  # width of z, vae only
    encoder: SpadeEncoder  # vae only
    noise_channels: int = Field(ge=0)  # 3D noise beside the label map, where it starts the picture; 0: none
    noise: NoiseDraw  # when it is drawn
    init_gain: float = Field(gt=0)  # Xavier-normal gain of convs and linear layers

    @model_validator(mode="after")
    def _noise_takes_the_place_of_z(self) -> CladeModel:
        refuse_noise_beside_z(self.noise_channels, self.style)
        return self

    @property
    def samples(self) -> bool:
        """Whether styles, or noise in their place, can be drawn."""
        return self.style == "vae" or self.noise_channels > 0
