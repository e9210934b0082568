"""Picture grids of edit tasks: one row a case, columns from the content image to the edit and, where there is one, its truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pipeline.data.batch import image_array
from pipeline.data.types import Dataset
from pipeline.editing.batches import load_case_batches
from pipeline.editing.cases import WHOLE, Case
from pipeline.editing.perform import perform
from pipeline.editing.tasks import TASKS
from pipeline.editing.truth import renderer_of
from pipeline.models.contract import Generator
from pipeline.schema.evaluation import EditTask

GAP = 4  # pixels between cells
CAPTION = 14  # pixels of a caption line
Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Grid:
    """A picture and what its columns are."""

    picture: Picture  # (H,W,3)
    columns: tuple[str, ...]


def edit_grid(
    task: EditTask,
    generator: Generator,
    dataset: Dataset,
    cases: list[Case],
    *,
    device: torch.device,
    steps: int,
    seed: int,
    cell: int,
) -> Grid:
    """Carry out `task` on `cases` (at least one) and lay the pictures out, each enlarged to `cell` pixels in height.

    `steps`: positions of an interpolation, or samples of a layout.
    """
    row, renderer = TASKS[task], renderer_of(dataset)
    content, reference = load_case_batches(task, dataset, cases, renderer, device)
    with torch.no_grad():
        edited = perform(task, generator, content, reference, cases, steps=steps, seed=seed)
    labels = edited.label.cpu().numpy()
    columns: dict[str, list[Picture]] = {"content": list(image_array(content.image))}
    if row.partner != "none":
        columns["reference"] = list(image_array(reference.image))
    columns["layout"] = [dataset.label_space.colours(label) for label in labels]
    columns["reconstruction"] = list(image_array(edited.reconstruction))
    if edited.steps:
        for number, step in enumerate(edited.steps):
            columns[f"{number / (len(edited.steps) - 1):.0%} reference"] = list(image_array(step))
    elif row.style_from == "noise":
        columns["sample 1"] = list(image_array(edited.image))
        for number in range(1, steps):
            with torch.no_grad():
                more = perform(task, generator, content, reference, cases, steps=steps, seed=seed + number)
            columns[f"sample {number + 1}"] = list(image_array(more.image))
    elif row.edits:
        columns["edit"] = list(image_array(edited.image))
    truths = None if renderer is None else renderer.truths(task, cases, labels)
    if truths is not None and row.edits:
        columns["ground truth"] = list(truths)
    rows = [[pictures[i] for pictures in columns.values()] for i in range(len(cases))]
    captions = [content.keys[i] + ("" if case.region == WHOLE else f", {case.region}") for i, case in enumerate(cases)]
    return Grid(compose(rows, tuple(columns), captions, cell), tuple(columns))


def compose(rows: list[list[Picture]], headings: tuple[str, ...], captions: list[str], cell: int) -> Picture:
    """(H,W,3) uint8 sheet of equally sized pictures with headings above the columns and a caption under each row."""
    height, width = rows[0][0].shape[:2]
    wide = max(1, round(cell * width / height))
    sheet = Image.new(
        "RGB",
        (len(headings) * (wide + GAP) + GAP, CAPTION + GAP + len(rows) * (cell + CAPTION + GAP)),
        (255, 255, 255),
    )
    draw = ImageDraw.Draw(sheet)
    for column, heading in enumerate(headings):
        draw.text((GAP + column * (wide + GAP), 1), heading, fill=(0, 0, 0))
    for row, pictures in enumerate(rows):
        top = CAPTION + GAP + row * (cell + CAPTION + GAP)
        for column, picture in enumerate(pictures):
            enlarged = Image.fromarray(picture).resize((wide, cell), Image.Resampling.NEAREST)
            sheet.paste(enlarged, (GAP + column * (wide + GAP), top))
        draw.text((GAP, top + cell + 1), captions[row], fill=(90, 90, 90))
    return np.asarray(sheet)
