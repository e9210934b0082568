"""Small generators and inputs for tests of single families: the shipped defaults with small sizes on top.

What every family must do is asked by `test_contract.py`, of whatever is registered; nothing has to be added here for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from torch import Tensor

from pipeline.models.build import build_generator
from pipeline.models.contract import Generator
from pipeline.schema.base import Section
from pipeline.schema.discriminator import DiscriminatorConfig
from pipeline.schema.families import schema_for

CONF = Path(__file__).parents[3] / "pipeline" / "conf" / "model"
SMALL: dict[str, dict[str, Any]] = {
    "spade": {"base_width": 4, "up_blocks": 2, "modulation_width": 8, "z_dim": 8, "init_gain": 1.0},
    "spade_vae": {
        "base_width": 4,
        "up_blocks": 2,
        "modulation_width": 8,
        "z_dim": 8,
        "init_gain": 1.0,
        "style": "vae",
        "encoder": {"size": 16, "layers": 2, "width": 4},
    },
    "sean": {
        "base_width": 4,
        "up_blocks": 2,
        "modulation_width": 8,
        "style_dim": 8,
        "encoder_width": 4,
        "init_gain": 1.0,
    },
    "painter": {},
    "clade": {"base_width": 4, "up_blocks": 2, "z_dim": 8, "init_gain": 1.0},
    "clade_icpe": {
        "base_width": 4,
        "up_blocks": 2,
        "z_dim": 8,
        "init_gain": 1.0,
        "icpe": {"enabled": True, "skipped_class": None, "mirror": "fixed", "start": "as_released"},
    },
    "clade_vae": {
        "base_width": 4,
        "up_blocks": 2,
        "z_dim": 8,
        "init_gain": 1.0,
        "style": "vae",
        "encoder": {"size": 16, "layers": 2, "width": 4},
        "instance_edges": True,
    },
    "inade": {
        "base_width": 4,
        "up_blocks": 2,
        "noise_width": 3,
        "z_dim": 8,
        "start_noise": "train",
        "encoder": {"width": 4, "layers": 2},
        "init_gain": 1.0,
    },
    "oasis": {"base_width": 4, "up_blocks": 2, "modulation_width": 8, "noise_channels": 3, "init_gain": 1.0},
    "scam": {
        "base_width": 4,
        "up_blocks": 2,
        "latents": 2,
        "background_latents": 1,
        "style_dim": 6,
        "attention_width": 4,
        "heads": 2,
        "noise": "train",
        "encoder": {
            "width": 4,
            "blocks": 3,
            "pyramid": True,
            "coarse_to_fine": False,
            "positional_width": 4,
            "self_attention": True,
            "attention_width": 4,
            "heads": 1,
            "self_heads": 2,
        },
    },
    "semanticstylegan": {
        "merge": "none",
        "transparent": (),
        "code_width": 8,
        "mapping_layers": 2,
        "local_width": 4,
        "local_layers": 5,
        "depth_layers": 3,
        "feature_width": 8,
        "stages": 2,
        "coarse_stage": 1,
        "max_width": 8,
        "width_budget": 256,
        "discriminator": {"max_width": 8, "width_budget": 256, "deviation_group": 2},
        "encoder": {"width": 4, "share": 0.0, "lr": 1e-3, "code_weight": 1.0, "mask_weight": 1.0},
    },
    "maskgan": {
        "base_width": 4,
        "downsamplings": 2,
        "blocks": 2,
        "encoder": {"width": 4, "middle": 1},
        "init_gain": 1.0,
    },
}
TRUNK_CANCELLED = {  # of the trunk with two `up_blocks`: biases that the next parameter-free normalisation takes away
    "start.bias",  # where it is a convolution of the map
    *(f"trunk.{block}.conv_{index}.bias" for block in ("head", "middle_0", "middle_1", "up.0") for index in (0, 1)),
    "trunk.up.1.conv_0.bias",
}
DISCRIMINATOR = DiscriminatorConfig(scales=2, layers=3, width=8, spectral_norm=True, norm="instance", init_gain=1.0)


def small_config(name: str, **changes: Any) -> Section:
    """The config of `name` (a key of `SMALL`) with `changes`."""
    family = name.split("_")[0]
    values = {**yaml.safe_load((CONF / f"{family}.yaml").read_text()), **SMALL[name], **changes}
    return schema_for(family).model_validate(values)


def small_generator(
    name: str, num_classes: int = 5, size: tuple[int, int] = (16, 16), seed: int = 0, **changes: Any
) -> Generator:
    """A small generator with weights drawn from `seed`."""
    torch.manual_seed(seed)
    return build_generator(small_config(name, **changes), num_classes, size)


def random_inputs(
    num_classes: int = 5, size: tuple[int, int] = (16, 16), batch: int = 2, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Image (N,3,H,W) in [-1,1] and a one-hot mask (N,K,H,W) of cells of 2x2 pixels."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(batch, 3, *size, generator=generator) * 2 - 1
    labels = torch.randint(0, num_classes, (batch, size[0] // 2, size[1] // 2), generator=generator)
    return image, one_hot(labels.repeat_interleave(2, 1).repeat_interleave(2, 2), num_classes)


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """(N,H,W) integers -> (N,K,H,W) float32."""
    return F.one_hot(labels, num_classes).permute(0, 3, 1, 2).float().contiguous()


def parameters_without_gradient(generator: torch.nn.Module, loss: Tensor) -> set[str]:
    """Names of the parameters that `loss` cannot move: no gradient, or nothing but rounding.

    A bias in front of a normalisation is cancelled by it, through a 1x1 shortcut too. What float32 leaves of its gradient is 5e-7
    of the largest in the network or less, by chance 0; the smallest that means something is 5e-5 of it.
    """
    loss.backward()  # type: ignore[no-untyped-call]
    largest = {key: 0.0 if p.grad is None else float(p.grad.abs().max()) for key, p in generator.named_parameters()}
    return {key for key, size in largest.items() if not size > 5e-6 * max(largest.values())}
