"""Pictures of an evaluation's first images, as PNG files with an index that figures are built from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.data.batch import image_array
from pipeline.data.label_spaces import LabelSpace
from pipeline.editing.batches import load_case_batches
from pipeline.editing.cases import choose_cases
from pipeline.editing.perform import perform
from pipeline.editing.tasks import TASKS, refusal
from pipeline.editing.truth import renderer_of
from pipeline.evaluation.context import Context
from pipeline.evaluation.view import View
from pipeline.metrics import reconstruction
from pipeline.models.head_maps import level_names
from pipeline.records import atomic
from pipeline.schema.evaluation import EditTask

SAMPLE_COUNT = 8
EDIT_COUNT = 4  # of these, so many are edited as well
OVERLAY = 0.55  # weight of the class colour over the picture in attention overlays


class SampleWriter:
    """Writes `<index>_{style,mask,target,output}.png`, `<index>_{attention,classes}_<level>.png`, edits, and `index.json`.

    The index: `{"items": [{"index", "key", "psnr", "files": {"style", "mask", "target", "output", "attention": [...],
    "attention_classes": [...]}, "edits": [{"task", "region", "file", "layout", "reference", "truth"}]}]}`; reference and
    truth only where there is one. Masks, layouts and attention classes (strongest class by pixel, at the level's own
    resolution) are palette images: index = class, colour = the class's; `attention` are the same laid over the output.
    """

    def __init__(self, folder: Path, space: LabelSpace, count: int = SAMPLE_COUNT) -> None:
        self.folder = folder
        self.space = space
        self.count = count
        self.items: list[dict[str, Any]] = []

    def add(self, view: View) -> None:
        """Write the images of a batch that are among the first `count`."""
        wanted = min(len(view.batch.keys), self.count - view.first_index)
        if wanted <= 0:
            return
        psnr = reconstruction.psnr(view.output, view.target).tolist()
        target, output = view.target.uint8(), view.output.uint8()
        labels = view.label.cpu().numpy()
        names = level_names(logits.shape[-2] for logits in view.attention)
        for i in range(wanted):
            index = view.first_index + i
            files: dict[str, Any] = {
                "style": self._write(f"{index:04d}_style.png", target[i]),
                "mask": self._write_classes(f"{index:04d}_mask.png", labels[i]),
                "target": self._write(f"{index:04d}_target.png", target[i]),
                "output": self._write(f"{index:04d}_output.png", output[i]),
                "attention": [],
                "attention_classes": [],
            }
            for name, logits in zip(names, view.attention, strict=True):
                classes = logits[i].argmax(dim=0).cpu().numpy()
                overlay = self._overlay(output[i], classes)
                files["attention"].append(self._write(f"{index:04d}_attention_{name}.png", overlay))
                files["attention_classes"].append(self._write_classes(f"{index:04d}_classes_{name}.png", classes))
            key, score = view.batch.keys[i], round(psnr[i], 4)
            self.items.append({"index": index, "key": key, "psnr": score, "files": files, "edits": []})

    def add_edit(self, edit: EditPicture) -> None:
        """Write an edit of an image that was added before."""
        item = next(item for item in self.items if item["index"] == edit.index)
        stem = f"{edit.index:04d}_{edit.task}"
        files = {
            "file": self._write(f"{stem}.png", edit.picture),
            "layout": self._write_classes(f"{stem}_layout.png", edit.layout),
        }
        if edit.reference is not None:
            files["reference"] = self._write(f"{stem}_reference.png", edit.reference)
        if edit.truth is not None:
            files["truth"] = self._write(f"{stem}_truth.png", edit.truth)
        item["edits"].append({"task": edit.task, "region": edit.region, **files})

    def finish(self) -> None:
        """Write the index."""
        atomic.write_json(self.folder / "index.json", {"items": self.items})

    def _overlay(self, picture: NDArray[np.uint8], classes: NDArray[np.integer]) -> NDArray[np.uint8]:
        """Class colours of an attention argmax (h,w), enlarged to the picture (H,W,3) and laid over it."""
        colours = Image.fromarray(self.space.colours(classes)).resize(picture.shape[1::-1], Image.Resampling.NEAREST)
        mixed = OVERLAY * np.asarray(colours, dtype=np.float32) + (1 - OVERLAY) * picture
        return (mixed + 0.5).astype(np.uint8)

    def _write(self, name: str, picture: NDArray[np.uint8]) -> str:
        write_png(self.folder / name, picture)
        return name

    def _write_classes(self, name: str, classes: NDArray[np.integer]) -> str:
        write_classes(self.folder / name, classes, self.space)
        return name


def write_classes(path: Path, classes: NDArray[np.integer], space: LabelSpace) -> None:
    """Write (H,W) class indices as a palette PNG, atomically; as colours where a byte cannot hold the classes."""
    if len(space.palette) > 256:
        write_png(path, space.colours(classes))
        return
    image = Image.fromarray(classes.astype(np.uint8))
    image.putpalette(np.asarray(space.palette, dtype=np.uint8).tobytes())
    _save(path, image)


def write_png(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write (H,W,3) uint8 as PNG, atomically."""
    _save(path, Image.fromarray(picture))


def _save(path: Path, image: Image.Image) -> None:
    atomic.write_with(path, lambda file: image.save(file, format="PNG"), durable=False)


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
    """The protocol's edit tasks on the images `contents`, at most one case a task and image.

    None for tasks that the family refuses. Cases depend on protocol and data alone.
    """
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
            other = None if TASKS[task].partner == "none" else references[i]
            truth = None if truths is None else truths[i]
            yield EditPicture(case.content, task, case.region, pictures[i], layouts[i], other, truth)
