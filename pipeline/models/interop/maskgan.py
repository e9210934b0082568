"""Import of MaskGAN's released weights (the demo's generator, with its label and style encoders)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from pipeline.errors import UserError
from pipeline.models.contract import Generator
from pipeline.models.interop.common import Assembly, Place, ReleaseShape, ReleaseState, as_generator
from pipeline.models.maskgan import LAYERS, MaskganGenerator
from pipeline.schema.model_maskgan import MaskganModel, SpatialEncoderSection

_SIZE = (512, 512)  # pixels: the demo's; the network does not depend on it
_INIT_GAIN = 0.02  # of no effect on imported weights
_FIRST_DOWN = 4  # place in the release's Sequential; every conv but those of the blocks takes three places
_MOST_DOWN = 6


def read_shape(generator: Mapping[str, Tensor]) -> ReleaseShape:
    """Config, class count and size of a released MaskGAN, read off its tensors."""
    return _shape(ReleaseState(generator, "MaskGAN generator"))


def import_state(generator: Mapping[str, Tensor]) -> Generator:
    """The released MaskGAN generator on our modules, in eval mode."""
    state = ReleaseState(generator, "MaskGAN generator")
    shape = _shape(state)
    cfg = shape.config
    assert isinstance(cfg, MaskganModel), "this importer reads MaskGAN configs"
    assembly = Assembly(lambda: MaskganGenerator(cfg, shape.num_classes, shape.size))
    first_block = _FIRST_DOWN + 3 * cfg.downsamplings
    first_up = first_block + cfg.blocks
    assembly.layer("conv_in", state, "model.1")
    for level in range(cfg.downsamplings):
        assembly.layer(f"down.{level}", state, f"model.{_FIRST_DOWN + 3 * level}")
        assembly.layer(f"up.{level}", state, f"model.{first_up + 3 * level}")
    assembly.layer("conv_out", state, f"model.{first_up + 3 * cfg.downsamplings + 1}")
    for block in range(cfg.blocks):
        for layer in range(LAYERS):
            theirs = f"model.{first_block + block}.conv_block.{layer}"
            assembly.layer(f"blocks.{block}.convs.{layer}", state, f"{theirs}.conv")
            for name in ("running_mean", "running_var"):  # of an instance norm that never reads them
                state.ignore(f"{theirs}.norm.{name}", assembly.shape(f"blocks.{block}.convs.{layer}.bias"))
    for ours, theirs, first in (("encoder.label", "enc_label.model", 1), ("encoder", "enc_style.model", 0)):
        for place, name in enumerate(("conv_in", "down_0", "down_1")):
            assembly.layer(f"{ours}.{name}", state, f"{theirs}.{place}.conv")
        rest = "enc_label.model_last" if first else "enc_style.model_middle"
        for layer in range(cfg.encoder.middle):  # the label encoder's begins with the activation
            assembly.layer(f"{ours}.middle.{layer}", state, f"{rest}.{first + layer}.conv")
    for number in range(2):
        for part in ("scale", "shift"):
            for layer in range(2):
                theirs = f"enc_style.sft{number + 1}.SFT_{part}_conv{layer + 1}"
                assembly.layer(f"encoder.transform_{number}.{part}.{layer}", state, theirs)
    assembly.layer("encoder.to_style", state, "enc_style.model_last.1")
    state.finish()
    return as_generator(assembly.finish())


def _shape(state: ReleaseState) -> ReleaseShape:
    found = [n for n in range(1, _MOST_DOWN + 1) if state.count("model.{}.conv_block.", _FIRST_DOWN + 3 * n)]
    if not found:
        raise UserError(f"{state.what}: key model.16.conv_block.0.conv.weight is missing")
    downsamplings = found[0]
    first_block = _FIRST_DOWN + 3 * downsamplings
    blocks = state.count("model.{}.conv_block.", first_block)
    base_width = state.read(
        "base width",
        [
            Place(r"model\.1\.(weight|bias)", 0),
            Place(rf"model\.{_FIRST_DOWN}\.(weight|bias)", 0, 2),
            Place(rf"model\.{first_block}\.conv_block\.[01]\.conv\.(weight|bias)", 0, 2**downsamplings),
        ],
    )
    encoders = r"enc_(style|label)\.model"
    width = state.read(
        "encoder width",
        [
            Place(rf"{encoders}\.0\.conv\.(weight|bias)", 0),
            Place(rf"{encoders}\.1\.conv\.(weight|bias)", 0, 2),
            Place(rf"{encoders}\.2\.conv\.(weight|bias)", 0, 4),
        ],
    )
    masks = [Place(r"model\.1\.weight", 1), Place(r"enc_label\.model\.0\.conv\.weight", 1)]
    middle = max(state.count("enc_style.model_middle.{}."), state.count("enc_label.model_last.{}.", first=1))
    if middle == 0:
        raise UserError(f"{state.what}: key enc_style.model_middle.0.conv.weight is missing")
    config = MaskganModel(
        family="maskgan",
        base_width=base_width,
        downsamplings=downsamplings,
        blocks=blocks,
        encoder=SpatialEncoderSection(width=width, middle=middle),
        init_gain=_INIT_GAIN,
        style_gain=1.0,
    )
    return ReleaseShape(config, state.read("number of classes", masks), _SIZE)
