"""Small (CA)²-SIS configs and inputs that several test modules share."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from torch import Tensor

import pipeline
from pipeline.models.ca2sis import Ca2sisGenerator, build
from pipeline.schema.model_ca2sis import Ca2sisModel

CONF = Path(pipeline.__file__).parent / "conf"
RELEASE: dict[str, Any] = yaml.safe_load((CONF / "model" / "ca2sis.yaml").read_text(encoding="utf-8"))
SMALL: dict[str, Any] = {  # three stages, narrow; everything else as released
    "base_width": 4,
    "stages": 3,
    "encoder": {"width": 2, "depth": 3, "pooled_strides": [4, 2], "style_dim": 8},
    "attention": {"heads": 2, "head_width": 8, "last_heads": 2, "last_head_width": 4, "self_attention": [0]},
    "modulation": {"hidden": 8, "style_channels": 4},
    "mapping": {"noise_width": 6, "hidden": 8},
}


def merged(*layers: dict[str, Any]) -> dict[str, Any]:
    """Config values with later layers over earlier ones, section by section."""
    values = copy.deepcopy(RELEASE)
    for layer in layers:
        for key, value in layer.items():
            if isinstance(value, dict):
                values[key].update(value)
            else:
                values[key] = value
    return values


def small(**overrides: Any) -> Ca2sisModel:
    """A small config with overrides, for instance `small(encoder={"grouping": "class"})`."""
    return Ca2sisModel.model_validate(merged(SMALL, overrides))


def make(num_classes: int = 5, size: tuple[int, int] = (16, 24), seed: int = 0, **overrides: Any) -> Ca2sisGenerator:
    """A small generator, seeded, in eval mode, with transformer blocks that do something (released init: zero
    output)."""
    torch.manual_seed(seed)
    generator = build(small(**overrides), num_classes, size)
    for stage in generator.stages:
        torch.nn.init.normal_(stage.transformer.project_out.weight, std=0.2)
    return generator.eval()


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """(N,H,W) int64 -> (N,K,H,W) float32."""
    return F.one_hot(labels, num_classes).permute(0, 3, 1, 2).float().contiguous()


def inputs(
    num_classes: int = 5, size: tuple[int, int] = (16, 24), batch: int = 2, seed: int = 1
) -> tuple[Tensor, Tensor]:
    """Image in [-1,1] and one-hot mask of 4-pixel cells."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(batch, 3, *size, generator=generator) * 2 - 1
    cells = torch.randint(0, num_classes, (batch, -(-size[0] // 4), -(-size[1] // 4)), generator=generator)
    labels = cells.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, : size[0], : size[1]]
    return image, one_hot(labels, num_classes)
