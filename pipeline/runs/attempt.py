"""One attempt at a run: what a rule and a network that learns have in common, written into the record as it happens."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from pipeline import provenance
from pipeline.config import ResolvedRun
from pipeline.data import Dataset, Split
from pipeline.errors import UserError
from pipeline.evaluation.evaluator import State
from pipeline.evaluation.rows import RowMaker
from pipeline.metrics.cost import hardware, peak_memory_gib
from pipeline.models.build import build_generator
from pipeline.models.contract import Generator
from pipeline.progress import Progress
from pipeline.records import MetricRow, RunRecord
from pipeline.records.store import now
from pipeline.runs.evaluation import evaluate_record
from pipeline.runs.preemption import Stoppable, StopRequest
from pipeline.runs.tracking import Mirror
from pipeline.training.devices import device_name, norms_in_effect, set_numerics
from pipeline.training.distributed import World
from pipeline.training.trainer import step_seed

# Called after each validation with (iteration, its numbers); True ends the run as "pruned".
OnValidation = Callable[[int, dict[str, float]], bool]


class Attempt:
    """One attempt at one run of a rule, which has no parameters and nothing to train; of any other: `TrainedAttempt`."""

    kind = "rule"
    iterations = 0  # updates in its budget

    def __init__(
        self,
        resolved: ResolvedRun,
        record: RunRecord,
        splits: dict[Split, Dataset],
        progress: Progress,
        on_validation: OnValidation | None,
        stop: StopRequest,
        device: torch.device,
        world: World,
    ) -> None:
        self.cfg = cfg = resolved.config
        self.record = record
        self.progress = progress
        self.on_validation = on_validation
        self.stop = stop
        self.device, self.world = device, world
        self.measuring = Stoppable(progress, stop, self._beat)
        set_numerics(cfg, self.device)
        self.train_data, self.val_data = splits["train"], splits["val"]
        space = self.train_data.label_space
        torch.manual_seed(step_seed(cfg.seed, 0) ^ 1)  # initial weights: a function of the seed alone
        generator = build_generator(cfg.model, space.num_classes, cfg.data.hw)
        if cfg.loss.attention.enabled and not generator.capabilities.attention:
            raise UserError("loss.attention is on, but this model has no attention maps; add loss.attention.kind=off")
        self.generator = generator.to(self.device)
        self.data_facts = {**resolved.data, "class_names": list(space.classes), "train_images": len(self.train_data)}
        self.step_seconds = 0.0
        self.mirror: Mirror | None = None

    def go(self) -> None:
        """The whole attempt; leaves the record finished (or pruned). Of several processes, only the main one writes."""
        if not self.world.main:
            self._begin_or_resume()
            if not self._train():
                self._measure()
            self.world.barrier()
            return
        record, cfg = self.record, self.cfg
        record.begin_attempt(self.kind)
        began = time.monotonic()
        earlier_s = float(record.provenance.get("wall_seconds", 0.0))
        self._record_start()
        self._begin_or_resume()
        attempt = len(record.status["attempts"])
        self.mirror = Mirror(cfg.tracking, record, record.identity["config"], attempt=attempt, group=record.id[:24])
        try:
            pruned = self._train()
            if not pruned:
                self._measure()
                record.add_metrics(self._cost_rows())
            self.mirror.summarise(record.metrics)
        finally:
            self.progress.stop()
            problem = self.mirror.finish()
            record.update_provenance(
                ended=now(),
                wall_seconds=earlier_s + time.monotonic() - began,
                device_seconds=self.step_seconds * self.world.size,
                images_seen=self.iteration * cfg.train.batch_size,
                peak_mem_gib=peak_memory_gib(self.device.type),
                tracking={"mode": cfg.tracking.mode, "problem": problem},
            )
        if pruned:  # what it takes to go on stays, for a study that wants the whole run
            record.end_attempt("pruned")
        else:
            self._keep_networks()
            record.end_attempt("finished")
            self._tidy()  # not before: a kill in between would train the run again
        self.world.barrier()

    @property
    def iteration(self) -> int:
        """Updates taken."""
        return 0

    @property
    def evaluated(self) -> Generator:
        """The generator that is measured."""
        return self.generator

    def _begin_or_resume(self) -> None:
        """Make ready to train."""

    def _train(self) -> bool:
        """Advance to the end of the budget; True when the run is to be pruned."""
        return False

    def _measure(self, state: State = "trained") -> None:
        """Evaluate, shared by all processes; the rows go into the record."""
        evaluate_record(
            self.record, self.cfg, self.evaluated, self.cfg.protocol, self.device, self.measuring, state=state,
            world=self.world,
        )  # fmt: skip

    def _beat(self, doing: str) -> None:
        if self.world.main:
            self.record.beat(self.iteration, self.iterations, doing)

    def _keep_networks(self) -> None:
        """Save what was trained."""

    def _tidy(self) -> None:
        """Remove what was only for resuming."""

    def _record_start(self) -> None:
        self.record.update_provenance(
            **provenance.code_version(),
            started=self.record.provenance.get("started", now()),
            versions=provenance.versions(),
            host=provenance.host_facts(),
            device=device_name(self.device),
            threads=torch.get_num_threads(),
            data=self.data_facts,
            iterations=self.iterations,
            losses=self.cfg.loss.weights(),
            world_size=self.world.size,
            norms=norms_in_effect(self.generator, self.world),
        )

    def _cost_rows(self) -> list[MetricRow]:
        """Training throughput and device-hours, as metric rows of no split."""
        if self.step_seconds == 0.0:
            return []
        images, updates = self.iteration * self.cfg.train.batch_size, self.iteration
        make = RowMaker(self.cfg.protocol.name, "", "trained", {})
        where = {"hardware": hardware(self.device)}
        return [
            make.ok("train_images_per_s", images / self.step_seconds, updates, **where),
            make.ok("train_device_hours", self.step_seconds / 3600.0, updates, **where),
        ]

    def _log(self, row: dict[str, Any]) -> None:
        self.record.log(row)
        if self.mirror is not None:
            self.mirror.log(row)
