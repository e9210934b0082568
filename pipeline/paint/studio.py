"""What the paint page works on: finished runs with one label space and size, their data set, and the style photos in use."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.data import Dataset, Sample, Split, build_dataset
from pipeline.data.label_spaces import LabelSpace
from pipeline.editing.painted import encoded, painted, refusals
from pipeline.editing.truth import Renderer, renderer_of
from pipeline.errors import UserError
from pipeline.identity import without_nuisance
from pipeline.models.contract import Generator, Synthesis
from pipeline.models.head_maps import level_names
from pipeline.models.kept import StyleMemory
from pipeline.models.spectral import settle_spectral_norm
from pipeline.records import RunRecord
from pipeline.records.store import SHORT_ID
from pipeline.runs.checkpoint import finished_run
from pipeline.schema.base import differing, flat
from pipeline.schema.families import family_of
from pipeline.schema.painting import StyleRecipe
from pipeline.schema.run import RunConfig

MOST_RUNS = 4  # side by side
MOST_UPLOADS = 64  # held in memory, at the size of the pictures
MOST_STYLES = 64  # of each run, the longest unused ones forgotten
Labels = NDArray[np.uint8]
Picture = NDArray[np.uint8]
SceneKey = tuple[bytes, tuple[str, ...], str]


@dataclass(frozen=True)
class Arm:
    """One run at work. Belongs to one thread."""

    record: RunRecord
    generator: Generator
    config: RunConfig
    device: torch.device
    levels: tuple[str, ...]  # of its attention, coarsest first
    known: OrderedDict[str, Tensor] = field(default_factory=OrderedDict)  # styles (1,...) by the name of their photo
    memory: StyleMemory = field(default_factory=StyleMemory)
    attended: dict[SceneKey, list[Tensor]] = field(
        default_factory=dict
    )  # attention of the last scene that was asked for

    @property
    def family(self) -> str:
        """Name of the family."""
        return family_of(self.config.model)

    def style_of(self, name: str, photo: Sample) -> Tensor:
        """Style of a photo, encoded now or before."""
        if name not in self.known:
            self.known[name] = encoded(self.generator, photo.image, photo.label, self.device)
            if len(self.known) > MOST_STYLES:
                self.known.popitem(last=False)
        self.known.move_to_end(name)
        return self.known[name]


@dataclass(frozen=True)
class Scene:
    """What is painted: a label map, the names of style photos, and what is taken from which."""

    label: Labels  # (H,W)
    styles: tuple[str, ...]  # "sample:<index>" or "upload:<number>"
    recipe: StyleRecipe

    @property
    def key(self) -> SceneKey:
        """Everything in it, to be compared."""
        return self.label.tobytes(), self.styles, self.recipe.model_dump_json()


@dataclass(frozen=True)
class Truth:
    """The true edit of a scene, or why there is none."""

    picture: Picture | None  # (H,W,3)
    reason: str


class Studio:
    """Everything one server holds. What it is asked of an arm, that arm's own thread asks; the rest any thread may ask."""

    def __init__(self, arms: Sequence[Arm], dataset: Dataset, split: Split) -> None:
        self.arms, self.dataset, self.split = tuple(arms), dataset, split
        self.space: LabelSpace = dataset.label_space
        self.height, self.width = dataset.height, dataset.width
        self.resize = arms[0].config.data.resize
        self.renderer: Renderer | None = renderer_of(dataset)
        # Of torch, for each run: they draw at the same time, and one core is left to the browser and the server. Threads that
        # wait for each other while a core is taken cost more than they bring.
        self.threads = max(1, (torch.get_num_threads() - 1) // len(self.arms))
        self._uploads: list[Sample] = []
        self._reading = Lock()  # data sets remember what they have decoded

    def photo(self, name: str) -> Sample:
        """The style photo of that name; UserError where there is none."""
        kind, _, number = name.partition(":")
        held: Dataset | list[Sample] = self.dataset if kind == "sample" else self._uploads
        if kind not in ("sample", "upload") or not number.isdecimal() or len(number) > 9 or int(number) >= len(held):
            raise UserError(
                f"style photo {name!r}: there are sample:0 to sample:{len(self.dataset) - 1} and {len(self._uploads)} uploads"
            )
        with self._reading:
            return held[int(number)]

    def keep(self, photo: Sample) -> str:
        """Take an uploaded photo with its label map; returns its name."""
        if len(self._uploads) >= MOST_UPLOADS:
            raise UserError(f"{photo.key}: {MOST_UPLOADS} uploads are held already; start paint again to load more")
        self._uploads.append(photo)
        return f"upload:{len(self._uploads) - 1}"

    def draw(self, arm: Arm, scene: Scene, *, attention: bool = False) -> Synthesis:
        """What a run makes of a scene."""
        photos = [(name, self.photo(name)) for name in scene.styles]
        return painted(
            arm.generator, scene.recipe, self.space, scene.label, lambda place: arm.style_of(*photos[place]),
            arm.device, attention=attention, memory=arm.memory,
        )  # fmt: skip

    def attention(self, arm: Arm, scene: Scene) -> list[Tensor]:
        """A run's attention logits (1,K,h,w) by level on a scene; of the last scene they are kept, for a pointer asks often."""
        key = scene.key
        if key not in arm.attended:
            maps = self.draw(arm, scene, attention=True).attention
            arm.attended.clear()
            arm.attended[key] = maps
        return arm.attended[key]

    def truth(self, scene: Scene) -> Truth:
        """The scene as the renderer draws it, where every class in it has its style from one sample."""
        if self.renderer is None:
            return Truth(None, "photos have no true edit")
        whole = scene.recipe.photo_of("")  # of what no class is named for: its light falls on all
        if whole is None:
            return Truth(None, "a style between two photos, or drawn from noise, has no one right picture")
        named = {self.space.index(name): scene.styles[place] for name, place in scene.recipe.classes.items()}
        taken = {k: name for k, name in named.items() if (scene.label == k).any()}
        if any(not name.startswith("sample:") for name in (scene.styles[whole], *taken.values())):
            return Truth(None, "an uploaded photo was not drawn by the renderer")
        samples = {k: int(name.partition(":")[2]) for k, name in taken.items()}
        return Truth(self.renderer.painted(scene.label, int(scene.styles[whole].partition(":")[2]), samples), "")


def open_studio(out: Path, prefixes: Sequence[str], split: Split) -> Studio:
    """The studio of the finished runs that begin with `prefixes`.

    UserError: too many runs, one that is not finished or cannot be told a layout, runs of other sizes or label spaces.
    """
    if len(prefixes) > MOST_RUNS:
        raise UserError(f"{len(prefixes)} runs are more than fit side by side; name at most {MOST_RUNS}")
    arms = [_arm(out, prefix) for prefix in prefixes]
    first = arms[0]
    for arm in arms:
        for what, value, other in (
            ("size", arm.config.data.hw, first.config.data.hw),
            ("classes", _classes(arm), _classes(first)),
        ):
            if value != other:
                raise UserError(
                    f"runs {first.record.id[:SHORT_ID]} and {arm.record.id[:SHORT_ID]} differ in {what}: one label map cannot be "
                    "painted for both"
                )
    dataset = build_dataset(first.config.data.model_copy(update={"cache": "memory"}), split)
    return Studio(arms, dataset, split)


def _arm(out: Path, prefix: str) -> Arm:
    record, generator, config, device = finished_run(out, prefix)
    reason = refusals(generator.capabilities)["layout"]
    if reason:
        short = record.id[:SHORT_ID]
        raise UserError(
            f"run {short} ({family_of(config.model)}): {reason}; its edits: python -m pipeline edit {short}"
        )
    settle_spectral_norm(generator)
    return Arm(record, generator, config, device, _levels(generator, config.data.hw, device))


def _levels(generator: Generator, size: tuple[int, int], device: torch.device) -> tuple[str, ...]:
    """Names of attention levels, coarsest first; found by a pass, for no family says them."""
    if not generator.capabilities.attention:
        return ()
    mask = torch.zeros(1, generator.num_classes, *size, device=device)
    mask[:, 0] = 1
    with torch.no_grad():
        style = generator.encode_style(mask.new_zeros(1, 3, *size), mask)
        return tuple(level_names(level.shape[-2] for level in generator.synthesize(mask, style).attention))


def differences(arms: Sequence[Arm]) -> list[list[str]]:
    """For each run, what its config says otherwise than the first one's ("seed: 1"); nothing where another family says all."""
    flats = [flat(without_nuisance(arm.config.model_dump(mode="json"))) for arm in arms]
    return [
        [f"{key}: {here}" for key, _, here in differing(flats[0], other)] if arm.family == arms[0].family else []
        for arm, other in zip(arms, flats, strict=True)
    ]


def _classes(arm: Arm) -> tuple[str, ...]:
    return tuple(arm.record.provenance["data"]["class_names"])
