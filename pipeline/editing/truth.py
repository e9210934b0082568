"""Ground truth of edits: on procedural faces the renderer says what every edit should look like; photos have none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from pipeline.editing.tasks import TASKS
from pipeline.identity import digest
from pipeline.records.kept import kept_array, kept_at
from pipeline.schema.evaluation import EditTask

Picture = NDArray[np.uint8]
Look = tuple[FaceStyles, Light]
KEPT_SIDE = 128  # pixels: larger pictures are drawn anew, which costs little beside generating them and saves gigabytes


@dataclass(frozen=True)
class Renderer:
    """Draws what edits of one data set should look like."""

    faces: ProcFaces
    cache: Path | None = None  # where batches of true edits are kept for the next arm; None: nowhere

    def truths(self, task: EditTask, cases: Sequence[Case], labels: NDArray[np.integer]) -> Picture | None:
        """(N,H,W,3) uint8 pictures of the edits with layouts `labels` (N,H,W); None for tasks without one right answer.

        A class style moves under the target's light. The style of a whole image brings its light along: nothing else of the
        target than its layout reaches the result.
        """
        row = TASKS[task]
        if not row.right:
            return None

        def look(case: Case) -> Look:
            if row.style_from == "reference":
                return self._look(case.reference)
            styles, light = self._look(case.content)
            return self._exchanged(case, styles) if row.style_from == "classes" else styles, light

        return self._drawn("truth", look, task, cases, labels)

    def under_reference_lights(
        self, task: EditTask, cases: Sequence[Case], labels: NDArray[np.integer]
    ) -> Picture | None:
        """As `truths`, with the reference's light pasted along: what a global illumination forbids.

        None where no class style moves between two images.
        """

        def look(case: Case) -> Look:
            return self._exchanged(case, self._look(case.content)[0]), self._look(case.reference)[1]

        return self._drawn("light", look, task, cases, labels) if TASKS[task].moves_class else None

    def redrawn(self, task: EditTask, cases: Sequence[Case], labels: NDArray[np.integer]) -> Picture:
        """The content faces of a batch with other layouts `labels` (N,H,W), in their own styles and light: (N,H,W,3) uint8."""
        return self._drawn("redrawn", lambda case: self._look(case.content), task, cases, labels)

    def painted(self, label: NDArray[np.integer], face: int, taken: Mapping[int, int]) -> Picture:
        """(H,W,3) uint8: a painted map (H,W) in styles and light of sample `face`; `taken`: class -> the sample it comes from."""
        styles, light = self._look(face)
        for other in sorted(set(taken.values()) - {face}):
            names = [self.faces.label_space.classes[k] for k, sample in taken.items() if sample == other]
            styles = styles.exchanged(self._look(other)[0], names)
        return render_label(label, styles, light)

    def _drawn(
        self,
        what: str,
        look: Callable[[Case], Look],
        task: EditTask,
        cases: Sequence[Case],
        labels: NDArray[np.integer],
    ) -> Picture:
        def draw() -> Picture:
            return np.stack([render_label(label, *look(case)) for case, label in zip(cases, labels, strict=True)])

        return kept_array(self._kept_at(what, task, cases, labels), draw)

    def _kept_at(self, what: str, task: EditTask, cases: Sequence[Case], labels: NDArray[np.integer]) -> Path | None:
        """A file named by everything the pictures depend on: renderer, faces, what moves where, layouts."""
        if self.cache is None or max(labels.shape[1:]) > KEPT_SIDE:
            return None
        faces = [[self.faces.face_index(i) for i in (case.content, case.reference)] for case in cases]
        layouts = digest(labels.astype("<i2").tobytes().hex())
        named = [RENDERER_VERSION, self.faces.seed, what, task, faces, [list(case.classes) for case in cases], layouts]
        return kept_at(self.cache / "edits", [*named, list(labels.shape)])

    def _exchanged(self, case: Case, styles: FaceStyles) -> FaceStyles:
        other, _ = self._look(case.reference)
        return styles.exchanged(other, [self.faces.label_space.classes[k] for k in case.classes])

    def _look(self, index: int) -> Look:
        face = self.faces.face_index(index)
        return styles_of(self.faces.seed, face), light_of(self.faces.seed, face)


def renderer_of(dataset: Dataset, cache: Path | None = None) -> Renderer | None:
    """The renderer behind a data set of procedural faces (cached or not), None for any other; `cache` as the Renderer's."""
    faces = faces_behind(dataset)
    return None if faces is None else Renderer(faces, cache)
