"""Pictures made by other code as run records (kind "external"): measured like any run's, as far as pictures alone can be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline import provenance
from pipeline.config import ResolvedRun, compose, identify, to_yaml
from pipeline.data import Dataset, build_dataset
from pipeline.data.picture_folder import PictureFolder, read_folder
from pipeline.editing.cases import choose_cases, no_cases, picture_name, step_names
from pipeline.errors import RunFailed, UserError
from pipeline.identity import canonical_digest
from pipeline.models.build import build_generator
from pipeline.models.external import RECONSTRUCTION, ExternalPictures
from pipeline.progress import Progress
from pipeline.records import RunRecord, RunStore, atomic
from pipeline.records.external import EXTERNAL
from pipeline.records.store import SHORT_ID, now
from pipeline.runs.evaluation import evaluate_record
from pipeline.runs.pictures import INDEX, RecordPictures, keep_pictures
from pipeline.schema.evaluation import EditTask
from pipeline.schema.messages import explain
from pipeline.schema.model_external import ExternalModel, ResizeFilter
from pipeline.schema.run import RunConfig
from pipeline.training.devices import choose_device, device_name

NOT_CHOSEN = ("model", "seed", "recipe", "train", "loss", "discriminator", "init_from")  # nobody knows


@dataclass(frozen=True)
class ExternalRun:
    """One seed's pictures: folders that were looked at, and the run they are."""

    name: str
    resolved: ResolvedRun
    dataset: Dataset  # the protocol's split
    folders: dict[str, PictureFolder]  # by what their pictures are of
    resize: ResizeFilter
    overrides: tuple[str, ...]


def look_at(
    name: str,
    images: Path,
    edited: Mapping[EditTask, Path],
    *,
    seed: int,
    resize: ResizeFilter,
    overrides: Sequence[str],
    out: Path,
) -> ExternalRun:
    """Check the folders of one seed and say which run they are; nothing is written.

    `overrides` choose data and protocol, as for a run. Raises UserError naming whatever does not fit.
    """
    for override in overrides:
        key = override.partition("=")[0].lstrip("+~")
        if key.split(".")[0] in NOT_CHOSEN:
            raise UserError(f"{override}: what made the pictures is not known here; choose data, size and protocol")
    config = compose(["model=painter", *overrides, f"seed={seed}"], out)
    protocol = config.protocol
    dataset = build_dataset(config.data, protocol.split, out / "cache")
    total = len(dataset) if protocol.images is None else min(protocol.images, len(dataset))
    size, keys = (dataset.height, dataset.width), dataset.keys
    of_split = f"samples of the split {protocol.split} of {config.data.name}"
    folders = {RECONSTRUCTION: read_folder(images, set(keys), keys[:total], size, resize, of_split)}
    for task, folder in edited.items():
        cases = choose_cases(task, protocol.editing, dataset, total)
        if not cases:
            raise UserError(f"--edited {folder}: {task}: {no_cases(total)}")
        names = [picture_name(task, case, keys[case.content], keys[case.reference]) for case in cases]
        needed = [step for picture in names for step in step_names(task, picture, protocol.editing.steps)]
        of_task = f"edits {task} of protocol {protocol.name}"
        folders[task] = read_folder(folder, set(needed), needed, size, resize, of_task)
    digest = canonical_digest({what: found.digest for what, found in folders.items()})
    resolved = identify(config.model_copy(update={"model": _section(name, digest, resize)}))
    return ExternalRun(name, resolved, dataset, folders, resize, tuple(overrides))


def _section(name: str, digest: str, resize: ResizeFilter) -> ExternalModel:
    """What stands in the place of a family's config; UserError for a name that a study could not use."""
    values = {"family": EXTERNAL, "name": name, "pictures": digest, "resize": resize}
    try:
        return ExternalModel.model_validate(values)
    except ValidationError as error:
        raise UserError(f"import-images: {explain(error, ExternalModel, values)}") from error


def import_pictures(run: ExternalRun, store: RunStore, progress: Progress) -> RunRecord:
    """Keep and measure the pictures; a finished import of the same pictures is reused, an interrupted one goes on."""
    resolved, config = run.resolved, run.resolved.config
    record = store.record(resolved.run_id)
    if resolved.is_complete(record):
        progress.say(f"{run.name}, seed {config.seed}: imported already as {record.id[:SHORT_ID]}: reused")
        return record
    with record.writing():
        if record.state != "finished":
            record.create(resolved.identity, to_yaml(config))
            record.begin_attempt(EXTERNAL)
        try:
            _keep(record, run, progress)
            device = choose_device(config.device)
            evaluate_record(record, config, external_generator(record, config), config.protocol, device, progress)
        except BaseException as error:
            word = str(error) if isinstance(error, UserError | RunFailed) else type(error).__name__
            record.end_attempt("failed", word)
            raise
        record.end_attempt("finished")
    return record


def external_generator(record: RunRecord, config: RunConfig) -> ExternalPictures:
    """What stands in a network's place for an external record."""
    generator = build_generator(config.model, len(record.provenance["data"]["class_names"]), config.data.hw)
    assert isinstance(generator, ExternalPictures), "the section of an external record is an external one"
    generator.source = RecordPictures(record)
    return generator


def _keep(record: RunRecord, run: ExternalRun, progress: Progress) -> None:
    """Write the pictures at the data's size, and where they came from."""
    config, dataset = run.resolved.config, run.dataset
    index: dict[str, dict[str, str]] = {}
    for what, found in run.folders.items():
        progress.start(f"keep {what}", len(found.files))
        index[what] = {}
        for number, name in enumerate(found.files, start=1):
            picture = found.read(name, dataset.height, dataset.width, run.resize)
            index[what][name] = keep_pictures(record, what, name, picture)
            progress.update(number)
        progress.stop()
    atomic.write_json(record.path / "pictures" / INDEX, index)
    record.update_provenance(
        **provenance.code_version(),
        started=now(),
        ended=now(),
        versions=provenance.versions(),
        host=provenance.host_facts(),
        device=device_name(choose_device(config.device)),
        data={**run.resolved.data, "class_names": list(dataset.label_space.classes)},
        external={
            "name": run.name,
            "split": config.protocol.split,
            "folders": {what: _facts(found) for what, found in run.folders.items()},
            "resize": run.resize,
            "overrides": list(run.overrides),
            "note": _note(run),
        },
    )


def _facts(found: PictureFolder) -> dict[str, Any]:
    """What trace tells of a folder: its name (not where it lay), its digest, how many pictures."""
    return {
        "folder": found.folder.resolve().name,
        "sha256": found.digest,
        "pictures": len(found.files),
        "jpeg": found.jpeg,
        "sizes": list(found.sizes),
    }


def _note(run: ExternalRun) -> str:
    """What a reader of the numbers must know of the pictures."""
    found = run.folders[RECONSTRUCTION]
    parts = []
    if run.resize != "none":
        own = f"{run.dataset.width}x{run.dataset.height}"
        others = [size for size in found.sizes if size != own]
        parts.append(f"pictures resized from {', '.join(others) or own} by {run.resize}")
    jpeg = sum(each.jpeg for each in run.folders.values())
    if jpeg:
        parts.append(f"{jpeg} pictures are JPEG files, which moves FID and KID")
    return "; ".join(parts)
