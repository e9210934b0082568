"""One evaluator for every family: a generator, a data set and a protocol give metric rows.

The stream of images is gone through once, batch by batch, in bounded memory; what each batch contributes is kept on disk while
the evaluation runs, so a killed one goes on where it stopped. Edits, robustness and diversity follow as stages of their own.
Several processes share the batches of stream and stages; rows, pictures and times are the main process's.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch

from pipeline.data.batch import Batch
from pipeline.data.types import Dataset
from pipeline.errors import RunFailed, UserError
from pipeline.evaluation.context import Context, Splits, batch_seed
from pipeline.evaluation.groups import build_parts, rows_without_network, run_stages
from pipeline.evaluation.inversion import Inverted, inverting
from pipeline.evaluation.parts.part import Part
from pipeline.evaluation.resume import Resume, resume_folder
from pipeline.evaluation.rows import RowMaker
from pipeline.evaluation.samples import EDIT_COUNT, SAMPLE_COUNT, SampleWriter, edit_pictures
from pipeline.evaluation.view import reconstruct
from pipeline.identity import digest
from pipeline.metrics.accumulate import Contribution, Totals
from pipeline.metrics.images import ImageBatch
from pipeline.models.contract import Generator
from pipeline.models.external import RECONSTRUCTION, ExternalPictures
from pipeline.progress import Progress, Quiet
from pipeline.records.rows import MetricRow
from pipeline.records.store import PER_IMAGE_COLUMNS
from pipeline.schema.evaluation import ProtocolConfig
from pipeline.training.distributed import World

State = Literal["trained", "untrained"]
# An untrained state is measured to show that training moved it: the groups that cost one pass.
UNTRAINED_GROUPS = ("reconstruction", "attention")
# What torch's CPU allocator says when there is no memory, and oneDNN, which gives no reason with it.
NO_MEMORY = ("can't allocate memory", "could not create a primitive")


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation found."""

    rows: list[MetricRow]
    per_image: pd.DataFrame  # key, metric, value, split, fingerprint


def evaluate(
    generator: Generator,
    dataset: Dataset,
    protocol: ProtocolConfig,
    *,
    device: torch.device,
    state: State = "trained",
    cache: Path | None = None,
    samples: Path | None = None,
    progress: Progress | None = None,
    splits: Splits | None = None,
    owner: str = "",
    world: World | None = None,
) -> Evaluation:
    """Measure `generator` on the first `protocol.images` samples of `dataset`, which is the split `protocol.split`.

    `cache`: folder for reference statistics, the segmenter and the state of an evaluation in progress. `samples`: folder for
    the pictures of the first images. `splits`: gives the data set of another split, for what needs one; without it such
    metrics are unavailable. `owner`: whose evaluation this is; runs of one seed start from equal weights, and two that are
    measured at the same time must not share the state of their evaluation. With state "untrained" only `UNTRAINED_GROUPS`
    are measured. `world`: the processes that share the work, each of which calls this with the same arguments; the generator is
    the main one's, and all return the same evaluation.

    The protocol's batch size is an upper bound: where memory does not hold a batch, the evaluation begins anew with half of it.

    The generator is put into eval mode and back. Raises RunFailed when its output is not finite, and when memory does not hold
    a single image. torch's and numpy's global random states are left as they were.
    """
    reporter = progress or Quiet()
    world = world or World()
    world.copy_main(generator)
    was_training = generator.training
    groups = tuple(g for g in protocol.groups if state == "trained" or g in UNTRAINED_GROUPS)
    generator.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=_cuda_devices(device)):
            total = len(dataset) if protocol.images is None else min(protocol.images, len(dataset))
            while True:
                resume = Resume(resume_folder(cache, generator, dataset, protocol, groups, total, owner))
                measured = inverting(generator, protocol, device, resume.folder)
                context = Context(
                    measured, dataset, protocol, groups, total, device, cache, splits, reporter, resume, world
                )
                try:
                    return _evaluate(context, state, samples)
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    if world.main:
                        resume.clear()
                    protocol = _smaller_batches(protocol, total, reporter, error)
                    if device.type == "cuda":
                        torch.cuda.empty_cache()
    finally:
        generator.train(was_training)
        reporter.stop()


