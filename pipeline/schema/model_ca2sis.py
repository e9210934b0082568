"""Config section of the (CA)²-SIS family: every switch of its encoder, mask embedder and decoder.

No defaults here: `pipeline/conf/model/ca2sis.yaml` holds the released network, `pipeline/conf/recipe/ca2sis/*` smaller
ones.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.schema.base import ModelSection, Section, later

Conditioning = Literal["cross_attention", "spade", "sean", "clade", "none"]
NormKind = Literal["batch", "instance", "group", "layer"]
NamedGrouping = Literal["release", "class", "shared", "shared_matched"]
Pooling = Literal["masked", "global", "attention"]
Masking = Literal["none", "bias", "hard", "access", "query"]
EmbedderKind = Literal["linear", "conv", "none"]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]


def _power_of_two(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0


class StyleEncoderSection(Section):
    """The Multi-Resolution Grouped Style Encoder."""

    grouping: (
        NamedGrouping | Count
    )  # an integer: that many groups of neighbouring classes (K is `class`, 1 is `shared`)
    width: Count  # features a class at full resolution, doubling per level
    depth: Annotated[int, Field(ge=1, le=8)]  # stride-2 convolutions
    pooled_strides: Annotated[
        tuple[int, ...], Field(strict=False, min_length=1)
    ]  # map strides pooled into codes, coarsest first
    style_dim: Count  # code width a pooled level
    pooling: Pooling  # masked: mean inside the class's mask; global: over the whole image; attention: weighted by learned queries
    codes_per_class: Count = later(1)  # several need pooling attention: a region has one mean

    @model_validator(mode="after")
    def _strides_exist(self) -> StyleEncoderSection:
        available = [2**level for level in range(self.depth - 1, -1, -1)]
        strides = list(self.pooled_strides)
        if strides != sorted(set(strides), reverse=True) or not set(strides) <= set(available):
            raise ValueError(
                f"pooled_strides is {strides}; allowed at depth {self.depth}: some of {available}, descending"
            )
        if self.codes_per_class > 1 and self.pooling != "attention":
            raise ValueError(
                f"codes_per_class is {self.codes_per_class}; allowed with pooling {self.pooling}: 1 (several need attention)"
            )
        return self


class MaskEmbedderSection(Section):
    """The Mask Embedder: class masks -> one small map a class."""

    kind: EmbedderKind  # none: the masks themselves, resized to the first stage
    reduction: Count  # masks are shrunk by this factor first (power of two); read by linear and conv
    hidden: Count  # channels between the strided convolutions; read by conv

    @field_validator("reduction")
    @classmethod
    def _is_power_of_two(cls, value: int) -> int:
        if not _power_of_two(value):
            raise ValueError(f"reduction is {value}; allowed: powers of two")
        return value


class AttentionSection(Section):
    """Attention of the transformer blocks; the inner width of a block is heads x head width."""

    heads: Count
    head_width: Count
    last_heads: Count  # of the last (finest) stage
    last_head_width: Count
    self_attention: Annotated[
        tuple[int, ...], Field(strict=False)
    ]  # decoder stages with self-attention, 0 the coarsest
    masking: Masking = later("none")  # what a pixel's own class adds to its scores in cross-attention
    bias: Positive | Literal["learned"] = later(8.0)  # bias: onto the own class; learned: one scalar a head, from 0
    bias_scale: Positive = later(30.0)  # of the learned scalars
    access_scale: Positive = later(30.0)  # of the access table
    access_rank: Count | None = later(None)  # of the access table; null: every entry is learned
    query_scale: Positive = later(30.0)  # of the class vectors that masking query adds to the tokens
    class_keys: bool = later(False)  # a learned vector a class, added to its keys


class ModulationSection(Section):
    """Of the conditionings `spade`, `sean` and `clade`, which take the place of cross-attention."""

    hidden: Count  # channels between the map and gamma/beta (not clade, which looks up)
    style_channels: Annotated[
        int, Field(ge=0)
    ]  # codes are projected to this width; 0 (spade, clade): modulation by mask alone
    norm: NormKind


class MappingSection(Section):
    """The mapping network: noise -> per-class style codes."""

    enabled: bool
    noise_width: Count
    hidden: Count
    shared_layers: Count
    head_layers: Annotated[int, Field(ge=0)]  # hidden layers a class, before its last linear layer


class Ca2sisModel(ModelSection):
    """The (CA)²-SIS generator."""

    family: Literal["ca2sis"]
    base_width: Annotated[int, Field(ge=2)]  # channels of the last decoder stage
    stages: Annotated[int, Field(ge=1, le=8)]  # decoder stages; the first works at size / 2^(stages-1)
    conditioning: (
        Conditioning | Annotated[tuple[Conditioning, ...], Field(strict=False)]
    )  # for all stages, or one a stage
    exclude_background: bool  # class 0 gets no mask embedding
    depth: Count  # transformer layers a stage
    feed_forward: Count  # hidden width of the gated feed-forward, as a multiple of the inner width
    checkpointing: bool  # recompute transformer blocks in the backward pass: less memory, same numbers
    encoder: StyleEncoderSection
    mask_embedder: MaskEmbedderSection
    attention: AttentionSection
    modulation: ModulationSection
    mapping: MappingSection

    @model_validator(mode="before")
    @classmethod
    def _one_value_for_equal_stages(cls, values: Any) -> Any:
        """A list of equal conditionings, one a stage, is the single value: the same network has one identity."""
        if isinstance(values, dict) and isinstance(values.get("conditioning"), list | tuple):
            named = values["conditioning"]
            if len(named) == values.get("stages") and all(value == named[0] for value in named):
                return {**values, "conditioning": named[0]}
        return values

    @model_validator(mode="after")
    def _stages_fit(self) -> Ca2sisModel:
        if isinstance(self.conditioning, tuple) and len(self.conditioning) != self.stages:
            raise ValueError(
                f"conditioning names {len(self.conditioning)} stages; allowed: one value, or {self.stages} (stages)"
            )
        indices = list(self.attention.self_attention)
        if indices != sorted(set(indices)) or any(not 0 <= index < self.stages for index in indices):
            raise ValueError(
                f"attention.self_attention is {indices}; allowed: ascending stage indices 0 to {self.stages - 1}"
            )
        if self.mask_embedder.reduction > self.stride:
            raise ValueError(
                f"mask_embedder.reduction is {self.mask_embedder.reduction}; allowed: at most {self.stride}"
            )
        switched = {"masking": self.attention.masking != "none", "class_keys": self.attention.class_keys}
        for key in (key for key, on in switched.items() if on and "cross_attention" not in self.stage_conditioning):
            raise ValueError(f"attention.{key} is on; it needs a stage with conditioning cross_attention")
        if "sean" in self.stage_conditioning and self.modulation.style_channels == 0:
            raise ValueError("modulation.style_channels is 0; conditioning sean needs at least 1")
        return self

    @property
    def stride(self) -> int:
        """Image height and width must be divisible by it."""
        return 1 << (self.stages - 1)

    @property
    def stage_conditioning(self) -> tuple[Conditioning, ...]:
        """The conditioning of every stage, coarsest first."""
        return self.conditioning if isinstance(self.conditioning, tuple) else (self.conditioning,) * self.stages

    @property
    def stage_widths(self) -> tuple[int, ...]:
        """Output channels of every stage, coarsest first: 8, 4, 2, 1, 1 times the base width in the release."""
        return tuple(self.base_width * 2 ** max(self.stages - 2 - stage, 0) for stage in range(self.stages))

    @property
    def has_attention(self) -> bool:
        return "cross_attention" in self.stage_conditioning

    @property
    def samples(self) -> bool:
        return self.mapping.enabled
