"""A finished run in a program's hands: its network, its data, its numbers, and pictures from photos and label maps.

`from pipeline import load_run` gives one. Photos are PIL images or (H,W,3) uint8 arrays, label maps palette or grey images or (H,W)
arrays of class indices; what does not fit is refused by name. Pictures come out as PIL images, which a notebook shows by itself.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pipeline.data import Dataset, Sample, Split, build_dataset
from pipeline.data.batch import Batch, collate, image_array
from pipeline.data.label_spaces import LabelSpace, recorded_space
from pipeline.data.reading import LABEL_MODES, PHOTO_MODES
from pipeline.data.transforms import resize_image, resize_label, source_box
from pipeline.editing.cases import WHOLE, Case
from pipeline.editing.perform import perform
from pipeline.editing.tasks import refusal
from pipeline.errors import UserError
from pipeline.evaluation.inversion import inverting
from pipeline.models.contract import Generator
from pipeline.records import RunRecord
from pipeline.records.store import SHORT_ID
from pipeline.runs.checkpoint import finished_run
from pipeline.schema.evaluation import EditTask
from pipeline.schema.families import family_of
from pipeline.schema.run import RunConfig

Photo = Image.Image | NDArray[np.uint8]
Labels = Image.Image | NDArray[np.integer]
SHAPES_AGREE = 0.01  # by which the aspects of a photo and its label map may differ
METRIC_COLUMNS = ("name", "value", "unit", "n", "split", "protocol", "state", "status", "reason", "fingerprint")


class LoadedRun:
    """A finished run: `generator`, `config`, `space` (its classes), `metrics`, `data(split)`, and what it draws."""

    def __init__(self, record: RunRecord, generator: Generator, config: RunConfig, device: torch.device) -> None:
        self.record, self.config, self.device = record, config, device
        self.generator = inverting(generator, config.protocol, device)
        self.space: LabelSpace = recorded_space(record.provenance["data"])

    @classmethod
    def find(cls, out: Path, run: str) -> LoadedRun:
        """The finished run of `out` whose id begins with `run`; UserError where there is none."""
        return cls(*finished_run(out, run))

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the pictures."""
        return self.config.data.hw

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """Every recorded number, one a row, with what says what it is: columns `METRIC_COLUMNS`."""
        rows = [[vars(row)[name] for name in METRIC_COLUMNS] for row in self.record.metrics]
        return pd.DataFrame(rows, columns=list(METRIC_COLUMNS))

    def data(self, split: Split = "test") -> Dataset:
        """The run's data set of `split`; UserError where its photos are not here."""
        return build_dataset(self.config.data, split, self.record.cache)

    def example(self, index: int = 0, split: Split = "test") -> Example:
        """Sample `index` of a split as photo and label map."""
        dataset = self.data(split)
        if not 0 <= index < len(dataset):
            raise UserError(f"example {index}: the split {split} has the samples 0 to {len(dataset) - 1}")
        sample = dataset[index]
        return Example(sample.key, Image.fromarray(sample.image), sample.label, self.coloured(sample.label))

    def coloured(self, label: Labels) -> Image.Image:
        """A label map in the colours of its classes."""
        return Image.fromarray(self.space.colours(self._ids(label, "label")))

    def style(self, photo: Photo, label: Labels) -> Tensor:
        """The style of a photo, for `draw`: what the family's `encode_style` gives."""
        batch = self._batch(photo, label, "photo", "label")
        with self._drawing():
            return self.generator.encode_style(batch.image, batch.mask)

    def draw(self, label: Labels, style: Tensor) -> Image.Image:
        """The layout `label` in a `style`."""
        blank = np.zeros((*self._ids(label, "label").shape, 3), dtype=np.uint8)
        mask = self._batch(blank, label, "photo", "label").mask
        with self._drawing():
            return self._picture(self.generator.synthesize(mask, style, attention=False).image)

    def reconstruct(self, photo: Photo, label: Labels) -> Image.Image:
        """The photo as the network draws it from its own style and layout."""
        return self.draw(label, self.style(photo, label))

    def transfer(
        self, photo: Photo, label: Labels, style_photo: Photo, style_label: Labels, region: str | None = None
    ) -> Image.Image:
        """The photo's layout in the style of another photo: all of it, or of the class or class group `region` alone.

        UserError where the family has no such style, and where one of the photos does not show the region.
        """
        task: EditTask = "global_style_transfer" if region is None else "style_transfer"
        reason = refusal(task, self.generator.capabilities)
        if reason:
            raise UserError(f"transfer: {reason} (run {self.record.id[:SHORT_ID]}, {family_of(self.config.model)})")
        content = self._batch(photo, label, "photo", "label")
        reference = self._batch(style_photo, style_label, "style_photo", "style_label")
        case = Case(0, 1, WHOLE, ())
        if region is not None:
            here, there = (set(batch.label.unique().tolist()) for batch in (content, reference))
            classes = set(self.space.members(region))
            if not classes & here & there:
                where = "label" if not classes & here else "style_label" if not classes & there else "both maps at once"
                raise UserError(f"region {region!r}: no class of it is in {where}")
            case = Case(0, 1, region, tuple(sorted(classes & here & there)))
        with self._drawing():
            return self._picture(perform(task, self.generator, content, reference, [case], steps=2, seed=0).image)

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        """Without gradients, and with the same noise each time for families that draw any; torch's generator is left alone."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            torch.manual_seed(0)
            yield

    def _picture(self, image: Tensor) -> Image.Image:
        return Image.fromarray(image_array(image)[0])

    def _batch(self, photo: Photo, label: Labels, photo_name: str, label_name: str) -> Batch:
        """Photo and label map at the run's size, as its data set would hand them out."""
        picture, ids = _photo(photo, photo_name), self._ids(label, label_name)
        rows, columns = ids.shape
        if abs(picture.width * rows - columns * picture.height) > SHAPES_AGREE * picture.width * rows:
            raise UserError(
                f"{photo_name} is {picture.width}x{picture.height} but {label_name} is {columns}x{rows}: not one "
                "picture's shape"
            )
        height, width = self.size
        box = source_box(picture.width / picture.height, width / height, self.config.data.resize)
        sample = Sample(resize_image(picture, height, width, box), resize_label(ids, height, width, box), "", None)
        return collate([sample], self.space.num_classes).to(self.device)

    def _ids(self, label: Labels, name: str) -> NDArray[np.uint8]:
        """(H,W) class indices of a label map, each of which must be a class of the run."""
        if isinstance(label, Image.Image):
            if label.mode not in LABEL_MODES:
                raise UserError(f"{name} has pixel mode {label.mode} (colours); it must hold one class index a pixel")
            label = np.asarray(label)
        if label.ndim != 2 or label.dtype.kind not in "iu":
            raise UserError(f"{name} is {_shape(label)}; give an (H,W) array of whole numbers, a class index a pixel")
        return self.space.decode(label, name)

    def __repr__(self) -> str:
        height, width = self.size
        return f"run {self.record.id[:SHORT_ID]}: {family_of(self.config.model)}, {width}x{height}, {self._data()}"

    def _repr_html_(self) -> str:
        shown = self.metrics[(self.metrics["state"] == "trained") & (self.metrics["status"] == "ok")]
        table = shown[["name", "value", "unit", "n", "split", "protocol"]].to_html(index=False, border=0)
        return f"<p>{escape(repr(self))}</p>\n{table}"

    def _data(self) -> str:
        return str(self.record.provenance["data"]["summary"])


