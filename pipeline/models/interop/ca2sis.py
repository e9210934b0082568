"""Import of the released (CA)²-SIS generator: its state dict -> `Ca2sisGenerator`.

Sizes are read off the tensors, each from several of them by majority, so that one misshapen tensor is named rather than
believed. What tensors cannot tell has the release's value: 64 channels a head, 32 in the last stage. Every key of the
release is used.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.models.ca2sis import Ca2sisGenerator, build
from pipeline.schema.model_ca2sis import Ca2sisModel

HEAD_WIDTH, LAST_HEAD_WIDTH = 64, 32  # source: release; heads = inner width / head width
FIRST_STAGE = 2  # the release numbers its decoder stages from 2: res2, cross2, ...
_LAYER = {  # our name inside a transformer layer -> the release's
    "self_attention.to_q.weight": "attn1.to_q.weight",
    "self_attention.to_k.weight": "attn1.to_k.weight",
    "self_attention.to_v.weight": "attn1.to_v.weight",
    "self_attention.to_out": "attn1.to_out.0",
    "cross_attention.to_q.weight": "attn2.to_q.weight",
    "cross_attention.to_k.weight": "attn2.to_k.weight",
    "cross_attention.to_v.weight": "attn2.to_v.weight",
    "cross_attention.to_out": "attn2.to_out.0",
    "feed_forward.project": "ff.net.0.proj",
    "feed_forward.out": "ff.net.2",
    "norm1": "norm1",
    "norm2": "norm2",
    "norm3": "norm3",
}
_RESIDUAL = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "skip": "skip_connection",
}
_BLOCK = {"norm": "norm", "project_in": "proj_in", "project_out": "proj_out"}


def import_state(generator: Mapping[str, Tensor]) -> Ca2sisGenerator:
    """The generator of a released state dict, float32 on the CPU, in eval mode, with its mapping network.

    Raises UserError, naming the key, for a missing, an extra or a misshapen tensor.
    """
    cfg, num_classes, size = read_config(generator)
    with torch.device("meta"):
        model = build(cfg, num_classes, size)
    sources = release_keys(model)
    used = {key for keys in sources.values() for key in keys}
    _require(generator, sorted(used))
    extra = sorted(set(generator) - used)
    if extra:
        raise UserError(f"ca2sis generator state has {len(extra)} keys of no known part, first {extra[0]!r}")
    state: dict[str, Tensor] = {}
    for name, target in model.state_dict().items():
        keys = sources[name]
        stacked = len(keys) > 1  # mapping heads: one release tensor a class
        expected = tuple(target.shape[1:]) if stacked else tuple(target.shape)
        parts = [_fitted(key, generator[key], expected, flattened=name.startswith("encoder.codes.")) for key in keys]
        state[name] = torch.stack(parts) if stacked else parts[0].clone()
    model.load_state_dict(state, assign=True)
    return model.eval()


def release_keys(generator: Ca2sisGenerator) -> dict[str, list[str]]:
    """Our parameter name -> the release's key behind it, or, for the stacked mapping heads, its keys by class."""
    return {name: _sources(name, generator.config, generator.num_classes) for name, _ in generator.named_parameters()}


