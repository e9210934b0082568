"""The edit tasks as one table (paper: style transfer, shape transfer, interpolation, multimodal generation).

A task says what an edit takes from where. What a family must be capable of, which picture is right, and what is measured of
the task follow from its row; a new task is one more row here, its name in `EditTask`, and what plans know of it without torch in
`pipeline.schema.measures` (a test holds the two tables together).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.models.contract import Capabilities
from pipeline.schema.evaluation import EditTask
from pipeline.schema.measures import NOT_HERE


@dataclass(frozen=True)
class Task:
    """What an edit takes from where; layout and style are the content image's unless a row says otherwise."""

    # The second image: none, any other, one that holds classes of the region too, or the content with the region taken out.
    partner: Literal["none", "any", "region", "removed"]
    # "classes": of the region's classes, from the partner; "reference": the partner's whole style.
    style_from: Literal["content", "classes", "reference", "noise"] = "content"
    shape_from: Literal["content", "reference"] = "content"
    steps: bool = False  # an interpolation: pictures on the way from the content to the edit
    right: bool = True  # there is one right answer, which a renderer can draw and whose style has a source

    @property
    def whole(self) -> bool:
        """Whether the whole image is edited, not a region of it."""
        return self.partner in ("none", "any")

    @property
    def edits(self) -> bool:
        """Whether anything changes: a reconstruction is an edit that changes nothing."""
        return (self.style_from, self.shape_from) != ("content", "content")

    @property
    def moves_class(self) -> bool:
        """Whether a class's style moves at one stroke: then the reference's light may be pasted along with it."""
        return self.style_from == "classes" and not self.steps

    @property
    def borrows_style(self) -> bool:
        """Whether the style of the edit is another image's: the partner's, unless that is the content itself."""
        return self.style_from in ("classes", "reference") and self.partner != "removed"

    @property
    def metrics(self) -> tuple[str, ...]:
        """What is measured of the task; of a family that cannot do it, each is said to be not applicable."""
        right = ("psnr", "ssim", "lpips_alex", "region_error", "style_distance") if self.right else ()
        local = () if self.whole else ("outside_change",)
        light = ("light_consistency",) if self.moves_class else ()
        smooth = ("smoothness",) if self.steps else ()
        return (*right, *local, *light, *smooth, "mask_agreement")


# A task's place seeds its choice of images (`cases.choose_cases`): new ones come last.
TASKS: dict[EditTask, Task] = {
    "reconstruct": Task("none"),
    "style_transfer": Task("region", style_from="classes"),
    "global_style_transfer": Task("any", style_from="reference"),
    "shape_transfer": Task("region", shape_from="reference"),
    "style_and_shape_transfer": Task("region", style_from="classes", shape_from="reference"),
    "style_interpolation": Task("region", style_from="classes", steps=True),
    "shape_interpolation": Task("any", shape_from="reference", steps=True, right=False),
    "sampling": Task("none", style_from="noise", right=False),
    "absent_style": Task("removed", style_from="reference"),
}


def refusal(task: EditTask, capabilities: Capabilities) -> str:
    """Why a family cannot do a task, "" when it can: asked of its capabilities, never of its name."""
    row = TASKS[task]
    if row.edits and not capabilities.draws:
        return NOT_HERE
    if row.style_from == "classes" and capabilities.style not in ("per_class", "per_instance", "codes"):
        return "the family has no style per class"
    if row.style_from == "reference" and capabilities.style == "none":
        return "the family takes no style from an image"
    own = capabilities.layout == "own"  # shapes are codes like any other
    if row.steps and row.shape_from == "reference" and not (capabilities.shape_embedding or own):
        return "the family has no shape embedding"
    if row.style_from == "noise" and not capabilities.sampling:
        return "the family does not sample styles"
    return ""
