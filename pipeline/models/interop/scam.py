"""Import of SCAM's released weights: the generator and its semantic encoder, as two files or as parts of one checkpoint.

The release crosses two names: the layer called v_linear makes the keys, k_linear the values.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.models.contract import Generator
from pipeline.models.interop.common import Assembly, Place, ReleaseShape, ReleaseState, as_generator
from pipeline.models.scam import ScamGenerator
from pipeline.schema.model_scam import LatentEncoderSection, ScamModel

_SIZE = (256, 256)  # pixels: the release's on CelebAMask-HQ; the network does not depend on it
_HEADS = 1  # of every attention; release, and not to be read off the tensors
_BLOCK = "backbone.SCAM_block_{}"
_ATTENTION = {"to_q": "q_linear", "to_k": "v_linear", "to_v": "k_linear", "to_out": "out.0"}
_ENCODER_BLOCK = "backbone.block_{}"


def read_shape(generator: Mapping[str, Tensor], *, encoder: Mapping[str, Tensor] | None = None) -> ReleaseShape:
    """Config, class count and size of a released SCAM, read off its tensors."""
    return _shape(*_parts(generator, encoder))


def import_state(generator: Mapping[str, Tensor], *, encoder: Mapping[str, Tensor] | None = None) -> Generator:
    """The released SCAM on our modules, in eval mode.

    Without `encoder`, `generator` is one checkpoint of both (and of the discriminator, which is left alone), told apart by the
    beginnings of their keys.
    """
    state, encoder_state = _parts(generator, encoder)
    shape = _shape(state, encoder_state)
    cfg = shape.config
    assert isinstance(cfg, ScamModel), "this importer reads SCAM configs"
    assembly = Assembly(lambda: ScamGenerator(cfg, shape.num_classes, shape.size))
    assembly.layer("start", state, "first_conv")
    for number in range(cfg.up_blocks):
        ours, theirs = f"blocks.{number}", _BLOCK.format(number)
        for half in range(2):
            fill_modulation(assembly, f"{ours}.mod_{half}", state, f"{theirs}.mod_{half}")
            assembly.layer(f"{ours}.conv_{half}", state, f"{theirs}.conv_{half}.1")
        if number < cfg.up_blocks - 1:
            fill_modulation(assembly, f"{ours}.mod_image", state, f"{theirs}.torgb.mod_rgb")
        assembly.layer(f"{ours}.to_image", state, f"{theirs}.torgb.conv_rgb")
    state.finish()
    fill_encoder(assembly, "encoder", encoder_state, cfg.encoder)
    encoder_state.finish()
    return as_generator(assembly.finish())


def fill_encoder(assembly: Assembly, ours: str, state: ReleaseState, cfg: LatentEncoderSection) -> None:
    """The semantic encoder; frequencies and the mask between latents are made here, not read."""
    assembly.copy(f"{ours}.latents", state, "latents")
    tokens = assembly.shape(f"{ours}.latents")[0]
    state.ignore("latents_mask", (1, tokens, tokens))
    for level in range(1, cfg.blocks if cfg.pyramid else 1):
        assembly.layer(f"{ours}.convs.{level - 1}", state, f"convs.{level}.0")
        state.ignore(f"image_pos_embs.{level}.inv_freq", (cfg.width * 2**level // 4,))
    own = "image_pos_embs.0" if cfg.pyramid else "image_pos_emb"
    state.ignore(f"{own}.inv_freq", (cfg.positional_width // 4,))
    for number in range(cfg.blocks):
        theirs = _ENCODER_BLOCK.format(number)
        fill_latent_block(assembly, f"{ours}.cross.{number}", state, f"{theirs}.cross_attention")
        if cfg.self_attention:
            fill_latent_block(assembly, f"{ours}.within.{number}", state, f"{theirs}.self_attention")


def fill_modulation(assembly: Assembly, ours: str, state: ReleaseState, theirs: str) -> None:
    """One modulation, duplex or simplex, with its noise or without, as ours is built."""
    channels = assembly.shape(f"{ours}.gamma.weight")[0]
    state.ignore(f"{theirs}.feature_map_pos_encoding.inv_freq", (channels // 4,))
    fill_attention(assembly, f"{ours}.to_pixels", state, f"{theirs}.latent_to_image")
    for name in ("gamma", "beta"):
        assembly.layer(f"{ours}.{name}", state, f"{theirs}.mlp_lti_{name}")
    if assembly.has(f"{ours}.noise_scale"):
        assembly.copy(f"{ours}.noise_scale", state, f"{theirs}.noise_var")
    if assembly.has(f"{ours}.to_latents.norm_0"):
        fill_latent_block(assembly, f"{ours}.to_latents", state, f"{theirs}.image_to_latent")
    else:
        _fill_change(assembly, f"{ours}.to_latents", state, f"{theirs}.fc_itl")


def fill_latent_block(assembly: Assembly, ours: str, state: ReleaseState, theirs: str) -> None:
    """One attention block."""
    fill_attention(assembly, f"{ours}.attention", state, f"{theirs}.attention")
    for number in range(2):
        assembly.layer(f"{ours}.norm_{number}", state, f"{theirs}.ln_{number + 1}")
    _fill_change(assembly, f"{ours}.change", state, f"{theirs}.fc")


def fill_attention(assembly: Assembly, ours: str, state: ReleaseState, theirs: str) -> None:
    """One masked attention."""
    for name, their_name in _ATTENTION.items():
        assembly.layer(f"{ours}.{name}", state, f"{theirs}.{their_name}")


def _fill_change(assembly: Assembly, ours: str, state: ReleaseState, theirs: str) -> None:
    assembly.layer(f"{ours}.first", state, f"{theirs}.0")
    assembly.layer(f"{ours}.second", state, f"{theirs}.2")


def _parts(generator: Mapping[str, Tensor], encoder: Mapping[str, Tensor] | None) -> tuple[ReleaseState, ReleaseState]:
    if encoder is None:
        generator, encoder = _below(generator, "first_conv.weight"), _below(generator, "latents")
    return ReleaseState(generator, "SCAM generator"), ReleaseState(encoder, "SCAM encoder")


def _below(state: Mapping[str, Tensor], telltale: str) -> dict[str, Tensor]:
    """The part of a checkpoint of several networks that holds `telltale`, keys without the part's own beginning."""
    found = [key.removesuffix(telltale) for key in state if key == telltale or key.endswith(f".{telltale}")]
    if len(found) != 1:
        what = f"there {len(found)} times" if found else "missing"
        raise UserError(
            f"SCAM checkpoint: key {telltale} is {what}; give generator and encoder (--encoder) as files of their own, or one "
            "checkpoint that holds one of each"
        )
    return {key.removeprefix(found[0]): value for key, value in state.items() if key.startswith(found[0])}


