"""Import of SPADE's released weights: generator (with or without VAE), image encoder, and discriminator.

The discriminator serves the parity of losses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from pipeline.errors import UserError
from pipeline.models.contract import Generator
from pipeline.models.discriminator import Discriminator
from pipeline.models.interop.common import (
    Assembly,
    Place,
    ReleaseShape,
    ReleaseState,
    as_generator,
    fill_trunk,
    read_mask_branch,
    read_start_size,
    read_trunk,
)
from pipeline.models.spade import SpadeGenerator
from pipeline.schema.discriminator import DiscriminatorConfig
from pipeline.schema.model_spade import SpadeEncoder, SpadeModel

# Pixels: 256 at stride 32, the release's default size; a generator without VAE does not depend on it.
_DEFAULT_START = 8
_INIT_GAIN = 0.02  # release; of no effect on imported weights


def read_shape(generator: Mapping[str, Tensor], *, encoder: Mapping[str, Tensor] | None = None) -> ReleaseShape:
    """Config, class count and size of a released SPADE, off its tensors ("fc" tells label-map start from z start)."""
    state = ReleaseState(generator, "SPADE generator")
    return _shape(state, None if encoder is None else ReleaseState(encoder, "SPADE image encoder"))


def import_state(generator: Mapping[str, Tensor], *, encoder: Mapping[str, Tensor] | None = None) -> Generator:
    """The released SPADE generator on our modules, in eval mode; the VAE variant needs its `encoder` (a second file)."""
    state = ReleaseState(generator, "SPADE generator")
    encoder_state = None if encoder is None else ReleaseState(encoder, "SPADE image encoder")
    shape = _shape(state, encoder_state)
    cfg = shape.config
    assert isinstance(cfg, SpadeModel), "this importer reads SPADE configs"
    assembly = Assembly(lambda: SpadeGenerator(cfg, shape.num_classes, shape.size))
    assembly.layer("start", state, "fc")

    def fill_norm(ours: str, theirs: str) -> None:
        assembly.running_statistics(f"{ours}.norm", state, f"{theirs}.param_free_norm")
        fill_mask_branch(assembly, f"{ours}.modulation", state, theirs)

    fill_trunk(assembly, state, cfg.up_blocks, "norm", fill_norm)
    state.finish()
    if encoder_state is not None:
        for layer in range(cfg.encoder.layers):
            assembly.layer(f"encoder.convs.{layer}", encoder_state, f"layer{layer + 1}.0")
        assembly.layer("encoder.mean", encoder_state, "fc_mu")
        assembly.layer("encoder.log_variance", encoder_state, "fc_var")
        encoder_state.finish()
    return as_generator(assembly.finish())


def fill_mask_branch(assembly: Assembly, ours: str, state: ReleaseState, theirs: str) -> None:
    """The three convs from label map to gamma and beta."""
    assembly.layer(f"{ours}.shared", state, f"{theirs}.mlp_shared.0")
    assembly.layer(f"{ours}.gamma", state, f"{theirs}.mlp_gamma")
    assembly.layer(f"{ours}.beta", state, f"{theirs}.mlp_beta")


def import_discriminator(discriminator: Mapping[str, Tensor]) -> Discriminator:
    """The released multi-scale discriminator on ours, in eval mode; `spectralinstance` norms, as these releases use."""
    state = ReleaseState(discriminator, "discriminator")
    scales = state.count("discriminator_{}.")
    layers = state.count("discriminator_0.model{}.") - 1
    if layers < 2:
        raise UserError("discriminator: key discriminator_0.model0.0.weight is missing, or the layers after it")
    first = r"discriminator_\d+\.model0\.0\.(weight|bias)"
    width = state.read("width", [Place(first, 0), Place(r"discriminator_\d+\.model1\.0\.0\.weight_orig", 1)])
    in_channels = state.read("input channels", [Place(r"discriminator_\d+\.model0\.0\.weight", 1)])
    if in_channels <= 3:
        raise UserError(
            f"discriminator: key discriminator_0.model0.0.weight takes {in_channels} channels; expected classes + 3"
        )
    cfg = DiscriminatorConfig(
        scales=scales, layers=layers, width=width, spectral_norm=True, norm="instance", init_gain=_INIT_GAIN
    )
    assembly = Assembly(lambda: Discriminator(cfg, in_channels - 3))
    for scale in range(scales):
        ours, theirs = f"scales.{scale}", f"discriminator_{scale}"
        assembly.layer(f"{ours}.convs.0", state, f"{theirs}.model0.0")
        for layer in range(1, layers):
            assembly.layer(f"{ours}.convs.{layer}", state, f"{theirs}.model{layer}.0.0")
        assembly.layer(f"{ours}.score", state, f"{theirs}.model{layers}.0")
    state.finish()
    network = assembly.finish()
    assert isinstance(network, Discriminator), "built above"
    return network


def _shape(state: ReleaseState, encoder: ReleaseState | None) -> ReleaseShape:
    base_width, up_blocks, middle_upsample = read_trunk(state)
    modulation_width, num_classes = read_mask_branch(state)
    stride = 2 ** (up_blocks + 1 + middle_upsample)
    start_channels = base_width * 2**up_blocks
    dimensions = state.dimensions("fc.weight")
    if dimensions not in (2, 4):
        found = (
            "is missing" if dimensions is None else f"has {dimensions} dimensions; expected 4 (label map) or 2 (VAE)"
        )
        raise UserError(f"{state.what}: key fc.weight {found}")
    vae = dimensions == 2
    if vae and encoder is None:
        raise UserError(f"{state.what}: fc starts from z (VAE); its image encoder is needed too (latest_net_E.pth)")
    if not vae and encoder is not None:
        raise UserError(f"{state.what}: fc starts from the label map, so there is no z; leave the image encoder out")
    start = (_DEFAULT_START, _DEFAULT_START)
    z_dim = 256  # release default; read off where there is a z
    if encoder is not None:
        z_dim = encoder.read("z width", [Place(r"fc_(mu|var)\.(weight|bias)", 0)])
        start = read_start_size(state, start_channels)
    config = SpadeModel(
        family="spade",
        base_width=base_width,
        up_blocks=up_blocks,
        middle_upsample=middle_upsample,
        modulation_width=modulation_width,
        norm="batch",  # the release's sync batch norm in a single process
        spectral_norm=True,
        style="vae" if vae else "none",
        z_dim=z_dim,
        encoder=SpadeEncoder(size=256, layers=6, width=64) if encoder is None else _encoder(encoder),
        init_gain=_INIT_GAIN,
    )
    return ReleaseShape(config, num_classes, (start[0] * stride, start[1] * stride))


def _encoder(state: ReleaseState) -> SpadeEncoder:
    layers = state.count("layer{}.", first=1)
    if layers == 0:
        raise UserError(f"{state.what}: key layer1.0.weight_orig is missing")
    places = [Place(rf"layer{n}\.0\.weight_(orig|u)", 0, 2 ** min(n - 1, 3)) for n in range(1, layers + 1)]
    width = state.read("width", places)
    channels = width * 2 ** min(layers - 1, 3)
    pixels = state.read("feature size", [Place(r"fc_(mu|var)\.weight", 1, channels)])
    side = math.isqrt(pixels)
    if side * side != pixels:
        raise UserError(
            f"{state.what}: key fc_mu.weight takes {pixels} pixels of {channels} channels; expected a square"
        )
    return SpadeEncoder(size=side * 2**layers, layers=layers, width=width)
