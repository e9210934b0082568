"""Config of the INADE generator (INADE, CVPR 2021); defaults, with their sources, are in `conf/model/inade.yaml`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.schema.base import ModelSection, Section
from pipeline.schema.model_spade import NormName


class InstanceEncoderSection(Section):
    """Instance encoder of V-INADE: `layers` stride-2 convs of widths w, 2w, 4w, ..., and as many steps up with skips."""

    width: int = Field(ge=1)  # channels of the first layer and of the last
    layers: int = Field(ge=2, le=8)


class InadeModel(ModelSection):
    """INADE: SPADE's block schedule, started from noise, with class-wise modulation scaled by instance-wise noise."""

    family: Literal["inade"]
    base_width: int = Field(ge=1)  # channels of the last block ("ngf")
    up_blocks: int = Field(ge=1, le=6)  # blocks that follow an upsampling and halve the width
    middle_upsample: bool  # one more upsampling, between the two middle blocks
    norm: NormName
    spectral_norm: bool  # on the three convs of every residual block
    style: Literal["none", "vae"]  # none: styles are drawn from noise alone; vae: V-INADE, encoded from a reference
    noise_width: int = Field(ge=1)  # of an instance's noise, for scale and for shift each ("noise_nc")
    z_dim: int = Field(ge=1)  # width of the noise that fills the start map
    start_noise: Literal["always", "train", "off"]  # when the start map is drawn; otherwise its noise is 0
    encoder: InstanceEncoderSection  # vae only
    init_gain: float = Field(gt=0)  # Xavier-normal gain of the trunk's convs and of the start
    style_gain: float = Field(gt=0)  # the same of the instance encoder

    @property
    def samples(self) -> bool:
        return True
