"""What the page asks and what it is told: requests checked as config sections are, answers as plain JSON."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator

from pipeline.editing.painted import Wish, refusals
from pipeline.errors import UserError
from pipeline.evaluation.view import as_images
from pipeline.metrics.images import from_uint8
from pipeline.metrics.reconstruction import psnr
from pipeline.paint.studio import Arm, Labels, Scene, Studio, Truth, differences
from pipeline.records.store import SHORT_ID
from pipeline.schema.base import Section
from pipeline.schema.files import check
from pipeline.schema.painting import StyleRecipe
from pipeline.schema.yaml12 import Document

STRONGEST = 5  # classes told of a pixel's attention
DIFFERENCES = 3  # keys told of a run's config


class Ask(Section):
    """A scene as the page sends it."""

    page: Annotated[str, Field(pattern=r"^[a-z0-9]{1,40}$")]  # which of several open pages
    number: Annotated[int, Field(ge=0)]  # of the state; a page counts up
    label: str  # base64 of (H,W) uint8 class indices, row by row
    styles: Annotated[tuple[str, ...], Field(min_length=1, max_length=16)]
    recipe: StyleRecipe

    @model_validator(mode="after")
    def _sound(self) -> Ask:
        self.recipe.refuse_beyond(len(self.styles))
        return self


A = TypeVar("A", bound=Ask)


class PicturesAsk(Ask):
    """A scene to be drawn by every run."""

    final: bool  # a stroke or another change is over: pictures of older states are not waited for


class AttentionAsk(Ask):
    """A scene, and where to look."""

    run: Annotated[int, Field(ge=0)]  # place among the runs
    x: Annotated[int, Field(ge=0)]  # column
    y: Annotated[int, Field(ge=0)]  # row


class OverlayAsk(Ask):
    """A scene, and which level of which run to lay over its picture."""

    run: Annotated[int, Field(ge=0)]
    level: str  # its name


def read(kind: type[A], body: bytes) -> A:
    """A request of that kind. UserError, one line, for any other."""
    try:
        values = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UserError(f"request: not JSON ({error})") from error
    return check(kind, values, Document(values, "request"))


def scene_of(studio: Studio, ask: Ask) -> Scene:
    """What a request asks for. UserError for another size, a class or a photo that there is not."""
    return Scene(decoded(studio, ask.label), ask.styles, _known(studio, ask))


def decoded(studio: Studio, text: str) -> Labels:
    """(H,W) class indices out of base64. UserError for another size or a class that there is not."""
    try:
        label = np.frombuffer(base64.b64decode(text, validate=True), dtype=np.uint8)
    except ValueError as error:
        raise UserError(f"request: label is not base64 ({error})") from error
    if label.size != studio.height * studio.width:
        raise UserError(f"request: label has {label.size} pixels, not {studio.height}x{studio.width}")
    if int(label.max()) >= studio.space.num_classes:
        raise UserError(f"request: label holds class {int(label.max())}; there are {studio.space.num_classes}")
    return label.reshape(studio.height, studio.width)


def facts(studio: Studio) -> dict[str, Any]:
    """What the page is built from."""
    space = studio.space
    others = differences(studio.arms)
    return {
        "height": studio.height,
        "width": studio.width,
        "classes": list(space.classes),
        "palette": [list(colour) for colour in space.palette],
        "data": studio.arms[0].config.data.name,
        "split": studio.split,
        "samples": len(studio.dataset),
        "faces": studio.renderer is not None,
        "threads": studio.threads,
        "runs": [_run_facts(arm, changes) for arm, changes in zip(studio.arms, others, strict=True)],
    }


def picture(studio: Studio, scene: Scene, true_edit: Callable[[], Truth], arm: Arm) -> dict[str, Any]:
    """What one run makes of a scene, and its PSNR to the true edit where there is one."""
    start = time.perf_counter()
    output = as_images(studio.draw(arm, scene).image).to("cpu")
    milliseconds = 1000 * (time.perf_counter() - start)
    target = true_edit().picture
    return {
        "run": studio.arms.index(arm),
        "pixels": packed(output.uint8()),
        "psnr": None if target is None else round(float(psnr(output, from_uint8(target[None]))[0]), 2),
        "milliseconds": round(milliseconds, 1),
        "notes": _left_out(arm, scene.recipe),
    }


def truth_facts(truth: Truth) -> dict[str, Any]:
    """The true edit, or why there is none."""
    return {"truth": None if truth.picture is None else packed(truth.picture), "truth_reason": truth.reason}


def refuse_without_attention(studio: Studio, place: int) -> None:
    """UserError for a run that there is not, or one without attention."""
    if place >= len(studio.arms):
        raise UserError(f"request: run {place}; there are {len(studio.arms)} (counted from 0)")
    arm = studio.arms[place]
    reason = refusals(arm.generator.capabilities)["attention"]
    if reason:
        raise UserError(f"run {arm.record.id[:SHORT_ID]} ({arm.family}): {reason}")


def attention(studio: Studio, ask: AttentionAsk, arm: Arm) -> dict[str, Any]:
    """At each level, the classes that one pixel attends to most: shares of the softmax over the level's logits."""
    if ask.y >= studio.height or ask.x >= studio.width:
        raise UserError(f"request: pixel {ask.x}, {ask.y} is outside {studio.width}x{studio.height}")
    told = []
    maps = studio.attention(arm, scene_of(studio, ask))
    for name, logits in zip(arm.levels, maps, strict=True):
        height, width = logits.shape[-2:]
        row, column = ask.y * height // studio.height, ask.x * width // studio.width
        shares = logits[0, :, row, column].double().softmax(dim=0)
        strongest = shares.topk(min(STRONGEST, len(shares)))
        told.append(
            {
                "level": name,
                "classes": strongest.indices.tolist(),
                "shares": [round(share, 4) for share in strongest.values.tolist()],
            }
        )
    return {"number": ask.number, "levels": told}