def _shape(state: ReleaseState, encoder: ReleaseState) -> ReleaseShape:
    up_blocks = state.count(_BLOCK.format("{}") + ".")
    if up_blocks == 0:
        raise UserError(f"{state.what}: key {_BLOCK.format(0)}.conv_0.1.weight is missing")
    blocks = encoder.count(_ENCODER_BLOCK.format("{}") + ".")
    if blocks == 0:
        raise UserError(
            f"{encoder.what}: key {_ENCODER_BLOCK.format(0)}.cross_attention.attention.q_linear.weight is missing"
        )
    last = rf"backbone\.SCAM_block_{up_blocks - 1}\."
    base_width = state.read(
        "base width",
        [Place(rf"{last}torgb\.conv_rgb\.weight", 1), Place(rf"{last}conv_1\.1\.(weight|bias)", 0)],
    )
    modulations = r"backbone\.SCAM_block_\d+\.(mod_[01]|torgb\.mod_rgb)"
    num_classes = state.read("number of classes", [Place(r"first_conv\.weight", 1)])
    background, each = _latent_counts(encoder, num_classes)
    config = ScamModel(
        family="scam",
        base_width=base_width,
        up_blocks=up_blocks,
        latents=each,
        background_latents=background,
        style_dim=state.read("latent width", [Place(rf"{modulations}\.latent_to_image\.[vk]_linear\.weight", 1)]),
        attention_width=state.read(
            "attention width", [Place(rf"{modulations}\.latent_to_image\.[qvk]_linear\.(weight|bias)", 0)]
        ),
        heads=_HEADS,
        duplex=state.count(f"{_BLOCK.format(0)}.mod_{{}}.image_to_latent.") > 0,
        noise="always",
        absent_attention="as_released",
        encoder=_encoder(encoder, blocks),
    )
    return ReleaseShape(config, num_classes, _SIZE)


def _encoder(state: ReleaseState, blocks: int) -> LatentEncoderSection:
    pyramid = state.count("convs.{}.", first=1) > 0
    cross = r"backbone\.block_{}\.cross_attention\.attention\.[vk]_linear\.weight"
    positional = 4 * state.read("width of the positional code", [Place(r"image_pos_embs?(\.0)?\.inv_freq", 0)])
    seen_first = state.read("width of the first level", [Place(cross.format(0), 1)])
    width = 2  # of no effect without a pyramid
    if pyramid:
        levels = range(1, blocks)
        width = state.read("width", [Place(rf"convs\.{n}\.0\.(weight|bias)", 0, 2**n) for n in levels])
    return LatentEncoderSection(
        width=width,
        blocks=blocks,
        pyramid=pyramid,
        coarse_to_fine=pyramid and seen_first != 3 + positional,
        positional_width=positional,
        self_attention=state.count("backbone.block_{}.self_attention.") > 0,
        attention_width=state.read(
            "attention width",
            [Place(r"backbone\.block_\d+\.(cross|self)_attention\.attention\.[qvk]_linear\.(weight|bias)", 0)],
        ),
        heads=_HEADS,
        self_heads=_HEADS,
    )


def _latent_counts(encoder: ReleaseState, num_classes: int) -> tuple[int, int]:
    """Latents of label 0 and of every other label, off the mask that keeps labels apart."""
    tokens = encoder.read("number of latents", [Place(r"latents", 0), Place(r".*\.ln_[12]\.(weight|bias)", 0)])
    mask = encoder.take("latents_mask", (1, tokens, tokens), torch.float32)[0]
    background = int(mask[0].sum())
    each = (tokens - background) // max(1, num_classes - 1)
    label_of = torch.repeat_interleave(
        torch.arange(num_classes), torch.tensor([background, *[each] * (num_classes - 1)])
    )
    same = label_of.unsqueeze(0) == label_of.unsqueeze(1)
    if tuple(same.shape) != tuple(mask.shape) or not torch.equal(same, mask > 0):
        raise UserError(
            f"{encoder.what}: key latents_mask does not part {tokens} latents into {num_classes} labels; does the encoder belong "
            "to this generator?"
        )
    return background, each
