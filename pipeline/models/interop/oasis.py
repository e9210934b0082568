"""Import of OASIS's released weights: the generator (or its average), and the discriminator for the loss parity."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from pipeline.errors import UserError
from pipeline.models.contract import Generator
from pipeline.models.interop.common import Assembly, Place, ReleaseShape, ReleaseState, as_generator, unknown_last
from pipeline.models.interop.spade import fill_mask_branch
from pipeline.models.oasis import OasisGenerator
from pipeline.models.segmentation_discriminator import SegmentationDiscriminator
from pipeline.schema.discriminator import DiscriminatorConfig
from pipeline.schema.model_oasis import OasisModel

_BLOCKS = 6  # the release builds six whatever its option says
_DEFAULT_SIDE = 256  # pixels; the network does not depend on it
_INIT_GAIN = 0.02  # release; of no effect on imported weights
_NOISE = 64  # release's width of the noise, where there is noise: it cannot be told from classes by shape
_UNKNOWN_FIRST = (151, 183)  # classes of ADE20K and COCO-Stuff, "unlabelled" first in the release and last here


def read_shape(generator: Mapping[str, Tensor]) -> ReleaseShape:
    """Config and class count of a released OASIS, read off its tensors."""
    return _shape(ReleaseState(generator, "OASIS generator"))


def import_state(generator: Mapping[str, Tensor]) -> Generator:
    """The released OASIS generator on our modules, in eval mode.

    Maps of more than 64 channels are taken for 64 of noise and the classes after them, as in all released files. Of ADE20K's
    151 and COCO-Stuff's 183 classes the release has "unlabelled" first; here it is the last one.
    """
    state = ReleaseState(generator, "OASIS generator")
    shape = _shape(state)
    cfg = shape.config
    assert isinstance(cfg, OasisModel), "this importer reads OASIS configs"
    if shape.num_classes in _UNKNOWN_FIRST:
        maps = r"fc\.weight|.*\.mlp_shared\.0\.weight"
        state.reorder({maps: (1, cfg.noise_channels)}, unknown_last(shape.num_classes))
    assembly = Assembly(lambda: OasisGenerator(cfg, shape.num_classes, shape.size))
    assembly.layer("start", state, "fc")
    names = ["head", "middle_0", *(f"up.{level}" for level in range(cfg.up_blocks))]
    for number, ours in enumerate(names):
        for branch in "01s" if ours.startswith("up") else "01":
            theirs = f"body.{number}.norm_{branch}"
            assembly.layer(f"trunk.{ours}.conv_{branch}", state, f"body.{number}.conv_{branch}")
            assembly.running_statistics(f"trunk.{ours}.norm_{branch}.norm", state, f"{theirs}.first_norm")
            fill_mask_branch(assembly, f"trunk.{ours}.norm_{branch}.modulation", state, theirs)
    assembly.layer("trunk.to_image", state, "conv_img")
    state.finish()
    return as_generator(assembly.finish())


def import_discriminator(discriminator: Mapping[str, Tensor], unknown: int | None = None) -> SegmentationDiscriminator:
    """The released U-Net on ours, in eval mode, its classes in the release's order; `unknown` is the unlabelled one, if any."""
    state = ReleaseState(discriminator, "OASIS discriminator")
    layers = state.count("body_down.{}.")
    if layers < 2:
        raise UserError(f"{state.what}: key body_down.{layers}.conv1.1.weight_orig is missing")
    cfg = DiscriminatorConfig(
        kind="segmentation",
        scales=1,
        layers=layers,
        width=state.read("width", [Place(r"body_down\.0\.conv(1\.0|2\.1|_s)\.(bias|weight_u)", 0)]),
        spectral_norm=True,
        norm="none",
        init_gain=_INIT_GAIN,
    )
    channels = state.read("number of channels", [Place(r"layer_up_last\.(weight|bias)", 0)])
    assembly = Assembly(lambda: SegmentationDiscriminator(cfg, channels - 1, unknown))
    for way, first in (("down", 1), ("up", 2)):
        for level in range(layers):
            ours, theirs = f"{way}.{level}", f"body_{way}.{level}"
            start = 0 if (way, level) == ("down", 0) else first
            assembly.layer(f"{ours}.conv_0", state, f"{theirs}.conv1.{start}")
            assembly.layer(f"{ours}.conv_1", state, f"{theirs}.conv2.1")
            if assembly.has(f"{ours}.conv_s"):
                assembly.layer(f"{ours}.conv_s", state, f"{theirs}.conv_s")
    assembly.layer("score", state, "layer_up_last")
    state.finish()
    network = assembly.finish()
    assert isinstance(network, SegmentationDiscriminator), "built above"
    return network


def _shape(state: ReleaseState) -> ReleaseShape:
    base_width = state.read(
        "base width",
        [
            Place(r"conv_img\.weight", 1),
            Place(rf"body\.{_BLOCKS - 1}\.conv_[01]\.(weight_orig|weight_u|bias)", 0),
            Place(r"body\.0\.conv_[01]\.(weight_orig|weight_u|bias)", 0, 2 ** (_BLOCKS - 2)),
        ],
    )
    convs = r".*\.mlp_shared\.0\.weight"
    channels = state.read("number of map channels", [Place(convs, 1)])
    noise = _NOISE if channels > _NOISE else 0
    config = OasisModel(
        family="oasis",
        base_width=base_width,
        up_blocks=_BLOCKS - 2,
        modulation_width=state.read("modulation width", [Place(convs, 0)]),
        norm="batch",  # the release's sync batch norm in a single process
        spectral_norm=True,
        noise_channels=noise,
        noise="always",
        init_gain=_INIT_GAIN,
    )
    return ReleaseShape(config, channels - noise, (_DEFAULT_SIDE, _DEFAULT_SIDE))