def overlay(studio: Studio, ask: OverlayAsk, arm: Arm) -> dict[str, Any]:
    """(H,W) uint8: the class that each pixel attends to most at one level."""
    maps = studio.attention(arm, scene_of(studio, ask))
    if ask.level not in arm.levels:
        raise UserError(f"request: level {ask.level!r}; there are {', '.join(arm.levels)}")
    classes = maps[arm.levels.index(ask.level)][0].argmax(dim=0).to(torch.uint8).cpu().numpy()
    rows = np.arange(studio.height) * classes.shape[0] // studio.height
    columns = np.arange(studio.width) * classes.shape[1] // studio.width
    return {"number": ask.number, "classes": packed(classes[rows[:, None], columns[None, :]])}


def photo_facts(studio: Studio, name: str) -> dict[str, Any]:
    """A style photo as the page shows it, and the label map that belongs to it."""
    photo = studio.photo(name)
    return {"name": name, "key": photo.key, "pixels": packed(photo.image), "label": packed(photo.label)}


def packed(array: NDArray[np.uint8]) -> str:
    """Bytes of an array, row by row, as base64."""
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def _run_facts(arm: Arm, changes: list[str]) -> dict[str, Any]:
    more = [f"and {len(changes) - DIFFERENCES} more"] if len(changes) > DIFFERENCES else []
    return {
        "id": arm.record.id,
        "short": arm.record.id[:SHORT_ID],
        "family": arm.family,
        "differs": [*changes[:DIFFERENCES], *more],
        "refusals": refusals(arm.generator.capabilities),
        "levels": list(arm.levels),
    }


def _left_out(arm: Arm, recipe: StyleRecipe) -> list[str]:
    """What a run leaves out of a recipe, with the reason."""
    reasons = refusals(arm.generator.capabilities)
    asked: dict[Wish, tuple[str, bool]] = {
        "photo": ("the style photo", True),
        "towards": ("the way to the other photo", recipe.towards is not None and recipe.position > 0),
        "classes": ("styles of classes", bool(recipe.classes)),
        "noise": ("noise", recipe.noise > 0),
    }
    return [f"without {what}: {reasons[wish]}" for wish, (what, wanted) in asked.items() if wanted and reasons[wish]]


def _known(studio: Studio, ask: Ask) -> StyleRecipe:
    for name in ask.recipe.classes:
        studio.space.index(name)  # UserError with the nearest names
    for style in ask.styles:
        studio.photo(style)
    return ask.recipe
