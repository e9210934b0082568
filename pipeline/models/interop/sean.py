"""Import of SEAN's released weights ("ACE" in the release's keys is the SEAN block here)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from pipeline.models.contract import Generator
from pipeline.models.interop.common import (
    Assembly,
    Place,
    ReleaseShape,
    ReleaseState,
    as_generator,
    fill_trunk,
    read_mask_branch,
    read_trunk,
)
from pipeline.models.interop.spade import fill_mask_branch
from pipeline.models.sean import SeanGenerator
from pipeline.schema.model_sean import SeanModel

_ENCODER = {
    "conv_in": 1,
    "down_0": 4,
    "down_1": 7,
    "up": 10,
    "conv_out": 14,
}  # our layer -> place in the release's Sequential
_START = 8  # pixels: 256 at stride 32, the release's default; the network does not depend on it
_INIT_GAIN = 0.02  # release; of no effect on imported weights


def read_shape(generator: Mapping[str, Tensor]) -> ReleaseShape:
    """Config, class count and size of a released SEAN, read off its tensors."""
    return _shape(ReleaseState(generator, "SEAN generator"))


def import_state(generator: Mapping[str, Tensor]) -> Generator:
    """The released SEAN generator on our modules, in eval mode."""
    state = ReleaseState(generator, "SEAN generator")
    shape = _shape(state)
    cfg = shape.config
    assert isinstance(cfg, SeanModel), "this importer reads SEAN configs"
    assembly = Assembly(lambda: SeanGenerator(cfg, shape.num_classes, shape.size))
    assembly.layer("start", state, "fc")
    for ours, place in _ENCODER.items():
        assembly.layer(f"encoder.{ours}", state, f"Zencoder.model.{place}")

    def fill_norm(ours: str, theirs: str) -> None:
        last = theirs.startswith(f"up_{cfg.up_blocks - 1}.")
        _fill_block(assembly, state, ours, theirs, shape.num_classes, styled=cfg.style_in_last_block or not last)

    fill_trunk(assembly, state, cfg.up_blocks, "ace", fill_norm)
    state.finish()
    return as_generator(assembly.finish())


def _fill_block(
    assembly: Assembly, state: ReleaseState, ours: str, theirs: str, num_classes: int, *, styled: bool
) -> None:
    assembly.running_statistics(f"{ours}.norm", state, f"{theirs}.param_free_norm")
    assembly.copy(f"{ours}.noise_scale", state, f"{theirs}.noise_var")
    fill_mask_branch(assembly, f"{ours}.modulation", state, f"{theirs}.Spade")
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        # The release normalises outside the mask branch, whose own norm never runs.
        state.ignore(f"{theirs}.Spade.param_free_norm.{name}", assembly.shape(f"{ours}.norm.{name}"))
    if not styled:
        state.ignore(f"{theirs}.blending_gamma", (1,))  # with one branch there is nothing to blend
        state.ignore(f"{theirs}.blending_beta", (1,))
        return
    assembly.copy(f"{ours}.blend_gamma", state, f"{theirs}.blending_gamma")
    assembly.copy(f"{ours}.blend_beta", state, f"{theirs}.blending_beta")
    linear = [f"{theirs}.fc_mu{class_id}" for class_id in range(num_classes)]
    assembly.stack(f"{ours}.style_modulation.class_weight", state, [f"{key}.weight" for key in linear])
    assembly.stack(f"{ours}.style_modulation.class_bias", state, [f"{key}.bias" for key in linear])
    assembly.layer(f"{ours}.style_modulation.gamma", state, f"{theirs}.conv_gamma")
    assembly.layer(f"{ours}.style_modulation.beta", state, f"{theirs}.conv_beta")


def _shape(state: ReleaseState) -> ReleaseShape:
    base_width, up_blocks, middle_upsample = read_trunk(state)
    modulation_width, num_classes = read_mask_branch(state)
    style_places = [Place(r"Zencoder\.model\.14\.(weight|bias)", 0), Place(r".*\.conv_(gamma|beta)\.weight", 1)]
    width_places = [Place(r"Zencoder\.model\.1\.(weight|bias)", 0), Place(r"Zencoder\.model\.4\.weight", 1)]
    config = SeanModel(
        family="sean",
        base_width=base_width,
        up_blocks=up_blocks,
        middle_upsample=middle_upsample,
        modulation_width=modulation_width,
        style_dim=state.read("style width", style_places),
        encoder_width=state.read("encoder width", width_places),
        style_in_last_block=state.count(f"up_{up_blocks - 1}.ace_{{}}.conv_gamma") > 0,
        noise="always",
        norm="batch",  # the release's sync batch norm in a single process
        spectral_norm=True,
        init_gain=_INIT_GAIN,
    )
    side = _START * 2 ** (up_blocks + 1 + middle_upsample)
    return ReleaseShape(config, num_classes, (side, side))
