"""Import of SemanticStyleGAN's released weights, the averaged generator.

A released checkpoint holds three networks, two optimisers and an argparse Namespace, and is refused as it is; `python -m pipeline
weights convert` writes the tensors of one of its networks to a file that is read here.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.models.contract import Generator
from pipeline.models.interop.common import Assembly, Place, ReleaseShape, ReleaseState, as_generator
from pipeline.models.semanticstylegan.generator import SemanticStyleGan
from pipeline.schema.model_semanticstylegan import (
    MERGES,
    CodeEncoder,
    SemanticStyleganModel,
    StyleganDiscriminator,
    StyleganObjective,
)

# What a state dict does not tell: the command of the release's README for CelebAMask-HQ, and its trainer's defaults.
_BASE_LAYERS, _DEPTH_LAYERS, _TRANSPARENT = 2, 6, (10, 12)
_MAPPING_LR_FACTOR = 0.01
_OBJECTIVE = StyleganObjective(
    r1_image=10.0, r1_mask=1000.0, r1_every=16, path=0.5, path_every=4, path_decay=0.01, path_batch_share=2,
    mask_regulariser=100.0, style_mixing=0.3,
)  # fmt: skip
_NO_ENCODER = CodeEncoder(width=1, share=0.0, lr=1e-3, code_weight=0.0, mask_weight=0.0)
_CELEBAMASK_CLASSES = 13


def read_shape(generator: Mapping[str, Tensor]) -> ReleaseShape:
    """Config, label count and size of a released SemanticStyleGAN, read off its tensors."""
    return _shape(ReleaseState(generator, "SemanticStyleGAN generator"))


def import_state(generator: Mapping[str, Tensor]) -> Generator:
    """The released SemanticStyleGAN generator (`g_ema`) on our modules, in eval mode, its mean code taken."""
    state = ReleaseState(generator, "SemanticStyleGAN generator")
    shape = _shape(state)
    cfg = shape.config
    assert isinstance(cfg, SemanticStyleganModel), "this importer reads SemanticStyleGAN configs"
    assembly = Assembly(lambda: SemanticStyleGan(cfg, shape.num_classes, shape.size))
    classes = state.count("local_nets.{}.")
    for layer in range(cfg.mapping_layers):
        assembly.layer(f"mapping.layers.{layer}", state, f"style.{layer + 1}")
    assembly.copy("composer.positions.weight", state, "pos_embed.weights", ones=(0, 2))
    for layer in range(cfg.local_layers):
        ours, theirs = f"composer.local.layers.{layer}", f"linears.{layer}"
        every = [f"local_nets.{k}.{theirs}" for k in range(classes)]
        assembly.stack(f"{ours}.weight", state, [f"{key}.conv.weight" for key in every], ones=(1, 2))
        assembly.stack(f"{ours}.bias", state, [f"{key}.activate.bias" for key in every])
        assembly.stack(f"{ours}.to_style", state, [f"{key}.conv.modulation.weight" for key in every])
        assembly.stack(f"{ours}.style_bias", state, [f"{key}.conv.modulation.bias" for key in every])
    for head, name, first in (("to_feature", "to_feat", 0), ("to_depth", "to_depth", 1)):
        every = [f"local_nets.{k}.{name}" for k in range(first, classes)]
        ours = f"composer.local.{head}"
        assembly.stack(f"{ours}.weight", state, [f"{key}.conv.weight" for key in every], ones=(0, 2))
        assembly.stack(f"{ours}.scale", state, [f"{key}.conv.modulation" for key in every], ones=(1, 2))
        assembly.stack(f"{ours}.bias", state, [f"{key}.bias" for key in every], ones=(1, 2))
        for key in every:
            state.ignore(f"{key}.upsample.kernel", (4, 4))
    for conv in range(2 * cfg.stages):
        ours, theirs = f"composer.render.convs.{conv}", f"render_net.convs.{conv}"
        assembly.copy(f"{ours}.weight", state, f"{theirs}.weight")
        assembly.copy(f"{ours}.scale", state, f"{theirs}.modulation", ones=(1, 2))
        assembly.copy(f"{ours}.noise_weight", state, f"{theirs}.noise.weight")
        assembly.copy(f"{ours}.bias", state, f"{theirs}.activate.bias")
        assembly.copy(f"{ours}.noise", state, f"render_net.noises.noise_{conv}")
        if conv % 2 == 0:
            state.ignore(f"{theirs}.blur.kernel", (4, 4))
    for stage in range(cfg.stages):
        for head, name in (("to_image", "to_rgbs"), ("to_mask", "to_segs")):
            ours, theirs = f"composer.render.{head}.{stage}", f"render_net.{name}.{stage}"
            assembly.copy(f"{ours}.weight", state, f"{theirs}.conv.weight", ones=(0, 2))
            assembly.copy(f"{ours}.scale", state, f"{theirs}.conv.modulation", ones=(1, 2))
            assembly.copy(f"{ours}.bias", state, f"{theirs}.bias", ones=(1, 2))
            state.ignore(f"{theirs}.upsample.kernel", (4, 4))
    state.finish()
    assembly.fill("mean_w", torch.zeros(cfg.code_width))
    network = assembly.finish()
    assert isinstance(network, SemanticStyleGan), "built above"
    network.settle()
    return as_generator(network)


def _shape(state: ReleaseState) -> ReleaseShape:
    classes = state.count("local_nets.{}.")
    if classes < 2:
        raise UserError(f"{state.what}: key local_nets.1.linears.0.conv.weight is missing")
    stages = state.count("render_net.to_rgbs.{}.")
    if stages < 2:
        raise UserError(f"{state.what}: key render_net.to_rgbs.1.conv.weight is missing")
    side = state.read("size", [Place(rf"render_net\.noises\.noise_{2 * stages - 1}", 2)])
    width = state.read("local width", [Place(r"local_nets\.\d+\.linears\.\d+\.conv\.weight", 1)])
    code_width = state.read("code width", [Place(r"local_nets\.\d+\.linears\.\d+\.conv\.modulation\.weight", 1)])
    feature_width = state.read("feature width", [Place(r"local_nets\.\d+\.to_feat\.conv\.weight", 0)])
    outs = [state.read("render width", [Place(rf"render_net\.convs\.{2 * n}\.weight", 0)]) for n in range(stages)]
    ins = [state.read("render width", [Place(rf"render_net\.convs\.{2 * n}\.weight", 1)]) for n in range(stages)]
    joined = [n for n in range(1, stages) if ins[n] == outs[n - 1] + feature_width]
    if len(joined) != 1:
        raise UserError(
            f"{state.what}: no stage of render_net takes the fused features once more; is it another network?"
        )
    # Widths are min(max_width, budget // side): the last stage tells the budget where it lies below the cap.
    budget = outs[-1] * side
    config = SemanticStyleganModel(
        family="semanticstylegan",
        merge="celebamask_13" if classes == _CELEBAMASK_CLASSES else "none",
        transparent=tuple(k for k in _TRANSPARENT if classes == _CELEBAMASK_CLASSES),
        code_width=code_width,
        mapping_layers=state.count("style.{}.", first=1),
        mapping_lr_factor=_MAPPING_LR_FACTOR,
        local_width=width,
        local_layers=state.count("local_nets.0.linears.{}."),
        base_layers=_BASE_LAYERS,
        depth_layers=_DEPTH_LAYERS,
        feature_width=feature_width,
        stages=stages,
        coarse_stage=joined[0],
        max_width=max(outs),
        width_budget=budget,
        residual_refine=True,
        detach_texture=False,
        truncation=1.0,
        discriminator=StyleganDiscriminator(max_width=max(outs), width_budget=budget, deviation_group=4),
        objective=_OBJECTIVE,
        encoder=_NO_ENCODER,
    )
    labels = len(MERGES["celebamask_13"]) if classes == _CELEBAMASK_CLASSES else classes
    return ReleaseShape(config, labels, (side, side))
