"""Ground truth of edits: on procedural faces the renderer says what every edit should look like; photos have none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.data.procfaces.dataset import ProcFaces
from pipeline.data.procfaces.render import render_label
from pipeline.data.procfaces.styles import FaceStyles, Light, light_of, styles_of
from pipeline.data.types import Dataset
from pipeline.editing.cases import Case
from pipeline.schema.evaluation import EditTask

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Renderer:
    """Draws what edits of one data set should look like."""

    faces: ProcFaces

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

    def without(self, index: int, label: NDArray[np.integer]) -> Picture:
        """Face `index` with another layout `label`, in its own styles and light."""
        return render_label(label, *self._look(index))

    def _exchanged(self, case: Case, styles: FaceStyles) -> FaceStyles:
        other, _ = self._look(case.reference)
        return styles.exchanged(other, [self.faces.label_space.classes[k] for k in case.classes])

    def _look(self, index: int) -> tuple[FaceStyles, Light]:
        face = self.faces.face_index(index)
        return styles_of(self.faces.seed, face), light_of(self.faces.seed, face)


def renderer_of(dataset: Dataset) -> Renderer | None:
    """The renderer behind a data set of procedural faces (cached or not), None for any other."""
    from pipeline.data.mapped import Mapped
    from pipeline.data.memory import InMemory

    source = dataset.source if isinstance(dataset, InMemory | Mapped) else dataset
    return Renderer(source) if isinstance(source, ProcFaces) else None
