"""Config of the SCAM generator (SCAM, ECCV 2022); defaults, with their sources, are in `conf/model/scam.yaml`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipeline.schema.base import ModelSection, Section


class LatentEncoderSection(Section):
    """The semantic encoder: blocks of attention that fill each label's latents from the pixels of that label."""

    width: int = Field(ge=2, multiple_of=2)  # level i of the pyramid has 2^i times as many channels; 0 is the image
    blocks: int = Field(ge=1, le=10)  # one a level
    pyramid: bool  # stride-2 convs between blocks; false: every block sees the image at full size
    coarse_to_fine: bool  # order in which blocks go through the pyramid
    positional_width: int = Field(ge=4, multiple_of=4)  # channels of the positional code beside the image
    self_attention: bool  # after each block, among the latents of one label
    attention_width: int = Field(ge=1)  # of queries, keys and values
    heads: int = Field(ge=1)  # of attention to pixels
    self_heads: int = Field(ge=1)

    @model_validator(mode="after")
    def _heads_divide(self) -> LatentEncoderSection:
        refuse_uneven("encoder.", self.attention_width, self.heads)
        refuse_uneven("encoder.", self.attention_width, self.self_heads)
        return self


class ScamModel(ModelSection):
    """SCAM: several latents a label, which exchange with the pixels of that label at every size of the decoder."""

    family: Literal["scam"]
    base_width: int = Field(ge=4, multiple_of=4)  # channels after the last block ("ngf")
    up_blocks: int = Field(ge=1, le=8)  # blocks, each doubling the size; the last four halve the width
    latents: int = Field(ge=1)  # of every label but the first
    background_latents: int = Field(ge=1)  # of label 0
    style_dim: int = Field(ge=1)  # width of a latent
    attention_width: int = Field(ge=1)  # of queries, keys and values in the decoder
    heads: int = Field(ge=1)
    duplex: bool  # latents look at the pixels before the pixels look at them; false: a small network changes them
    noise: Literal["always", "train", "off"]  # when the learned per-channel noise is added
    # What latents attend to whose label has no pixel at a size. as_released: everything, in equal parts; none: nothing.
    absent_attention: Literal["as_released", "none"]
    encoder: LatentEncoderSection

    @model_validator(mode="after")
    def _heads_divide(self) -> ScamModel:
        refuse_uneven("", self.attention_width, self.heads)
        return self


def refuse_uneven(section: str, width: int, heads: int) -> None:
    """Heads are equal parts of the attention width."""
    if width % heads:
        raise ValueError(f"{section}attention_width is {width}; allowed: multiples of {heads} heads")
