"""Config of the SPADE generator (SPADE, CVPR 2019); defaults, with their sources, are in `conf/model/spade.yaml`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipeline.schema.base import ModelSection, Section, later

NoiseDraw = Literal["always", "train"]  # in every call that gives no style | in training alone, and 0 otherwise
NormName = Literal["batch", "sync_batch", "instance", "group", "layer"]


class SpadeEncoder(Section):
    """Image encoder of the VAE variant: `layers` stride-2 convs (w, 2w, 4w, 8w, 8w, ...), then mean and log-variance."""

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
    """SPADE: up_blocks + 3 residual blocks of widths base_width * 2**up_blocks ... base_width, from 1/2**(up_blocks + 1)."""

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
    noise_channels: int = later(0, ge=0)  # 3D noise beside the label map, wherever it enters; 0: none
    noise: NoiseDraw = later("always")  # when it is drawn
    init_gain: float = Field(gt=0)  # Xavier-normal gain of convs and linear layers

    @model_validator(mode="after")
    def _noise_takes_the_place_of_z(self) -> SpadeModel:
        refuse_noise_beside_z(self.noise_channels, self.style)
        return self

    @property
    def samples(self) -> bool:
        """Whether styles, or noise in their place, can be drawn."""
        return self.style == "vae" or self.noise_channels > 0


def refuse_noise_beside_z(noise_channels: int, style: str) -> None:
    """3D noise is what a picture without a reference is drawn from: it has no place beside z."""
    if noise_channels > 0 and style != "none":
        raise ValueError(f"noise_channels is {noise_channels} with style {style}; 3D noise needs style none")
