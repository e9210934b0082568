"""Import of CLADE's released weights: the generator, with or without positions (ICPE) and instance borders."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from pipeline.models.clade import CladeGenerator
from pipeline.models.contract import Generator
from pipeline.models.interop.common import (
    Assembly,
    Place,
    ReleaseShape,
    ReleaseState,
    as_generator,
    fill_trunk,
    read_trunk,
    unknown_last,
)
from pipeline.schema.model_clade import CladeModel, IcpeSection
from pipeline.schema.model_spade import SpadeEncoder

_DEFAULT_START = 8  # pixels: 256 at stride 32; a generator without VAE does not depend on it
_INIT_GAIN = 0.02  # release; of no effect on imported weights
_UNKNOWN_FIRST = (151,)  # classes of ADE20K, whose stored labels the release takes as they are: 0 is "unlabelled"


def read_shape(generator: Mapping[str, Tensor]) -> ReleaseShape:
    """Config and class count of a released CLADE, read off its tensors."""
    return _shape(ReleaseState(generator, "CLADE generator"))


def import_state(generator: Mapping[str, Tensor]) -> Generator:
    """The released CLADE generator on our modules, in eval mode; it starts from the label map.

    Of ADE20K's 151 classes the release has "unlabelled" first; here it is the last one, and rows are moved accordingly.
    """
    state = ReleaseState(generator, "CLADE generator")
    shape = _shape(state)
    cfg = shape.config
    assert isinstance(cfg, CladeModel), "this importer reads CLADE configs"
    if shape.num_classes in _UNKNOWN_FIRST:
        tables = r".*\.class_specified_affine\.(weight|bias)"
        state.reorder({tables: (0, 0), r"fc\.weight": (1, 0)}, unknown_last(shape.num_classes))
    assembly = Assembly(lambda: CladeGenerator(cfg, shape.num_classes, shape.size))
    assembly.layer("start", state, "fc")

    def fill_norm(ours: str, theirs: str) -> None:
        assembly.running_statistics(f"{ours}.norm", state, f"{theirs}.param_free_norm")
        fill_tables(assembly, ours, state, f"{theirs}.class_specified_affine", icpe=cfg.icpe.enabled)
        if cfg.instance_edges:
            assembly.layer(f"{ours}.edge", state, f"{theirs}.inst_conv")

    fill_trunk(assembly, state, cfg.up_blocks, "norm", fill_norm)
    state.finish()
    return as_generator(assembly.finish())


def fill_tables(assembly: Assembly, ours: str, state: ReleaseState, theirs: str, *, icpe: bool) -> None:
    """Scale and shift of every class, and the two convs of the positions."""
    assembly.copy(f"{ours}.weight", state, f"{theirs}.weight")
    assembly.copy(f"{ours}.bias", state, f"{theirs}.bias")
    if icpe:
        assembly.layer(f"{ours}.scale_position", state, f"{theirs}.dist_conv_w")
        assembly.layer(f"{ours}.shift_position", state, f"{theirs}.dist_conv_b")


def _shape(state: ReleaseState) -> ReleaseShape:
    base_width, up_blocks, middle_upsample = read_trunk(state)
    stride = 2 ** (up_blocks + 1 + middle_upsample)
    tables = r".*\.norm_[01s]\.class_specified_affine\.(weight|bias)"
    num_classes = state.read("number of classes", [Place(tables, 0)])
    config = CladeModel(
        family="clade",
        base_width=base_width,
        up_blocks=up_blocks,
        middle_upsample=middle_upsample,
        norm="batch",  # the release's sync batch norm in a single process
        spectral_norm=True,
        icpe=IcpeSection(
            enabled=state.has(r".*\.dist_conv_[wb]\..*"),
            skipped_class=num_classes - 1 if num_classes in _UNKNOWN_FIRST else 0,  # the class stored as 0
            mirror="as_released",
            start="as_released",
        ),
        instance_edges=state.has(r".*\.inst_conv\..*"),
        style="none",
        z_dim=256,
        encoder=SpadeEncoder(size=256, layers=6, width=64),
        noise_channels=0,
        noise="always",
        init_gain=_INIT_GAIN,
    )
    side = _DEFAULT_START * stride
    return ReleaseShape(config, num_classes, (side, side))
