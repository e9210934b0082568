"""Config of SemanticStyleGAN (CVPR 2022); defaults, with their sources, are in `conf/model/semanticstylegan.yaml`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipeline.schema.base import ModelSection, Section

# Class tables: entry i is the network's class of the data's label i, and the network's classes that are painted transparently.
# celebamask_13: the release's 13 classes out of the 19 of CelebAMask-HQ (left and right, and the mouth's parts, are one class).
MERGES: dict[str, tuple[int, ...]] = {
    "celebamask_13": (0, 1, 5, 10, 2, 2, 3, 3, 6, 6, 4, 4, 4, 7, 11, 12, 8, 8, 9),
}


class StyleganDiscriminator(Section):
    """Two equal StyleGAN2 stacks, one for the image and one for the mask, added at their ends."""

    max_width: int = Field(ge=1)  # channels where the width budget allows more
    width_budget: int = Field(ge=1)  # channels x side of a feature map, up to `max_width` channels
    deviation_group: int = Field(ge=1)  # images over which the minibatch deviation is taken, at most


class StyleganObjective(Section):
    """What training adds to the logistic loss (`loss.gan`, mode bce)."""

    r1_image: float = Field(ge=0)  # weight of the squared gradient of the real score into the image
    r1_mask: float = Field(ge=0)  # the same into the mask
    r1_every: int = Field(ge=1)  # discriminator updates between two R1 steps; the weight is multiplied by it
    path: float = Field(ge=0)  # weight of the path length regulariser
    path_every: int = Field(ge=1)  # generator updates between two of its steps; the weight is multiplied by it
    path_decay: float = Field(gt=0, le=1)  # share of a new path length in their running mean
    path_batch_share: int = Field(ge=1)  # it draws batch_size / this many images
    mask_regulariser: float = Field(ge=0)  # weight of (pooled final mask - coarse mask) squared
    style_mixing: float = Field(ge=0, le=1)  # probability that a picture is made from two codes


class CodeEncoder(Section):
    """A small network from photo to codes, so that inversion starts near its end (ours; the release has no trainer for its own)."""

    width: int = Field(ge=1)  # channels of the first conv; doubles with each halving, up to 8 x width
    share: float = Field(ge=0, lt=1)  # last part of the budget, in which it alone is trained; 0: there is no encoder
    lr: float = Field(gt=0)  # Adam's, in that part
    code_weight: float = Field(ge=0)  # of the distance to the codes that made a picture; the pixel term has weight 1
    mask_weight: float = Field(ge=0)  # of the cross-entropy of its layout to the true one


class SemanticStyleganModel(ModelSection):
    """SemanticStyleGAN: local generators a class, fused by their depths into features and a mask, rendered to picture and mask."""

    family: Literal["semanticstylegan"]
    merge: Literal["none", "celebamask_13"]  # class table from the data's labels to the network's classes
    transparent: tuple[int, ...] = Field(strict=False)  # network classes that leave visible what is behind them
    code_width: int = Field(ge=1)  # of z, w and every code
    mapping_layers: int = Field(ge=1)
    mapping_lr_factor: float = Field(gt=0)  # learning rate multiplier of the mapping network
    local_width: int = Field(ge=1)  # channels of a local generator
    local_layers: int = Field(ge=2)  # its styled layers: base, shape, texture
    base_layers: int = Field(ge=0)  # of these, so many take the base codes (the background has none)
    depth_layers: int = Field(ge=1)  # and after so many the depth is read; those up to here draw the shape
    feature_width: int = Field(ge=1)  # channels of the fused feature map
    stages: int = Field(ge=1, le=8)  # doublings of the render net: it starts at 1/2**stages
    coarse_stage: int = Field(ge=1)  # after so many of them the fused features are at their own size and enter again
    max_width: int = Field(ge=1)  # channels of the render net where the width budget allows more
    width_budget: int = Field(ge=1)  # its channels x side, up to `max_width` channels
    residual_refine: bool  # the coarse mask is added to the mask the render net draws
    detach_texture: bool  # texture layers do not change shapes: no gradient from the features into the shape layers
    truncation: float = Field(ge=0, le=1)  # of sampled codes towards their mean; 1: none
    discriminator: StyleganDiscriminator
    objective: StyleganObjective
    encoder: CodeEncoder

    @property
    def samples(self) -> bool:
        """Whether codes can be drawn from noise: always."""
        return True

    @model_validator(mode="after")
    def _layers_fit(self) -> SemanticStyleganModel:
        if not self.base_layers < self.depth_layers < self.local_layers:
            raise ValueError(
                f"base_layers {self.base_layers}, depth_layers {self.depth_layers} and local_layers {self.local_layers} "
                "must ascend"
            )
        if self.coarse_stage >= self.stages:
            raise ValueError(f"coarse_stage is {self.coarse_stage}; allowed: 1 to {self.stages - 1} (stages - 1)")
        if min(self.transparent, default=0) < 0 or len(set(self.transparent)) != len(self.transparent):
            raise ValueError(f"transparent is {list(self.transparent)}; allowed: different class indices from 0")
        return self
