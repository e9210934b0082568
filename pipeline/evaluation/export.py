"""Pictures for other code: reconstructions and edits as PNG files named by key, with masks and references beside them.

`FOLDER/WHAT/NAME.png`, `FOLDER/masks/WHAT/NAME.png`, `FOLDER/references/WHAT/NAME.png` and `FOLDER/manifest.json`. The pictures are
those an evaluation under the same protocol measures: the same batches, edits and noise. Files that are there already are kept, so
an export that was interrupted goes on, and every export of a run gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from pipeline.data.batch import Batch, image_array
from pipeline.data.digests import named_digest
from pipeline.data.types import Dataset, Split
from pipeline.editing.cases import Case, choose_cases, no_cases, picture_name, step_names
from pipeline.editing.tasks import TASKS, refusal
from pipeline.errors import UserError, nearest
from pipeline.evaluation.context import Context
from pipeline.evaluation.inversion import inverting
from pipeline.evaluation.resume import Resume
from pipeline.evaluation.samples import write_classes, write_png
from pipeline.evaluation.stages.edit_scores import carry_out
from pipeline.evaluation.view import as_images, reconstruct
from pipeline.metrics.accumulate import Contribution
from pipeline.models.contract import Generator
from pipeline.models.external import RECONSTRUCTION, ExternalPictures
from pipeline.progress import Progress
from pipeline.records import atomic
from pipeline.schema.evaluation import EditTask, ProtocolConfig

MANIFEST = "manifest.json"
FORMAT = 1
# What can be exported: an edit task by its name, the reconstruction by what it is.
KINDS: tuple[str, ...] = (RECONSTRUCTION, *(task for task, row in TASKS.items() if row.edits))


@dataclass(frozen=True)
class _Wanted:
    """The pictures of one kind: which there are to be, and how a batch of them is made."""

    what: str
    names: tuple[tuple[str, ...], ...]  # of each item: its picture, or those of an interpolation's steps
    entries: tuple[dict[str, Any], ...]  # of each item, in the manifest
    make: Callable[[int, int], _Made]


@dataclass(frozen=True)
class _Made:
    """A batch of pictures with what they were asked for."""

    steps: Sequence[torch.Tensor]  # pictures (N,3,H,W) in [-1,1], one batch a step
    label: torch.Tensor  # (N,H,W) class indices
    reference: Batch | None  # where photo or style came from


def export_pictures(
    generator: Generator,
    dataset: Dataset,
    protocol: ProtocolConfig,
    split: Split,
    kinds: Sequence[str],
    folder: Path,
    about: dict[str, Any],
    *,
    device: torch.device,
    cache: Path | None,
    progress: Progress,
) -> dict[str, int]:
    """Write pictures of every one of `kinds` into `folder`; returns how many there are of each.

    `dataset` is the split `split`, of which the protocol says how many images and which edits. `about`: what the manifest says of
    the run. Raises UserError for a kind that is unknown or that the family cannot do, and where `folder` holds something else.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise UserError(f"--what {kind}: unknown{nearest(kind, KINDS)}; there are: {', '.join(KINDS)}")
    if isinstance(generator, ExternalPictures):
        raise UserError(f"{generator.name} was made by other code: its pictures lie where they were imported from")
    total = len(dataset) if protocol.images is None else min(protocol.images, len(dataset))
    context = Context(
        inverting(generator, protocol, device), dataset, protocol, (), total, device, cache, None, progress, Resume(None)
    )  # fmt: skip
    with torch.no_grad(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        wanted = [_wanted(kind, context) for kind in dict.fromkeys(kinds)]
        manifest = {
            "format": FORMAT, **about, "split": split, "images": total, "size": [dataset.height, dataset.width],
            "protocol": {"name": protocol.name, "digest": protocol.digest_for(inverts=True), "batch_size": protocol.batch_size},
            "label_space": dataset.label_space.name, "classes": list(dataset.label_space.classes),
        }  # fmt: skip
        pictures: dict[str, dict[str, Any]] = {item.what: {"items": list(item.entries)} for item in wanted}
        _begin(folder, manifest, pictures)
        for item in wanted:
            _write(item, context, folder)
    for item in wanted:
        files = {name: folder / item.what / f"{name}.png" for names in item.names for name in names}
        pictures[item.what]["sha256"] = named_digest(files)
    _begin(folder, manifest, pictures)
    return {item.what: sum(map(len, item.names)) for item in wanted}


def _begin(folder: Path, manifest: dict[str, Any], pictures: dict[str, Any]) -> None:
    """Write the manifest; another run's, split's or protocol's export in `folder` is not touched."""
    path = folder / MANIFEST
    known: dict[str, Any] = {}
    if path.exists():
        found = atomic.read_json(path)
        # A prepared data set has a manifest of this name, too.
        if not isinstance(found, dict) or "pictures" not in found:
            raise UserError(f"{folder} holds a {MANIFEST} of something else, not of an export; choose another folder")
        known = found.pop("pictures")
        differing = [key for key in manifest if found.get(key) != manifest[key]]
        if differing:
            key = differing[0]
            raise UserError(
                f"{folder} holds an export with another {key} ({found.get(key)!r}, not {manifest[key]!r}); choose another folder"
            )
    elif folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty and holds no export; choose another folder")
    atomic.write_json(path, {**manifest, "pictures": {**known, **pictures}})


def _wanted(kind: str, context: Context) -> _Wanted:
    dataset, cfg = context.dataset, context.protocol.editing
    if kind == RECONSTRUCTION:
        keys = dataset.keys[: context.total]

        def again(start: int, stop: int) -> _Made:
            batch = context.batch(start, stop)
            view = reconstruct(context.generator, batch, context.device, start)
            return _Made([view.output.signed()], batch.label, batch)

        return _Wanted(kind, tuple((key,) for key in keys), tuple({"name": key} for key in keys), again)
    task = cast("EditTask", kind)
    reason = refusal(task, context.generator.capabilities)
    cases: list[Case] = [] if reason else choose_cases(task, cfg, dataset, context.total)
    if not cases:
        raise UserError(f"--what {kind}: {reason or no_cases(context.total)}")
    names = [picture_name(task, case, dataset.keys[case.content], dataset.keys[case.reference]) for case in cases]
    entries = tuple(
        {
            "name": name,
            "content": dataset.keys[case.content],
            "reference": dataset.keys[case.reference],
            "region": case.region,
            "classes": [dataset.label_space.classes[k] for k in case.classes],
        }
        for name, case in zip(names, cases, strict=True)
    )

    def edit(start: int, stop: int) -> _Made:
        _, reference, edited = carry_out(task, context, cases[start:stop], start)
        alone = TASKS[task].partner == "none"
        return _Made(edited.steps or [edited.image], edited.label, None if alone else reference)

    return _Wanted(kind, tuple(tuple(step_names(task, name, cfg.steps)) for name in names), entries, edit)


def _write(item: _Wanted, context: Context, folder: Path) -> None:
    """Write what is not there yet, a whole batch at a time: each picture is drawn in the same company whenever it is drawn."""
    stage = (
        "stream" if item.what == RECONSTRUCTION else f"edit_{item.what}"
    )  # names whose batches seed an evaluation's noise
    masks, references = folder / "masks" / item.what, folder / "references" / item.what

    def measure(start: int, stop: int) -> Contribution:
        files = [[folder / item.what / f"{name}.png" for name in names] for names in item.names[start:stop]]
        own = [entry["name"] for entry in item.entries[start:stop]]
        beside = [masks / f"{name}.png" for name in own]
        if all(path.exists() for paths in [*files, beside] for path in paths):
            return {}
        made = item.make(start, stop)
        pictures = [image_array(as_images(step).signed()) for step in made.steps]
        labels = made.label.cpu().numpy()
        others = None if made.reference is None else image_array(made.reference.image)
        for i, paths in enumerate(files):
            for path, step in zip(paths, pictures, strict=True):
                write_png(path, step[i])
            if others is not None:
                write_png(references / f"{own[i]}.png", others[i])
            write_classes(beside[i], labels[i], context.dataset.label_space)  # last: it says that the item is whole
        return {}

    context.collect(stage, len(item.names), context.protocol.batch_size, measure, title=f"export {item.what}")
