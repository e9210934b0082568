"""Config of the MaskGAN generator (MaskGAN, CVPR 2020); defaults, with their sources, are in `conf/model/maskgan.yaml`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.schema.base import ModelSection, Section


class SpatialEncoderSection(Section):
    """The spatial-aware style encoder and its label encoder."""

    width: int = Field(ge=1)  # channels of the first layer; then x2, x4, and x4 to the end
    middle: int = Field(ge=1, le=6)  # stride-2 convs after the first two, before the mean over all pixels


class MaskganModel(ModelSection):
    """MaskGAN: an encoder-decoder from the mask, whose residual blocks take scale and shift from one style vector."""

    family: Literal["maskgan"]
    base_width: int = Field(ge=1)  # channels of the first and last layer ("ngf")
    downsamplings: int = Field(ge=1, le=6)  # stride-2 convs, each doubling the width; as many transposed ones
    blocks: int = Field(ge=1)  # residual blocks at the coarsest level, two AdaIN layers each
    encoder: SpatialEncoderSection
    init_gain: float = Field(gt=0)  # Xavier-normal gain of the encoder-decoder
    style_gain: float = Field(gt=0)  # the same of the style and label encoders, which have no norms
