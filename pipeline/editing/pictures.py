"""Edits of an evaluation's sample images as pictures: the same cases for every family, so that arms stand side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.data.batch import image_array
from pipeline.editing.cases import choose_cases
from pipeline.editing.scoring import load_case_batches
from pipeline.editing.tasks import perform, refusal
from pipeline.editing.truth import renderer_of
from pipeline.metrics.context import Context
from pipeline.schema.evaluation import EditTask


@dataclass(frozen=True)
class EditPicture:
    """One edit of a sample image."""

    index: int  # of the content image within the data set
    task: EditTask
    region: str  # class group or class that was edited, or "all"
    picture: NDArray[np.uint8]  # (H,W,3)
    layout: NDArray[np.integer]  # (H,W) class ids the picture was made for
    reference: NDArray[np.uint8] | None  # (H,W,3) where style or shape came from; None for tasks of one image
    truth: NDArray[np.uint8] | None  # (H,W,3) the ground-truth edit, where the renderer is known


def edit_pictures(context: Context, contents: Sequence[int]) -> Iterator[EditPicture]:
    """The protocol's edit tasks on the images `contents`, at most one case a task and image; none for tasks that the family
    refuses. Cases depend on protocol and data alone."""
    dataset, cfg = context.dataset, context.protocol.editing
    renderer = renderer_of(dataset, context.cache)
    for task in cfg.tasks:
        if refusal(task, context.generator.capabilities):
            continue
        cases = choose_cases(task, cfg, dataset, context.total, contents=contents)
        if not cases:
            continue
        content, reference = load_case_batches(task, dataset, cases, renderer, context.device)
        edited = perform(task, context.generator, content, reference, cases, steps=cfg.steps, seed=cfg.seed)
        pictures, references = image_array(edited.image), image_array(reference.image)
        layouts = edited.label.cpu().numpy()
        truths = None if renderer is None else renderer.truths(task, cases, layouts)
        for i, case in enumerate(cases):
            other = case.content != case.reference or task == "absent_style"
            truth = None if truths is None else truths[i]
            yield EditPicture(
                case.content, task, case.region, pictures[i], layouts[i], references[i] if other else None, truth
            )