def is_out_of_memory(error: Exception) -> bool:
    """Whether torch, or a library under it, could not get memory, of a GPU or of the machine."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(complaint in str(error) for complaint in NO_MEMORY)


def _smaller_batches(protocol: ProtocolConfig, total: int, reporter: Progress, error: Exception) -> ProtocolConfig:
    tried = min(protocol.batch_size, total)
    if tried == 1:
        raise RunFailed(f"memory does not hold the evaluation of a single image ({error})") from error
    reporter.say(f"evaluate: memory does not hold batches of {tried} images, going on with {tried // 2}")
    return protocol.model_copy(update={"batch_size": tried // 2})


def _evaluate(context: Context, state: State, samples: Path | None) -> Evaluation:
    dataset, protocol, total, world = context.dataset, context.protocol, context.total, context.world
    parts = build_parts(context)
    writer = SampleWriter(samples, dataset.label_space) if samples is not None and world.main else None
    note, always, resized = "", "", {}
    if isinstance(context.generator, Inverted):
        _invert(context, context.generator)
        note = context.generator.note
    if isinstance(context.generator, ExternalPictures):
        _refuse_other_pictures(context, context.generator)
        always = context.generator.pictures.note
        resized = {} if context.generator.resize == "none" else {"pictures_resized": context.generator.resize}
    totals = _stream(context, parts, writer, pictures=0 if samples is None else SAMPLE_COUNT)
    data = {
        "images": digest("".join(str(value) for value in totals.stacked("each/content"))),
        "label_space": dataset.label_space.name,
        "size": [dataset.height, dataset.width],
        **resized,
    }
    make = RowMaker(protocol.name, protocol.split, state, data, note, always)

    def of_stream() -> tuple[list[MetricRow], pd.DataFrame]:
        found = [row for part in parts for row in part.rows(totals, make)]
        found += rows_without_network(context, make)
        return found, per_image_frame(list(dataset.keys[:total]), totals.each(), make)

    rows, frame = world.of_main(of_stream)
    stage_rows, stage_frames = run_stages(context, make)

    def finish() -> None:
        if writer is not None:
            if "editing" in context.groups:
                torch.manual_seed(batch_seed("pictures", 0))
                for picture in edit_pictures(context, range(min(EDIT_COUNT, total))):
                    writer.add_edit(picture)
            writer.finish()
        context.resume.clear()

    world.of_main(finish)
    kept = [each for each in (frame, *stage_frames) if len(each)]
    per_image = pd.concat(kept, ignore_index=True) if kept else pd.DataFrame(columns=list(PER_IMAGE_COLUMNS))
    return Evaluation(rows + stage_rows, per_image)


def _invert(context: Context, generator: Inverted) -> None:
    """Find the codes of all images, and tune their weights where the budget says so; a killed evaluation keeps what it has."""

    def measure(start: int, stop: int) -> Contribution:
        batch = context.batch(start, stop).to(context.device)
        return generator.timed(batch.image, batch.mask)

    found = context.collect("inversion", context.total, context.protocol.batch_size, measure).each()
    generator.keep(found["inversion_key"].tolist(), torch.from_numpy(found["inversion_codes"]))
    generator.seconds = found["inversion_s"].tolist()
    if generator.pivots is None:
        return
    generator.pivots.check_room(context.total)

    def tune(start: int, stop: int) -> Contribution:
        batch = context.batch(start, stop).to(context.device)
        return generator.tuning_seconds(batch.image, batch.mask)

    tuned = context.collect("tuning", context.total, 1, tune, title="pivotal tuning").each()
    generator.seconds = (found["inversion_s"] + tuned["tuning_s"]).tolist()


def _refuse_other_pictures(context: Context, generator: ExternalPictures) -> None:
    """Pictures of another split, or of fewer images, than the protocol measures."""
    lacking = generator.pictures.lacks(RECONSTRUCTION, context.dataset.keys[: context.total])
    if lacking:
        raise UserError(
            f"external record {generator.name} has no picture of {len(lacking)} of the {context.total} images that protocol "
            f"{context.protocol.name} measures on split {context.protocol.split}: {', '.join(lacking[:3])}"
            + (", ..." if len(lacking) > 3 else "")
        )


def _stream(context: Context, parts: list[Part], writer: SampleWriter | None, *, pictures: int) -> Totals:
    """One pass over the images: every part's contributions, in order, and what `writer` shows of the first `pictures`."""

    def measure(start: int, stop: int) -> Contribution:
        batch = context.batch(start, stop)
        view = reconstruct(context.generator, batch, context.device, start)
        if writer is not None:
            writer.add(view)
        found: Contribution = {"each/content": content_digests(batch)}
        for part in parts:
            found.update(part.measure(view))
        return found

    return context.collect(
        "stream", context.total, context.protocol.batch_size, measure, title="evaluate", anew=pictures
    )


def per_image_frame(keys: list[str], each: Contribution, make: RowMaker) -> pd.DataFrame:
    """Tidy per-image values of every `each/` array that has a row of the same name."""
    frames = [
        pd.DataFrame(
            {"key": keys, "metric": name, "value": values.astype(float), "split": make.split,
             "fingerprint": make.fingerprints[name]}
        )
        for name, values in each.items()
        if name in make.fingerprints
    ]  # fmt: skip
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(PER_IMAGE_COLUMNS))


def content_digests(batch: Batch) -> np.ndarray:
    """(N,) text digests of image and label of each sample, as 8-bit and 16-bit values: what was measured on."""
    images = ImageBatch(batch.image, "signed").uint8()
    labels = batch.label.cpu().numpy().astype("<i2")
    return np.array(
        [
            hashlib.sha256(image.tobytes() + label.tobytes()).hexdigest()
            for image, label in zip(images, labels, strict=True)
        ]
    )


def _cuda_devices(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []
