"""Which image pairs and regions an edit task is measured on: a function of protocol and data, the same for every family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from pipeline.data.label_spaces import LabelSpace
from pipeline.data.types import Dataset
from pipeline.editing.tasks import TASKS
from pipeline.schema.evaluation import EditingConfig, EditTask

WHOLE = "all"  # region name of tasks on the whole image
COMMON_CLASSES = 3  # regions where a label space knows none of the protocol's: so many most common classes
SAME_CLASSES_SHARE = 0.002  # a class smaller than this share of either image is too small to carry a style


@dataclass(frozen=True)
class Case:
    """One edit: the content image keeps layout and style except where the task takes them from the reference."""

    content: int  # index within the data set
    reference: int  # equals `content` for tasks of one image
    region: str  # class group, class, or `WHOLE`
    classes: tuple[int, ...]  # edited classes, present in both images; empty for `WHOLE`


def choose_cases(
    task: EditTask, cfg: EditingConfig, dataset: Dataset, total: int, *, contents: Sequence[int] | None = None
) -> list[Case]:
    """At most `cfg.pairs` cases of `task` over the first `total` images; fewer where the data does not hold them.

    With `contents`, at most one case for each of these images instead: pictures of given inputs.
    """
    space, row = dataset.label_space, TASKS[task]
    rng = np.random.default_rng([cfg.seed, list(TASKS).index(task)])

    @cache
    def present(index: int) -> frozenset[int]:
        counts = np.bincount(dataset[index].label.reshape(-1), minlength=space.num_classes)
        return frozenset(np.flatnonzero(counts >= max(1.0, SAME_CLASSES_SHARE * counts.sum())).tolist())

    order, references = rng.permutation(total).tolist(), rng.permutation(total).tolist()
    wanted = cfg.pairs
    if contents is not None:
        order, wanted = list(contents), len(contents)
    if row.whole:
        two = row.partner == "any"
        pairs = [
            (content, _next_other(references, number, content) if two else content)
            for number, content in enumerate(order[:wanted])
        ]
        return [Case(a, b, WHOLE, ()) for a, b in pairs if not two or a != b]
    removed = row.partner == "removed"
    regions = [_resolve(space, cfg.absent)] if removed else _regions(cfg.regions, space, present, total)
    cases: list[Case] = []
    for number, content in enumerate(order * len(regions)):
        if len(cases) == wanted:
            break
        if contents is not None and any(case.content == content for case in cases):
            continue
        # Regions take turns over the images, and an image seen again gets another region than before.
        region = regions[(number % len(order) + number // len(order)) % len(regions)]
        if region is None:
            continue
        name, members = region
        here = present(content) & set(members)
        if not here or present(content) <= set(members):
            continue
        if removed:
            cases.append(Case(content, content, name, tuple(sorted(here))))
            continue
        partner = _partner(references, number, content, lambda index, want=here: bool(present(index) & want))  # type: ignore[misc]
        if partner is not None:
            cases.append(Case(content, partner, name, tuple(sorted(here & present(partner)))))
    return cases


def picture_name(task: EditTask, case: Case, content: str, reference: str) -> str:
    """Name of the picture of an edit: the keys of its images and its region, as far as the task has them."""
    parts = [content, reference] if TASKS[task].partner in ("any", "region") else [content]
    return "__".join(parts if case.region == WHOLE else [*parts, case.region.replace("/", "-")])


def step_names(task: EditTask, name: str, steps: int) -> list[str]:
    """Names of an edit's pictures: its own, or those of an interpolation's positions in order."""
    return [f"{name}__{number}of{steps}" for number in range(1, steps + 1)] if TASKS[task].steps else [name]


def no_cases(total: int) -> str:
    """Why `choose_cases` found nothing among `total` images."""
    if total < 2:
        return "a single image has no partner to edit it with"
    return "no images hold the regions this task edits"


def _resolve(space: LabelSpace, name: str) -> tuple[str, tuple[int, ...]] | None:
    known = name in space.groups or name in space.classes
    return (name, space.members(name)) if known else None


def _regions(names: Sequence[str], space: LabelSpace, present, total: int) -> list[tuple[str, tuple[int, ...]] | None]:  # type: ignore[no-untyped-def]
    """The named regions the space knows; where it knows none, its classes that occur in most of the first images."""
    known = [region for region in (_resolve(space, name) for name in names) if region is not None]
    if known:
        return list(known)
    counts = np.zeros(space.num_classes)
    for index in range(min(total, 64)):
        counts[list(present(index))] += 1
    if space.unknown is not None:
        counts[space.unknown] = 0
    order = np.argsort(-counts, kind="stable")[:COMMON_CLASSES]
    return [(space.classes[k], (int(k),)) for k in order if counts[k] > 0]


def _next_other(order: Sequence[int], start: int, content: int) -> int:
    partner = _partner(order, start, content, lambda index: True)
    return content if partner is None else partner


def _partner(order: Sequence[int], start: int, content: int, fits) -> int | None:  # type: ignore[no-untyped-def]
    """The first image from position `start` of `order` on (around) that is not the content and fits."""
    for offset in range(len(order)):
        index = order[(start + offset) % len(order)]
        if index != content and fits(index):
            return int(index)
    return None
