"""The batches that edit cases work on: content and reference images, classes taken out where a task asks for it."""

from __future__ import annotations

import numpy as np
import torch

from pipeline.data.batch import Batch, collate
from pipeline.data.layouts import filled, inside, nearest_outside
from pipeline.data.types import Dataset, Sample
from pipeline.editing.cases import Case
from pipeline.editing.tasks import TASKS
from pipeline.editing.truth import Renderer
from pipeline.schema.evaluation import EditTask


def load_case_batches(
    task: EditTask, dataset: Dataset, cases: list[Case], renderer: Renderer | None, device: torch.device
) -> tuple[Batch, Batch]:
    """Content and reference images of `cases`; a removed partner is the content with the case's classes taken out."""
    classes = dataset.label_space.num_classes
    contents = [dataset[case.content] for case in cases]
    if TASKS[task].partner == "removed":
        references = _without(task, contents, cases, renderer)
    else:
        references = [dataset[case.reference] for case in cases]
    return collate(contents, classes).to(device), collate(references, classes).to(device)


def _without(task: EditTask, samples: list[Sample], cases: list[Case], renderer: Renderer | None) -> list[Sample]:
    """Content images without their case's classes: drawn anew by a renderer, else the colours of the nearest pixels outside."""
    holes = [inside(sample.label, case.classes) for sample, case in zip(samples, cases, strict=True)]
    labels = np.stack([filled(sample.label, hole) for sample, hole in zip(samples, holes, strict=True)])
    if renderer is not None:
        images = renderer.redrawn(task, cases, labels)
    else:
        nearest = [nearest_outside(hole) for hole in holes]
        images = np.stack([sample.image[at[0], at[1]] for sample, at in zip(samples, nearest, strict=True)])
    return [
        Sample(image, label, sample.key, None) for image, label, sample in zip(images, labels, samples, strict=True)
    ]
