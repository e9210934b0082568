"""Config of the SEAN generator (SEAN, CVPR 2020); defaults, with their sources, are in `conf/model/sean.yaml`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.schema.base import ModelSection
from pipeline.schema.model_spade import NormName


class SeanModel(ModelSection):
    """SEAN: SPADE's block schedule with SEAN blocks for norms, and a per-region style encoder."""

    family: Literal["sean"]
    base_width: int = Field(ge=1)  # channels of the last block ("ngf")
    up_blocks: int = Field(ge=1, le=6)  # blocks that follow an upsampling and halve the width
    middle_upsample: bool  # one more upsampling, between the two middle blocks
    modulation_width: int = Field(ge=1)  # channels between label map and gamma/beta of the mask branch
    style_dim: int = Field(ge=1)  # width of a class's style code
    encoder_width: int = Field(ge=1)  # channels of the style encoder's first layer; then x2, x4, x8, style_dim
    style_in_last_block: bool  # false: the last block is plain SPADE, as released
    noise: Literal["always", "train", "off"]  # when the learned per-channel noise is added
    norm: NormName
    spectral_norm: bool  # on the three convs of every residual block
    init_gain: float = Field(gt=0)  # Xavier-normal gain of convs and linear layers
