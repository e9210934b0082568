"""SCAM as its fixture has it: the weight rule of that fixture, its inputs, and our modules filled by it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.models.interop import load_release
from pipeline.models.interop.common import Assembly, ReleaseState
from pipeline.models.masked_attention import MaskedAttention
from pipeline.models.scam import ScamGenerator
from tests.parity_fill import draw
from tests.pipeline.models.release_fill import load_meta
from tests.pipeline.models.small_models import one_hot

CROSS = r"backbone\.block_{}\.cross_attention\.attention\.[qv]_linear\.weight"
ENCODER_GAINS = {
    CROSS.format("0"): 5.0,
    CROSS.format("[1-9]"): 2.5,
    r"self_attention\.attention\.[qv]_linear\.weight": 1.5,
    r"^convs\..*\.weight": 1.5,
}
GAINS = {  # pattern of a key -> factor, a network each; "a" for the single pieces
    "a": {r"[qv]_linear\.weight": 1.4},
    "E": ENCODER_GAINS,
    "b": ENCODER_GAINS,
    "b_rev": ENCODER_GAINS,
    "b_flat": ENCODER_GAINS,
    "G": {
        r"latent_to_image\.[qv]_linear\.weight": 2.0,
        r"image_to_latent\.attention\.[qv]_linear\.weight": 1.5,
        r"^first_conv\.weight": 3.0,
        r"SCAM_block_\d+\.conv_[01]\.1\.weight": 0.7,
        r"torgb\.conv_rgb\.weight": 0.3,
    },
    "D": {r"conv_0\.0\.weight": 2.0},
    "VGG": {r"\.weight": 2.0**0.5},
}


def keys_of(network: str) -> list[list[Any]]:
    """Rows [key, shape, dtype, first element, sum] of one network of the fixture."""
    rows: list[list[Any]] = load_meta("scam")["keys"][network]
    return rows


def filled(network: str, latents: tuple[int, int, int] | None = None) -> dict[str, Tensor]:
    """The state dict of `network`, recorded for `latents` = (labels, latents a label, of label 0), or shaped for others."""
    state: dict[str, Tensor] = {}
    for key, recorded, *_ in keys_of(network):
        last = key.rsplit(".", 1)[-1]
        shape = list(recorded)
        if latents is not None and re.search(r"ln_[12]\.|^latents$", key):
            shape[0] = latents[2] + (latents[0] - 1) * latents[1]
        elif latents is not None and key == "first_conv.weight":
            shape[1] = latents[0]
        if last == "inv_freq":  # made, not filled: 1 / 10000^(2k / (C/2))
            state[key] = 1 / 10000 ** (torch.arange(shape[0]) * 2 / (2 * shape[0]))
        elif last == "latents_mask":
            assert latents is not None
            label_of = torch.repeat_interleave(
                torch.arange(latents[0]), torch.tensor([latents[2], *[latents[1]] * (latents[0] - 1)])
            )
            state[key] = (label_of.unsqueeze(0) == label_of.unsqueeze(1)).float().unsqueeze(0)
        else:
            state[key] = torch.from_numpy(_value(key, last, shape))
        for pattern, gain in GAINS[network if network in GAINS else "a"].items():
            if re.search(pattern, key):
                state[key] = state[key] * np.float32(gain).item()
    return state


def _value(key: str, last: str, shape: list[int]) -> NDArray[np.float32]:
    z = draw(key, shape)
    if key == "latents":
        return z
    if last == "noise_var":
        return np.float32(0.1) * z
    if re.search(r"ln_[12]\.", key):
        return np.float32(1) + np.float32(0.1) * z if last == "weight" else np.float32(0.1) * z
    if len(shape) > 1:
        return z * np.float32(1.0 / np.sqrt(float(np.prod(shape[1:]))))
    return np.float32(0.05) * z


def piece(network: str, make: Callable[[], nn.Module], fill: Callable[..., None]) -> nn.Module:
    """A single module of the fixture's part a, filled by the importer's own `fill`."""
    state = ReleaseState({f"part.{key}": value for key, value in filled(network).items()}, network)
    assembly = Assembly(lambda: nn.ModuleDict({"part": make()}))
    fill(assembly, "part", state, "part")
    state.finish()
    return assembly.finish().get_submodule("part")


def drawn(seed: int, *shape: int) -> Tensor:
    """Standard normal float32 of a seed."""
    return torch.from_numpy(np.random.Generator(np.random.PCG64(seed)).standard_normal(shape).astype(np.float32))


def cells(seed: int, labels: int, shape: tuple[int, ...], gone: int, instead: int, repeat: int) -> Tensor:
    """Labels drawn a cell, `gone` replaced by `instead` in item 1, each cell repeated -> (N,K,H,W) one-hot."""
    ids = np.random.Generator(np.random.PCG64(seed)).integers(0, labels, shape)
    ids[1][ids[1] == gone] = instead
    return one_hot(torch.from_numpy(ids.repeat(repeat, axis=1).repeat(repeat, axis=2)), labels)


def main_inputs() -> tuple[Tensor, Tensor]:
    """Image and mask (2,...,128,128) of the fixture's whole chain: a colour a label and white noise, eight labels."""
    mask = cells(7, 8, (2, 16, 16), gone=5, instead=6, repeat=8)
    colour = np.random.Generator(np.random.PCG64(8)).uniform(-1, 1, (2, 8, 3))
    white = np.random.Generator(np.random.PCG64(9)).uniform(-1, 1, (2, 3, 128, 128))
    painted = np.einsum("nkc,nkhw->nchw", colour, mask.double().numpy())
    return torch.from_numpy((0.6 * painted + 0.4 * white).astype(np.float32)), mask


def released() -> ScamGenerator:
    """Encoder and generator of the main case, through the importer."""
    generator = load_release("scam", filled("G"), encoder=filled("E", (8, 3, 3)))
    assert isinstance(generator, ScamGenerator)
    return generator


def attention_maps(network: nn.Module, run: Callable[[], Any]) -> dict[str, Tensor]:
    """The map (N,heads,T,P) of every masked attention that `run` goes through, by its path in `network`."""
    maps: dict[str, Tensor] = {}
    hooks = []
    for name, module in network.named_modules():
        if isinstance(module, MaskedAttention):

            def keep(attention: MaskedAttention, inputs: tuple[Any, ...], name: str = name) -> None:
                maps[name] = attention.weights(*inputs)

            hooks.append(module.register_forward_pre_hook(keep))  # type: ignore[arg-type]
    run()
    for hook in hooks:
        hook.remove()
    return maps


def entropy(weights: Tensor) -> Tensor:
    """Entropy in nats of each row (...,P) -> (...)."""
    return -torch.special.xlogy(weights, weights).sum(dim=-1)


def outputs_of(network: nn.Module, names: Mapping[str, str], run: Callable[[], Any]) -> dict[str, Any]:
    """What the submodules of `names` (our path by a name) give while `run` goes through them."""
    seen: dict[str, Any] = {}
    hooks = []
    for name, path in names.items():

        def keep(_module: Any, _inputs: Any, output: Any, name: str = name) -> None:
            seen[name] = output

        hooks.append(network.get_submodule(path).register_forward_hook(keep))
    run()
    for hook in hooks:
        hook.remove()
    return seen
