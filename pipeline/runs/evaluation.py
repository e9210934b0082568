"""Evaluating a record's generator: the rows and per-image values go into the record, the pictures into its samples."""

from __future__ import annotations

from typing import Literal

import torch

from pipeline.data import build_dataset
from pipeline.evaluation.context import split_source
from pipeline.evaluation.evaluator import evaluate
from pipeline.models.contract import Generator
from pipeline.progress import Progress
from pipeline.records import MetricRow, RunRecord
from pipeline.records.metric_specs import OF_THE_TRAINING_PROCESS
from pipeline.schema.evaluation import ProtocolConfig
from pipeline.schema.run import RunConfig
from pipeline.training.distributed import World


def evaluate_record(
    record: RunRecord,
    config: RunConfig,
    generator: Generator,
    protocol: ProtocolConfig,
    device: torch.device,
    progress: Progress,
    *,
    state: Literal["trained", "untrained"] = "trained",
    world: World | None = None,
) -> list[MetricRow]:
    """Measure `generator` on the data of `config` and add the rows to `record`, leaving all others; returns the new rows.

    Reference features, true edits and the segmenter are cached beside the run store, where all runs of a study share them. The
    processes of `world` share the work; the main one writes.
    """
    world = world or World()
    _ = record.metrics  # what cannot be added to is refused before the work
    evaluation = evaluate(
        generator,
        build_dataset(config.data, protocol.split, record.cache),
        protocol,
        device=device,
        state=state,
        cache=record.cache,
        samples=record.path / "samples" / protocol.name if state == "trained" else None,
        progress=progress,
        splits=split_source(lambda split: build_dataset(config.data, split, record.cache)),
        owner=record.id,
        world=world,
    )
    if not world.main:
        return evaluation.rows
    recorded = {row.name for row in record.metrics if row.state == state}
    rows = [row for row in evaluation.rows if not (row.name in OF_THE_TRAINING_PROCESS and row.name in recorded)]
    digest = protocol.digest_for(inverts=generator.capabilities.layout == "own")
    outdated: list[MetricRow] = []
    if record.provenance.get("protocols", {}).get(protocol.name, digest) != digest:
        # rows of the protocol as it was before it changed would stand beside the new ones, as another version of each number
        outdated = [
            row for row in record.metrics
            if (row.protocol, row.state) == (protocol.name, state) and row.name not in OF_THE_TRAINING_PROCESS
        ]  # fmt: skip
    record.add_metrics(rows, outdated=outdated)
    if len(evaluation.per_image):
        record.add_per_image(evaluation.per_image)
    if state == "trained":
        if tables := generator.access_tables():
            record.set_access_tables({name: table.cpu().numpy() for name, table in tables.items()})
        done = {**record.provenance.get("protocols", {}), protocol.name: digest}
        record.update_provenance(protocols=done)
    return rows
