"""Config of the OASIS generator (OASIS, ICLR 2021); defaults, with their sources, are in `conf/model/oasis.yaml`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.schema.base import ModelSection
from pipeline.schema.model_spade import NoiseDraw, NormName


class OasisModel(ModelSection):
    """OASIS: SPADE's generator with one middle block instead of two, and 3D noise beside the label map everywhere."""

    family: Literal["oasis"]
    base_width: int = Field(ge=1)  # channels of the last block ("channels_G")
    up_blocks: int = Field(ge=1, le=6)  # blocks that follow an upsampling and halve the width
    modulation_width: int = Field(ge=1)  # channels between the maps and gamma/beta
    norm: NormName
    spectral_norm: bool  # on the three convs of every residual block
    noise_channels: int = Field(ge=0)  # 3D noise beside the label map, wherever it enters; 0: none
    noise: NoiseDraw  # when it is drawn
    init_gain: float = Field(gt=0)  # Xavier-normal gain of convs

    @property
    def samples(self) -> bool:
        """Whether noise is drawn, from which pictures of one map differ."""
        return self.noise_channels > 0