@dataclass(frozen=True)
class Example:
    """One sample of a data set; a notebook shows photo and coloured label map side by side."""

    key: str
    photo: Image.Image
    label: NDArray[np.uint8]  # (H,W) class indices
    colours: Image.Image  # the label map in the colours of its classes

    def _repr_png_(self) -> bytes:
        sheet = Image.new("RGB", (self.photo.width * 2, self.photo.height))
        sheet.paste(self.photo, (0, 0))
        sheet.paste(self.colours, (self.photo.width, 0))
        stream = io.BytesIO()
        sheet.save(stream, format="PNG")
        return stream.getvalue()


def _photo(photo: Any, name: str) -> Image.Image:
    """A photo as an RGB image; UserError, by `name`, for anything else than 8-bit colours."""
    if isinstance(photo, Image.Image):
        if photo.mode not in PHOTO_MODES:
            raise UserError(f"{name} has pixel mode {photo.mode}; allowed are 8-bit photos ({', '.join(PHOTO_MODES)})")
        return photo if photo.mode == "RGB" else photo.convert("RGB")
    array = np.asarray(photo)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise UserError(f"{name} is {_shape(array)}; give a PIL image or an (H,W,3) uint8 array, 0..255")
    return Image.fromarray(array)


def _shape(array: NDArray[Any]) -> str:
    return f"an array {tuple(array.shape)} of {array.dtype}"
