"""Carrying out edit tasks on a generator: the table's rows (`editing.tasks`) turned into pictures.

Styles of named classes can be exchanged only where the style is per class, or per instance, whose rows are classes here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.data.batch import Batch, one_hot
from pipeline.data.layouts import inside, transplanted
from pipeline.editing.cases import Case, picture_name, step_names
from pipeline.editing.tasks import TASKS, Task
from pipeline.models.contract import ComposingGenerator, Generator
from pipeline.models.external import RECONSTRUCTION, ExternalPictures
from pipeline.schema.evaluation import EditTask


@dataclass(frozen=True)
class Edited:
    """Edits of one batch of cases, in their order."""

    image: Tensor  # (N,3,H,W) float32 [-1,1]; of interpolations the last position
    label: Tensor  # (N,H,W) int64: the layout the image was made for
    region: NDArray[np.bool_]  # (N,H,W): where the edit is meant to change something; all true for whole-image tasks
    reconstruction: Tensor  # (N,3,H,W): the content image in its own style and layout
    steps: list[Tensor] = field(default_factory=list)  # of interpolations: images (N,3,H,W) from content to reference


def perform(
    task: EditTask, generator: Generator, content: Batch, reference: Batch, cases: list[Case], *, steps: int, seed: int
) -> Edited:
    """Carry out `task` on a batch of cases.

    `content` and `reference` hold the images of the cases, on the generator's device; where the partner is the content with the
    region removed, the reference is that. `steps`: positions of an interpolation. `seed`: of the noise of sampled styles.
    """
    row = TASKS[task]
    if isinstance(generator, ExternalPictures):
        return _recorded(task, generator, content, reference, cases, steps)
    style = generator.encode_style(content.image, content.mask)
    own = generator.synthesize(content.mask, style, attention=False).image
    label, mask = content.label, content.mask
    region = np.ones(tuple(label.shape), dtype=bool) if row.whole else _regions(label, cases)
    if not row.edits:
        return Edited(own, label, region, own)
    way = torch.linspace(0, 1, steps).tolist()
    if isinstance(generator, ComposingGenerator) and row.style_from != "noise":
        images = _recomposed(row, generator, style, reference, cases, way if row.steps else [1.0])
        if row.shape_from == "reference":
            label, region = _with_shapes(row, content, reference, cases, region)
        return Edited(images[-1], label, region, own, images if row.steps else [])
    if row.style_from == "noise":
        noise = torch.randn(
            len(cases), generator.capabilities.noise_width, generator=torch.Generator().manual_seed(seed)
        ).to(content.image.device)
        aim = generator.sample_style(mask, noise)
    elif row.style_from == "content":
        aim = style
    else:
        other = generator.encode_style(reference.image, reference.mask)
        aim = exchanged(style, other, cases) if row.style_from == "classes" else other
    if row.steps and row.shape_from == "reference":
        first, last = generator.embed_shape(mask), generator.embed_shape(reference.mask)
        images = [
            generator.synthesize_embedded(mask, torch.lerp(first, last, t), style, attention=False).image for t in way
        ]
        label, region = _with_shapes(row, content, reference, cases, region)
        return Edited(images[-1], label, region, own, images)
    if row.steps:
        images = [generator.synthesize(mask, torch.lerp(style, aim, t), attention=False).image for t in way]
        return Edited(images[-1], label, region, own, images)
    if row.shape_from == "reference":
        label, region = _with_shapes(row, content, reference, cases, region)
        mask = one_hot(label, mask.shape[1])
    return Edited(generator.synthesize(mask, aim, attention=False).image, label, region, own)


def _recorded(
    task: EditTask, generator: ExternalPictures, content: Batch, reference: Batch, cases: list[Case], steps: int
) -> Edited:
    """Edits that other code has carried out, with the layouts and regions that they were asked for."""
    row, device = TASKS[task], content.image.device
    own = generator.pictures.read(RECONSTRUCTION, content.keys).to(device)
    label = content.label
    region = np.ones(tuple(label.shape), dtype=bool) if row.whole else _regions(label, cases)
    if not row.edits:
        return Edited(own, label, region, own)
    if row.shape_from == "reference":
        label, region = _with_shapes(row, content, reference, cases, region)
    triples = zip(cases, content.keys, reference.keys, strict=True)
    names = [step_names(task, picture_name(task, *triple), steps) for triple in triples]
    images = [generator.pictures.read(task, step).to(device) for step in zip(*names, strict=True)]
    return Edited(images[-1], label, region, own, images if row.steps else [])


def _recomposed(
    row: Task, generator: ComposingGenerator, style: Tensor, reference: Batch, cases: list[Case], way: list[float]
) -> list[Tensor]:
    """Pictures on the `way` from the content's codes to the edit's, by a family that draws layouts from codes."""
    other = generator.encode_style(reference.image, reference.mask)
    everything = row.whole or row.style_from == "reference"
    classes = None if everything else [case.classes for case in cases]
    aim = generator.exchanged(
        style, other, classes, shape=row.shape_from == "reference", texture=row.style_from != "content"
    )
    return [generator.synthesize(reference.mask, torch.lerp(style, aim, t), attention=False).image for t in way]


def _with_shapes(
    row: Task, content: Batch, reference: Batch, cases: list[Case], region: NDArray[np.bool_]
) -> tuple[Tensor, NDArray[np.bool_]]:
    """Layout and edited region where shapes come from the reference: all of them, or those of each case's classes."""
    if row.whole:
        return reference.label, region
    label = new_layouts(content.label, reference.label, cases)
    return label, region | _regions(label, cases) | (label != content.label).cpu().numpy()


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
