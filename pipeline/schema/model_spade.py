"""Config of the SPADE generator (SPADE, CVPR 2019); defaults, with their sources, are in `conf/model/spade.yaml`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipeline.schema.base import ModelSection, Section

NormName = Literal["batch", "sync_batch", "instance", "group", "layer"]


class SpadeEncoder(Section):
    """Image encoder of the VAE variant: `layers` stride-2 convs of widths w, 2w, 4w, 8w, 8w, ..., then mean and
    log-variance.
    """

    size: int = Field(ge=4)  # pixels: inputs of another size are resized to size x size
    layers: int = Field(ge=1)
    width: int = Field(ge=1)  # channels of the first layer

    @model_validator(mode="after")
    def _side_stays_above_one(self) -> SpadeEncoder:
        if self.size % 2**self.layers or self.size // 2**self.layers < 2:
            raise ValueError(
                f"encoder.size {self.size} must be divisible by 2**layers = {2**self.layers} "
                "and leave at least 2x2 pixels"
            )
        return self


class SpadeModel(ModelSection):
    """SPADE: up_blocks + 3 residual blocks of widths base_width * 2**up_blocks ... base_width, from 1/2**(up_blocks
    + 1).
    """

    family: Literal["spade"]
    base_width: int = Field(ge=1)  # channels of the last block ("nf", "ngf")
    up_blocks: int = Field(ge=1, le=6)  # blocks that follow an upsampling and halve the width
    middle_upsample: bool  # one more upsampling, between the two middle blocks
    modulation_width: int = Field(ge=1)  # channels between label map and gamma/beta
    norm: NormName
    spectral_norm: bool  # on the three convs of every residual block
    style: Literal["none", "vae"]  # none: start from the label map; vae: start from z
    z_dim: int = Field(ge=1)  # width of z, vae only
    encoder: SpadeEncoder  # vae only
    init_gain: float = Field(gt=0)  # Xavier-normal gain of convs and linear layers

    @property
    def samples(self) -> bool:
        return self.style == "vae"