def read_config(generator: Mapping[str, Tensor]) -> tuple[Ca2sisModel, int, tuple[int, int]]:
    """Config section, number of classes and image size (height, width) of a released state dict, read off its tensors.

    Raises UserError, naming the key, where a tensor needed for that is missing or fits nothing.
    """
    for key, tensor in generator.items():
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            raise UserError(f"ca2sis generator state: {key!r} is no floating-point tensor")
    read = _Reader(generator)
    num_classes = read.count(r"noise_encoder\.unshared\.(\d+)\.")
    stages = read.count(r"(?:res|cross)(\d+)\.") - FIRST_STAGE
    depth = read.count(r"style_encoder\.Encoder\.enc_layer_(\d+)\.")
    levels = read.count(r"style_encoder\.out\.out_(\d+)\.")
    blocks = range(FIRST_STAGE, FIRST_STAGE + stages)
    last = FIRST_STAGE + stages - 1

    first = "style_encoder.Encoder.first_layer"
    width = read.vote(
        (f"{first}.0.weight", 0, num_classes),
        (f"{first}.0.bias", 0, num_classes),
        (f"{first}.1.weight", 0, num_classes),
        ("style_encoder.Encoder.enc_layer_0.0.weight", 1, 1),
    )
    style_dim = read.vote(
        *(
            (f"style_encoder.out.out_{i}.0.{leaf}", 0, num_classes)
            for i in range(levels)
            for leaf in ("weight", "bias")
        ),
        *((f"cross{b}.transformer_blocks.0.attn2.to_k.weight", 1, levels) for b in blocks),
    )
    base_width = read.vote(
        ("out_conv.weight", 1, 1), (f"cross{last}.norm.weight", 0, 1), (f"res{last}.out_layers.0.weight", 0, 1)
    )
    inner = {b: read.vote(*((f"cross{b}.proj_{p}", axis, 1) for p, axis in _INNER)) for b in blocks}
    feed_forward = read.vote(*((f"cross{b}.transformer_blocks.0.ff.net.2.weight", 1, inner[b]) for b in blocks))
    hidden = read.vote(
        ("noise_encoder.shared.0.weight", 0, 1),
        ("noise_encoder.shared.0.bias", 0, 1),
        *((f"noise_encoder.unshared.{k}.0.weight", 1, 1) for k in range(num_classes)),
    )
    mixed = read.shape("reshape_conv.weight", 4)[1]
    if mixed not in (num_classes, num_classes - 1):
        raise UserError(
            f"ca2sis generator state: 'reshape_conv.weight' takes {mixed} maps; with {num_classes} classes it takes "
            f"{num_classes - 1} or {num_classes}"
        )
    embedded, shrunk = read.shape("encs.encs.0.weight", 2)
    side, shrunk_side = math.isqrt(embedded), math.isqrt(shrunk)
    size = side * 2 ** (stages - 1)
    if side**2 != embedded or shrunk_side**2 != shrunk or size % shrunk_side:
        raise UserError(
            f"ca2sis generator state: 'encs.encs.0.weight' is {embedded} x {shrunk}, no pair of square maps"
        )

    heads, last_heads = inner[FIRST_STAGE] // HEAD_WIDTH, inner[last] // LAST_HEAD_WIDTH
    values: dict[str, Any] = {
        "family": "ca2sis",
        "base_width": base_width,
        "stages": stages,
        "conditioning": "cross_attention",
        "exclude_background": mixed == num_classes - 1,
        "depth": read.count(r"cross\d+\.transformer_blocks\.(\d+)\."),
        "feed_forward": feed_forward,
        "checkpointing": False,
        "encoder": {
            "grouping": "release",
            "width": width,
            "depth": depth,
            "pooled_strides": [2 ** (depth - 1 - level) for level in range(levels)],
            "style_dim": style_dim,
            "pooling": "masked",
        },
        "mask_embedder": {"kind": "linear", "reduction": size // shrunk_side, "hidden": 16},
        "attention": {
            "heads": max(heads, 1),
            "head_width": HEAD_WIDTH,
            "last_heads": max(last_heads, 1),
            "last_head_width": LAST_HEAD_WIDTH,
            "self_attention": [b - FIRST_STAGE for b in blocks if read.any(f"cross{b}.transformer_blocks.0.attn1.")],
        },
        "modulation": {"hidden": 128, "style_channels": 128, "norm": "layer"},  # unread: cross-attention throughout
        "mapping": {
            "enabled": True,
            "noise_width": read.shape("noise_encoder.shared.0.weight", 2)[1],
            "hidden": hidden,
            "shared_layers": read.mlp("noise_encoder.shared."),
            "head_layers": read.mlp("noise_encoder.unshared.0.") - 1,
        },
    }
    return Ca2sisModel.model_validate(values), num_classes, (size, size)


_INNER = (
    ("in.weight", 0),
    ("in.bias", 0),
    ("out.weight", 1),
)  # tensors of a transformer block that show its inner width


class _Reader:
    """Reads sizes off a state dict; every failure is a UserError that names the key."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self.state = state

    def shape(self, key: str, dims: int) -> tuple[int, ...]:
        """Shape of a tensor that must be there with `dims` dimensions."""
        _require(self.state, [key])
        shape = tuple(self.state[key].shape)
        if len(shape) != dims:
            raise UserError(f"ca2sis generator state: {key!r} has shape {shape}; allowed: {dims} dimensions")
        return shape

    def vote(self, *anchors: tuple[str, int, int]) -> int:
        """The size most of the (key, axis, divisor) agree on; the others are named later, as misshapen."""
        _require(self.state, [key for key, _, _ in anchors])
        votes: Counter[int] = Counter()
        for key, axis, divisor in anchors:
            shape = self.state[key].shape
            if axis < len(shape) and shape[axis] >= divisor and shape[axis] % divisor == 0:
                votes[shape[axis] // divisor] += 1
        if not votes:
            raise UserError(
                f"ca2sis generator state: {anchors[0][0]!r} has shape {tuple(self.state[anchors[0][0]].shape)}, "
                f"which fits no released network"
            )
        return votes.most_common(1)[0][0]

    def count(self, pattern: str) -> int:
        """One more than the highest number that `pattern` (anchored at the start) finds in the keys."""
        found = [int(match.group(1)) for key in self.state if (match := re.match(pattern, key))]
        if not found:
            readable = re.sub(r"\\d\+|\(\?:|[()\\]", lambda match: "N" if "d" in match.group() else "", pattern)
            raise UserError(f"ca2sis generator state has no key {readable!r}...: it is no released (CA)²-SIS generator")
        return max(found) + 1

    def mlp(self, prefix: str) -> int:
        """Number of linear layers of an MLP whose linear layers have even indices."""
        return (self.count(re.escape(prefix) + r"(\d+)\.") + 1) // 2

    def any(self, prefix: str) -> bool:
        """Whether any key starts with `prefix`."""
        return any(key.startswith(prefix) for key in self.state)


def _require(state: Mapping[str, Tensor], keys: Iterable[str]) -> None:
    missing = [key for key in keys if key not in state]
    if missing:
        raise UserError(f"ca2sis generator state lacks {len(missing)} key(s), first {missing[0]!r}")


def _fitted(key: str, tensor: Tensor, expected: tuple[int, ...], *, flattened: bool) -> Tensor:
    """`tensor` as float32 on the CPU, in our shape. The code projections are stored flat, (K*S, c, 1) for our (K, S, c)."""
    stored = expected
    if flattened:
        stored = (expected[0] * expected[1], *expected[2:], 1) if len(expected) == 3 else (expected[0] * expected[1],)
    if tuple(tensor.shape) != stored:
        raise UserError(f"ca2sis generator state: {key!r} has shape {tuple(tensor.shape)}; this network takes {stored}")
    return tensor.detach().to(device="cpu", dtype=torch.float32).reshape(expected)


def _sources(name: str, cfg: Ca2sisModel, num_classes: int) -> list[str]:
    """The release's key (or, for the stacked mapping heads, keys by class) behind one of our parameters."""
    head, _, rest = name.partition(".")
    parts = rest.split(".")
    leaf = parts[-1]  # weight or bias
    if head == "embedder":
        return [f"encs.encs.0.{leaf}"]
    if head == "mix":
        return [f"reshape_conv.{leaf}"]
    if head == "to_rgb":
        return [f"out_conv.{leaf}"]
    if head == "encoder":
        return [_encoder_source(parts, cfg)]
    if head == "mapping":
        if parts[0] == "shared":
            return [f"noise_encoder.shared.{2 * int(parts[1])}.{leaf}"]
        index = 2 * (int(parts[1]) if parts[0] == "heads" else cfg.mapping.head_layers)
        return [f"noise_encoder.unshared.{k}.{index}.{leaf}" for k in range(num_classes)]
    stage = int(parts[0]) + FIRST_STAGE
    if parts[1] == "residual":
        return [f"res{stage}.{_RESIDUAL[parts[2]]}.{leaf}"]
    if parts[2] in _BLOCK:
        return [f"cross{stage}.{_BLOCK[parts[2]]}.{leaf}"]
    inside = ".".join(parts[4:])
    ours = inside if inside in _LAYER else inside.rpartition(".")[0]
    suffix = "" if inside in _LAYER else f".{leaf}"
    return [f"cross{stage}.transformer_blocks.{parts[3]}.{_LAYER[ours]}{suffix}"]


def _encoder_source(parts: list[str], cfg: Ca2sisModel) -> str:
    """The release's key behind `encoder.<parts>`."""
    if parts[0] == "first":
        return f"style_encoder.Encoder.first_layer.{parts[1]}.{parts[2]}"
    if parts[0] == "down":
        return f"style_encoder.Encoder.enc_layer_{parts[1]}.{parts[2]}.{parts[3]}"
    if parts[0] == "up":  # the release's upsampling is layer 0 of its level
        return f"style_encoder.Decoder.dec_layer_{parts[1]}.{int(parts[2]) + 1}.{parts[3]}"
    level = list(cfg.encoder.pooled_strides).index(int(parts[1]))
    return f"style_encoder.out.out_{level}.0.{parts[2]}"
