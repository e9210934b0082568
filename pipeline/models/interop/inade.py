"""Import of INADE's released weights: the generator, and the instance encoder of V-INADE (a second file)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from pipeline.errors import UserError
from pipeline.models.contract import Generator
from pipeline.models.inade import InadeGenerator
from pipeline.models.interop.common import (
    Assembly,
    Place,
    ReleaseShape,
    ReleaseState,
    as_generator,
    fill_trunk,
    read_start_size,
    read_trunk,
)
from pipeline.schema.model_inade import InadeModel, InstanceEncoderSection

_HEADS = ("scale_conv_mu", "bias_conv_mu", "scale_conv_var", "bias_conv_var")  # as the channels of our one conv
_INIT_GAIN = 0.02  # release; of no effect on imported weights


def read_shape(generator: Mapping[str, Tensor], *, encoder: Mapping[str, Tensor] | None = None) -> ReleaseShape:
    """Config, class count and size of a released INADE, read off its tensors; with `encoder` it is V-INADE."""
    state = ReleaseState(generator, "INADE generator")
    return _shape(state, None if encoder is None else ReleaseState(encoder, "INADE instance encoder"))


def import_state(generator: Mapping[str, Tensor], *, encoder: Mapping[str, Tensor] | None = None) -> Generator:
    """The released INADE generator on our modules, in eval mode; with its `encoder` it is V-INADE."""
    state = ReleaseState(generator, "INADE generator")
    encoder_state = None if encoder is None else ReleaseState(encoder, "INADE instance encoder")
    shape = _shape(state, encoder_state)
    cfg = shape.config
    assert isinstance(cfg, InadeModel), "this importer reads INADE configs"
    assembly = Assembly(lambda: InadeGenerator(cfg, shape.num_classes, shape.size))
    assembly.layer("start", state, "fc")

    def fill_norm(ours: str, theirs: str) -> None:
        assembly.running_statistics(f"{ours}.norm", state, f"{theirs}.param_free_norm")
        assembly.copy(f"{ours}.weight", state, f"{theirs}.weight")
        assembly.copy(f"{ours}.bias", state, f"{theirs}.bias")
        assembly.layer(f"{ours}.project", state, f"{theirs}.fc_noise")

    fill_trunk(assembly, state, cfg.up_blocks, "norm", fill_norm)
    state.finish()
    if encoder_state is not None:
        for layer in range(cfg.encoder.layers):
            assembly.layer(f"encoder.down.{layer}", encoder_state, f"layer{layer + 1}")
        assembly.layer("encoder.middle", encoder_state, "middle")
        for layer in range(cfg.encoder.layers - 1):
            assembly.layer(f"encoder.up.{layer}", encoder_state, f"up{layer + 1}")
        for name in ("weight", "bias"):
            assembly.join(f"encoder.heads.{name}", encoder_state, [f"{head}.{name}" for head in _HEADS])
        encoder_state.finish()
    return as_generator(assembly.finish())


def _shape(state: ReleaseState, encoder: ReleaseState | None) -> ReleaseShape:
    base_width, up_blocks, middle_upsample = read_trunk(state)
    stride = 2 ** (up_blocks + 1 + middle_upsample)
    start = read_start_size(state, base_width * 2**up_blocks)
    norms = r".*\.norm_[01s]"
    config = InadeModel(
        family="inade",
        base_width=base_width,
        up_blocks=up_blocks,
        middle_upsample=middle_upsample,
        norm="batch",  # the release's sync batch norm in a single process
        spectral_norm=True,
        style="none" if encoder is None else "vae",
        noise_width=state.read("noise width", [Place(rf"{norms}\.fc_noise\.weight", 1)]),
        z_dim=state.read("start noise width", [Place(r"fc\.weight", 1)]),
        start_noise="always",
        encoder=InstanceEncoderSection(width=64, layers=4) if encoder is None else _encoder(encoder),
        init_gain=_INIT_GAIN,
        style_gain=1.0,
    )
    num_classes = state.read("number of classes", [Place(rf"{norms}\.(weight|bias)", 0)])
    return ReleaseShape(config, num_classes, (start[0] * stride, start[1] * stride))


def _encoder(state: ReleaseState) -> InstanceEncoderSection:
    layers = state.count("layer{}.", first=1)
    if layers < 2:
        raise UserError(f"{state.what}: key layer{layers + 1}.weight is missing")
    places = [Place(rf"layer{n}\.(weight|bias)", 0, 2 ** (n - 1)) for n in range(1, layers + 1)]
    return InstanceEncoderSection(width=state.read("width", places), layers=layers)
