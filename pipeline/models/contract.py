"""The generator contract: the one shape every model family has for training, evaluation and editing.

A family encodes a style from (image, mask) and synthesises an image from (mask, style). What else it can do is declared as
capabilities; callers ask for capabilities, never for family names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from pipeline.schema.base import Section

StyleKind = Literal["per_class", "per_instance", "global", "none", "codes"]


@dataclass(frozen=True)
class Capabilities:
    """What a family can do, beyond the two methods every family has."""

    # per_class: (N,K,S); per_instance: (N,I,S), of an `InstanceGenerator`; global: (N,Z); none: (N,0); codes: (N,C,D) of shapes and
    # textures, of a `ComposingGenerator`
    style: StyleKind
    sampling: bool = False  # styles can be drawn from noise: `sample_style` works
    attention: bool = False  # `synthesize` returns per-layer class attention logits
    shape_embedding: bool = False  # the shape enters through `embed_shape`, so shapes can be interpolated
    noise_width: int = 0  # length of the noise vector `sample_style` takes, 0 without sampling
    learned: bool = True  # False for rules without parameters (the region-mean painter): nothing to train
    layout: Literal["given", "own"] = "given"  # own: a `ComposingGenerator`, which draws its layout itself
    training: Literal["reconstruction", "unconditional"] = "reconstruction"  # what its update is made of
    draws: bool = True  # False for pictures that other code has made: they are there, and no others can be had


@dataclass(frozen=True)
class Synthesis:
    """One synthesised batch."""

    image: Tensor  # (N,3,H,W) float32 in [-1, 1]
    attention: list[Tensor] = field(default_factory=list)  # per layer (N,K,h,w): head-averaged pre-softmax logits
    layout: Tensor | None = None  # (N,K',H,W) logits of the layout a family drew itself, in its own classes


@dataclass(frozen=True)
class GeneratorPass:
    """What one training pass of a generator yields."""

    synthesis: Synthesis
    style: Tensor
    regularisers: dict[str, Tensor] = field(default_factory=dict)  # unweighted scalar terms by loss name, e.g. "kl"


class Generator(nn.Module):
    """Base of all families. Sizes are fixed at construction; height and width may be any multiple of `stride`."""

    config: Section  # what the network was built from
    capabilities: Capabilities
    num_classes: int
    stride: int  # height and width must be divisible by it

    def encode_style(self, image: Tensor, mask: Tensor) -> Tensor:
        """Style of `image` (N,3,H,W float32 [-1,1]) under `mask` (N,K,H,W one-hot float32); deterministic."""
        raise NotImplementedError

    def synthesize(self, mask: Tensor, style: Tensor, *, attention: bool = True) -> Synthesis:
        """Image of layout `mask` (N,K,H,W one-hot) in `style`; logits only if asked for, the image is the same."""
        raise NotImplementedError

    def sample_style(self, mask: Tensor, noise: Tensor) -> Tensor:
        """Style drawn from `noise` (N, noise_width) standard normal, for families whose capabilities say so."""
        raise NotImplementedError(f"{type(self).__name__} does not sample styles")

    def sampling_parameters(self) -> list[nn.Parameter]:
        """Parameters behind `sample_style`: what the second training stage trains. Empty where nothing is learned for it."""
        return []

    def access_tables(self) -> dict[str, Tensor]:
        """What attention has learned to add to its scores, by level, coarsest first; empty where a family learns no table.

        Each (heads,K,K) float32 [head, class of the pixel, class of the code], under the level's name in attention metrics.
        """
        return {}

    def embed_shape(self, mask: Tensor) -> Tensor:
        """Shape embedding of `mask`, for families with `capabilities.shape_embedding`."""
        raise NotImplementedError(f"{type(self).__name__} has no shape embedding")

    def synthesize_embedded(self, mask: Tensor, shape: Tensor, style: Tensor, *, attention: bool = True) -> Synthesis:
        """As `synthesize`, with the layout given by the shape embedding `shape` (of `embed_shape`).

        `mask` serves what else a family takes from the layout.
        """
        raise NotImplementedError(f"{type(self).__name__} has no shape embedding")

    def own_discriminator(self) -> nn.Module | None:
        """The discriminator a family brings along; None: the one of the config's section `discriminator`."""
        return None

    def forward(self, image: Tensor, mask: Tensor, *, attention: bool) -> GeneratorPass:
        """Training pass: reconstruct `image` from its own style; stochastic families draw from torch's generator."""
        style = self.encode_style(image, mask)
        return GeneratorPass(self.synthesize(mask, style, attention=attention), style)


class InstanceGenerator(Generator):
    """A family whose styles belong to instances: row i of (N,I,S) is the style of instance i.

    `instances` (N,H,W) int64 holds instance ids from 0, a negative one where there is none; I is the largest id of the batch
    plus 1. Without it every class is one instance, wherever its pixels lie: I = K, rows are classes, and whatever works on
    per-class styles works on these.
    """

    def encode_style(self, image: Tensor, mask: Tensor, *, instances: Tensor | None = None) -> Tensor:
        """As `Generator.encode_style`, a row an instance."""
        raise NotImplementedError

    def synthesize(
        self, mask: Tensor, style: Tensor, *, attention: bool = True, instances: Tensor | None = None
    ) -> Synthesis:
        """As `Generator.synthesize`; `style` must have a row for each of the layout's instances."""
        raise NotImplementedError

    def forward(
        self, image: Tensor, mask: Tensor, *, attention: bool, instances: Tensor | None = None
    ) -> GeneratorPass:
        """As `Generator.forward`."""
        style = self.encode_style(image, mask, instances=instances)
        return GeneratorPass(self.synthesize(mask, style, attention=attention, instances=instances), style)


class ComposingGenerator(Generator):
    """A family that composes a picture and its layout from codes, and cannot be told a layout.

    A style is all its codes (N,C,D); a photo's are found by inversion, from where `encode_style` starts. K' is the number of its
    own classes, into which the data's are merged.
    """

    layout_classes: int  # K'

    def merged(self, mask: Tensor) -> Tensor:
        """The data's mask (N,K,H,W) one-hot in the classes of the network (N,K',H,W)."""
        raise NotImplementedError

    def mean_codes(self, count: int) -> Tensor:
        """(count,C,D): the mean code in every place, to which inversion holds what it finds."""
        raise NotImplementedError

    def exchanged(
        self, style: Tensor, other: Tensor, classes: Sequence[Sequence[int]] | None, *, shape: bool, texture: bool
    ) -> Tensor:
        """`style` (N,C,D) with shape and texture of each image's `classes` (of the data) taken from `other` (N,C,D).

        None: of all classes, and with the shapes what they have in common, such as a pose.
        """
        raise NotImplementedError

    def render(self, style: Tensor) -> Synthesis:
        """As `synthesize` without a mask, and not cut to [-1, 1]: what gradients of an inversion go through."""
        raise NotImplementedError


def instance_arguments(generator: nn.Module, instances: Tensor | None) -> dict[str, Tensor]:
    """Keyword arguments that hand a batch's instance map (N,H,W) to a family that takes one; none for all others."""
    return {"instances": instances} if instances is not None and isinstance(generator, InstanceGenerator) else {}
