"""Ground truth of edits: on procedural faces the renderer says what every edit should look like; photos have none."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data.content import faces_behind
from pipeline.data.procfaces import RENDERER_VERSION
from pipeline.data.procfaces.dataset import ProcFaces
from pipeline.data.procfaces.render import render_label
from pipeline.data.procfaces.styles import FaceStyles, Light, light_of, styles_of
from pipeline.data.types import Dataset
from pipeline.editing.cases import Case
from pipeline.identity import canonical_json, digest
from pipeline.records import atomic
from pipeline.schema.evaluation import EditTask

Picture = NDArray[np.uint8]
KEPT_SIDE = 128  # pixels: larger pictures are drawn anew, which costs little beside generating them and saves gigabytes


@dataclass(frozen=True)
class Renderer:
    """Draws what edits of one data set should look like."""

    faces: ProcFaces
    cache: Path | None = None  # where batches of true edits are kept for the next arm; None: nowhere

    def truths(self, task: EditTask, cases: Sequence[Case], labels: NDArray[np.integer]) -> Picture | None:
        """`truth` of a batch with layouts `labels` (N,H,W): (N,H,W,3) uint8, drawn once for all arms; None as there."""
        return self._drawn("truth", self.truth, task, cases, labels)

    def under_reference_lights(
        self, task: EditTask, cases: Sequence[Case], labels: NDArray[np.integer]
    ) -> Picture | None:
        """`under_reference_light` of a batch, as `truths`."""
        return self._drawn("light", self.under_reference_light, task, cases, labels)

    def truth(self, task: EditTask, case: Case, label: NDArray[np.integer]) -> Picture | None:
        """(H,W,3) uint8 picture of the edit with layout `label` (H,W); None for tasks without one right answer.

        A class style moves under the target's light. The style of a whole image brings its light along: nothing else of the
        target than its layout reaches the result.
        """
        styles, light = self._look(case.content)
        if task in ("reconstruct", "shape_transfer", "absent_style"):
            return render_label(label, styles, light)
        if task == "global_style_transfer":
            return render_label(label, *self._look(case.reference))
        if task in ("style_transfer", "style_and_shape_transfer", "style_interpolation"):
            return render_label(label, self._exchanged(case, styles), light)
        return None

    def under_reference_light(self, task: EditTask, case: Case, label: NDArray[np.integer]) -> Picture | None:
        """The same edit with the reference's light pasted along: what a global illumination forbids. None where no class
        style moves between two images."""
        if task not in ("style_transfer", "style_and_shape_transfer"):
            return None
        styles, _ = self._look(case.content)
        _, light = self._look(case.reference)
        return render_label(label, self._exchanged(case, styles), light)

    def redrawn(self, cases: Sequence[Case], labels: NDArray[np.integer]) -> Picture:
        """The content faces of a batch with other layouts `labels` (N,H,W), in their own styles and light: (N,H,W,3) uint8."""
        drawn = self._drawn("redrawn", self._redraw, "absent_style", cases, labels)
        assert drawn is not None, "any layout can be drawn"
        return drawn

    def _redraw(self, task: EditTask, case: Case, label: NDArray[np.integer]) -> Picture:
        return render_label(label, *self._look(case.content))

    def _drawn(
        self,
        what: str,
        draw: Callable[[EditTask, Case, NDArray[np.integer]], Picture | None],
        task: EditTask,
        cases: Sequence[Case],
        labels: NDArray[np.integer],
    ) -> Picture | None:
        path = self._kept_at(what, task, cases, labels)
        if path is not None:
            try:
                kept: Picture = np.load(path, allow_pickle=False)
                return kept
            except (OSError, ValueError, EOFError):  # not there yet, or not readable: drawn again
                pass
        found = [draw(task, case, label) for case, label in zip(cases, labels, strict=True)]
        pictures = [picture for picture in found if picture is not None]
        if len(pictures) != len(cases):
            return None
        drawn = np.stack(pictures)
        if path is not None:
            buffer = io.BytesIO()
            np.save(buffer, drawn, allow_pickle=False)
            atomic.write_bytes(path, buffer.getvalue())
        return drawn

    def _kept_at(self, what: str, task: EditTask, cases: Sequence[Case], labels: NDArray[np.integer]) -> Path | None:
        """A file named by everything the pictures depend on: renderer, faces, what moves where, layouts."""
        if self.cache is None or max(labels.shape[1:]) > KEPT_SIDE:
            return None
        faces = [[self.faces.face_index(i) for i in (case.content, case.reference)] for case in cases]
        layouts = digest(labels.astype("<i2").tobytes().hex())
        named = [RENDERER_VERSION, self.faces.seed, what, task, faces, [list(case.classes) for case in cases], layouts]
        return self.cache / "edits" / f"{digest(canonical_json([*named, list(labels.shape)]))[:32]}.npy"

    def _exchanged(self, case: Case, styles: FaceStyles) -> FaceStyles:
        other, _ = self._look(case.reference)
        return styles.exchanged(other, [self.faces.label_space.classes[k] for k in case.classes])

    def _look(self, index: int) -> tuple[FaceStyles, Light]:
        face = self.faces.face_index(index)
        return styles_of(self.faces.seed, face), light_of(self.faces.seed, face)


def renderer_of(dataset: Dataset, cache: Path | None = None) -> Renderer | None:
    """The renderer behind a data set of procedural faces (cached or not), None for any other; `cache` as the Renderer's."""
    faces = faces_behind(dataset)
    return None if faces is None else Renderer(faces, cache)
