"""The edit tasks on a generator (paper: style transfer, shape transfer, interpolation, multimodal generation).

Tasks ask for capabilities, never for family names. Styles of named classes can be exchanged only where the style is per class,
or per instance, whose rows are classes here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.data.batch import Batch, one_hot
from pipeline.editing.cases import Case
from pipeline.editing.layouts import inside, transplanted
from pipeline.models.contract import Capabilities, Generator
from pipeline.schema.evaluation import EditTask

SHAPE_TASKS = ("shape_transfer", "style_and_shape_transfer")
CLASS_STYLE_TASKS = ("style_transfer", "style_and_shape_transfer", "style_interpolation")
INTERPOLATIONS = ("style_interpolation", "shape_interpolation")


@dataclass(frozen=True)
class Edited:
    """Edits of one batch of cases, in their order."""

    image: Tensor  # (N,3,H,W) float32 [-1,1]; of interpolations the last position
    label: Tensor  # (N,H,W) int64: the layout the image was made for
    region: NDArray[np.bool_]  # (N,H,W): where the edit is meant to change something; all true for whole-image tasks
    reconstruction: Tensor  # (N,3,H,W): the content image in its own style and layout
    steps: list[Tensor] = field(default_factory=list)  # of interpolations: images (N,3,H,W) from content to reference


def refusal(task: EditTask, capabilities: Capabilities) -> str:
    """Why a family cannot do a task, "" when it can."""
    if task in CLASS_STYLE_TASKS and capabilities.style not in ("per_class", "per_instance"):
        return "the family has no style per class"
    if task in ("global_style_transfer", "absent_style") and capabilities.style == "none":
        return "the family takes no style from an image"
    if task == "shape_interpolation" and not capabilities.shape_embedding:
        return "the family has no shape embedding"
    if task == "sampling" and not capabilities.sampling:
        return "the family does not sample styles"
    return ""


def perform(
    task: EditTask, generator: Generator, content: Batch, reference: Batch, cases: list[Case], *, steps: int, seed: int
) -> Edited:
    """Carry out `task` on a batch of cases.

    `content` and `reference` hold the images of the cases, on the generator's device; for absent_style the reference is the
    content with the classes taken out. `steps`: positions of an interpolation. `seed`: of the noise of sampling.
    """
    style = generator.encode_style(content.image, content.mask)
    own = generator.synthesize(content.mask, style, attention=False).image
    if task == "reconstruct":
        return Edited(own, content.label, _everywhere(content), own)
    if task == "sampling":
        noise = torch.randn(
            len(cases), generator.capabilities.noise_width, generator=torch.Generator().manual_seed(seed)
        ).to(content.image.device)
        sampled = generator.sample_style(content.mask, noise)
        image = generator.synthesize(content.mask, sampled, attention=False).image
        return Edited(image, content.label, _everywhere(content), own)
    if task == "shape_interpolation":
        first, last = generator.embed_shape(content.mask), generator.embed_shape(reference.mask)
        images = [
            generator.synthesize_embedded(content.mask, torch.lerp(first, last, t), style, attention=False).image
            for t in torch.linspace(0, 1, steps).tolist()
        ]
        return Edited(images[-1], reference.label, _everywhere(content), own, images)
    other = generator.encode_style(reference.image, reference.mask)
    if task in ("global_style_transfer", "absent_style"):
        image = generator.synthesize(content.mask, other, attention=False).image
        region = _everywhere(content) if task == "global_style_transfer" else _regions(content.label, cases)
        return Edited(image, content.label, region, own)
    mixed = exchanged(style, other, cases) if task in CLASS_STYLE_TASKS else style
    if task == "style_interpolation":
        images = [
            generator.synthesize(content.mask, torch.lerp(style, mixed, t), attention=False).image
            for t in torch.linspace(0, 1, steps).tolist()
        ]
        return Edited(images[-1], content.label, _regions(content.label, cases), own, images)
    label, region = content.label, _regions(content.label, cases)
    if task in SHAPE_TASKS:
        label = new_layouts(content.label, reference.label, cases)
        region = region | _regions(label, cases) | (label != content.label).cpu().numpy()
    mask = one_hot(label, content.mask.shape[1])
    return Edited(generator.synthesize(mask, mixed, attention=False).image, label, region, own)


def exchanged(style: Tensor, other: Tensor, cases: list[Case]) -> Tensor:
    """Per-class styles (N,K,S) with the codes of each case's classes taken from `other` (N,K,S)."""
    mixed = style.clone()
    for i, case in enumerate(cases):
        classes = list(case.classes)
        mixed[i, classes] = other[i, classes]
    return mixed


def new_layouts(label: Tensor, donor: Tensor, cases: list[Case]) -> Tensor:
    """(N,H,W) int64 layouts with each case's classes in the donor's shape."""
    maps = [
        transplanted(a, b, case.classes)
        for a, b, case in zip(label.cpu().numpy(), donor.cpu().numpy(), cases, strict=True)
    ]
    return torch.from_numpy(np.stack(maps)).to(label.device)


def _regions(label: Tensor, cases: list[Case]) -> NDArray[np.bool_]:
    maps = label.cpu().numpy()
    return np.stack([inside(one, case.classes) for one, case in zip(maps, cases, strict=True)])


def _everywhere(batch: Batch) -> NDArray[np.bool_]:
    return np.ones(tuple(batch.label.shape), dtype=bool)
