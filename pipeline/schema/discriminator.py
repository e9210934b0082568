"""Config of the discriminator: multi-scale patches (pix2pixHD's and SPADE's, or SCAM's), or a segmenter (OASIS's)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipeline.schema.base import Section, later


class DiscriminatorConfig(Section):
    """Three kinds of network, which share a row's sizes.

    `multiscale`: `scales` equal networks on [map, image], each on an input half the size of the one before. `gradient_normalised`
    (SCAM): the same, but in training a score o becomes o / (n + |o|), n the norm of its gradient with respect to the input, and
    coarser scales see the map by nearest neighbour instead of average-pooled. `segmentation`: a U-Net on the image alone, whose
    K + 1 scores a pixel are asked for its class or "generated".
    """

    kind: Literal["multiscale", "gradient_normalised", "segmentation"] = later("multiscale")
    scales: int = Field(ge=1, le=4)  # not of segmentation
    layers: int = Field(
        ge=2, le=6
    )  # convs before the score conv, all but the last halve the size; or halvings of the U-Net
    width: int = Field(
        ge=1
    )  # channels of the first conv; doubles per layer up to 8 x width; or per two blocks of the U-Net
    spectral_norm: bool  # on the convs between the first and the score conv; or on all but the score conv of the U-Net
    norm: Literal["none", "instance", "batch", "sync_batch"]  # param-free, after those convs; not of segmentation
    class_balance: bool = later(True)  # segmentation only: pixels weigh the inverse of their class's share of the batch
    label_mix: float = later(10.0, ge=0)  # segmentation only: weight of the consistency under LabelMix
    label_mix_draws: Literal["fixed", "as_released"] = later("fixed")  # as_released: class 0 may take class 1's draw
    init_gain: Annotated[float, Field(gt=0)] | None  # Xavier-normal gain of convs; null: torch's own start values
