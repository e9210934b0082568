"""The way of one run: record -> data -> networks -> training -> evaluation -> record.

`execute` starts, resumes or recognises as finished the run that a resolved config names. A kill at any instant leaves a record
that reads; calling `execute` again continues from the newest sound checkpoint and, on CPU, gives bit-identical results.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import torch

from pipeline import provenance
from pipeline.config import ResolvedRun, to_yaml
from pipeline.data import Dataset, Split, build_dataset
from pipeline.data.batch import Batch
from pipeline.data.loader import batches, batches_per_epoch
from pipeline.errors import RunFailed, UserError
from pipeline.evaluation.evaluator import State
from pipeline.evaluation.rows import RowMaker
from pipeline.evaluation.validation import quick_validation
from pipeline.metrics.cost import hardware, peak_memory_gib
from pipeline.models.build import build_discriminator, build_generator
from pipeline.models.contract import Generator
from pipeline.progress import Progress, Quiet, in_charge
from pipeline.records import MetricRow, RunRecord, RunStore
from pipeline.records.store import SHORT_ID, now
from pipeline.runs import checkpoint
from pipeline.runs.checkpoint import load_first_stage
from pipeline.runs.evaluation import evaluate_record
from pipeline.runs.preemption import HEARTBEAT_S, Preempted, Stoppable, StopRequest, stop_signals
from pipeline.runs.tracking import Mirror
from pipeline.schema.families import family_of, family_spec
from pipeline.training.devices import choose_device, device_name, norms_in_effect, set_numerics
from pipeline.training.distributed import World, join
from pipeline.training.trainer import Trainer, step_seed
from pipeline.training.unconditional import UnconditionalTrainer

# Called after each validation with (iteration, its numbers); True ends the run as "pruned".
OnValidation = Callable[[int, dict[str, float]], bool]


def execute(
    resolved: ResolvedRun, store: RunStore, *, progress: Progress, on_validation: OnValidation | None = None
) -> RunRecord:
    """Run, resume or reuse the run of `resolved` and return its record.

    Raises `Locked` when another process is running it, UserError for what the user can mend, RunFailed when the run failed on
    its own (diverged), Preempted when SIGTERM or SIGUSR1 stopped it at a checkpoint.
    """
    device = choose_device(resolved.config.device)
    world = join(device)
    if not world.main:
        progress = Quiet()
    record = store.record(resolved.run_id)
    protocol = resolved.config.protocol
    if resolved.is_complete(record):
        progress.say(f"run {record.id[:SHORT_ID]} is finished already: reused")
        return record
    splits: dict[Split, Dataset] = {}  # an empty or broken split is refused before anything is written
    for split in ("train", "val", protocol.split):
        splits[split] = build_dataset(resolved.config.data, split, record.cache)
    with record.writing() if world.main else nullcontext():
        if record.state == "finished":
            generator, config = checkpoint.load_generator(record, device)
            evaluate_record(record, config, generator, protocol, device, progress, world=world)
            world.barrier()
            return record
        if world.main:
            record.create(resolved.identity, to_yaml(resolved.config))
        with stop_signals() as stop:
            try:
                kind = TrainedRun if family_spec(family_of(resolved.config.model)).learned else Run
                attempt = kind(resolved, record, splits, progress, on_validation, stop, device, world)
                with in_charge(attempt.measuring):
                    attempt.go()
            except BaseException as error:
                if world.main:
                    record.end_attempt(*_ending(error))
                raise
    return record


def _ending(error: BaseException) -> tuple[str, str]:
    """State and reason of an attempt that ended with `error`."""
    if isinstance(error, Preempted):
        return "preempted", str(error)
    if isinstance(error, KeyboardInterrupt):
        return "preempted", "interrupted from the keyboard"
    if isinstance(error, Diverged):
        return "diverged", str(error)
    if isinstance(error, (UserError, RunFailed)):
        return "failed", str(error)
    return "failed", f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"


class Diverged(RunFailed):
    """A loss is not finite any more."""


class Run:
    """One attempt at one run of a rule, which has no parameters and nothing to train; of any other: `TrainedRun`."""

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


class TrainedRun(Run):
    """One attempt at one run of a family that learns: resumes, trains, validates, keeps its networks."""

    kind = "trained"

    def __init__(self, *args: Any) -> None:
        """As `Run`."""
        super().__init__(*args)
        cfg, data = self.cfg, self.train_data
        self.iterations = cfg.train.total_iterations(len(data))
        space = data.label_space
        discriminator = self.generator.own_discriminator() or build_discriminator(
            cfg.discriminator, space.num_classes, space.unknown
        )
        if cfg.init_from is not None:
            load_first_stage(RunStore(self.record.path.parent).record(cfg.init_from), self.generator, discriminator)
        unconditional = self.generator.capabilities.training == "unconditional"
        self.trainer = (UnconditionalTrainer if unconditional else Trainer)(
            cfg, self.generator, discriminator, iterations=self.iterations, device=self.device, world=self.world
        )

    @property
    def iteration(self) -> int:
        """Updates taken."""
        return self.trainer.iteration

    @property
    def evaluated(self) -> Generator:
        """The generator that is measured."""
        return self.trainer.evaluated

    def _keep_networks(self) -> None:
        checkpoint.save(self.record, checkpoint.FINAL, self.trainer.final_state())

    def _tidy(self) -> None:
        checkpoint.tidy(self.record)

    def _begin_or_resume(self) -> None:
        """Continue from the newest sound checkpoint, or measure the untrained network and start."""
        record, say = self.record, self.progress.say
        state = checkpoint.newest(record, say)
        if state is not None:
            self.trainer.load_state(state)
            self.step_seconds = state["step_seconds"]
            say(f"resuming run {record.id[:SHORT_ID]} at iteration {self.iteration} of {self.iterations}")
        else:
            self._measure("untrained")
        if self.world.main:
            record.truncate_history(self.iteration)

    def _train(self) -> bool:
        """Advance to the end of the budget; True when `on_validation` asked to prune."""
        cfg, trainer = self.cfg.train, self.trainer
        if trainer.iteration >= self.iterations:
            return False
        self.progress.start(f"train {self.record.id[:SHORT_ID]}", self.iterations)
        last_beat = 0.0
        totals: dict[str, float] = {}
        for batch in self._batches(trainer.iteration):
            began = time.monotonic()
            terms = trainer.step(batch.to(self.device))
            i = trainer.iteration
            stopping = self.world.any(self.stop.asked, self.device)
            log, validate, save = (
                i % every == 0 for every in (cfg.log_every, cfg.validate_every, cfg.checkpoint_every)
            )
            last = i == self.iterations
            if self.device.type == "cpu" or log or validate or save or last or stopping:
                totals = {name: float(value) for name, value in terms.items()}  # waits for the device
                self._refuse_divergence(totals)
            self.step_seconds += time.monotonic() - began
            pruned = False
            if self.world.main:
                if log or last:
                    self._log({"iteration": i, "kind": "train", **totals, "seconds": round(self.step_seconds, 3)})
                if time.monotonic() - last_beat > HEARTBEAT_S:
                    self.record.beat(i, self.iterations)
                    last_beat = time.monotonic()
                self.progress.update(i, loss=totals.get("pixel", totals.get("gan", 0.0)))
                pruned = (validate or last) and self._validate() and not last
            if validate or last:
                pruned = self.world.any(pruned, self.device)
            # At the last one too: evaluation may take longer than training.
            if self.world.main and (save or last or stopping or pruned):
                state = {**trainer.state(), "step_seconds": self.step_seconds}
                checkpoint.save(self.record, f"{i:08d}.pt", state, keep=cfg.keep_checkpoints)
            if pruned:
                return True
            if stopping and not last:
                raise Preempted(f"stopped by {self.stop.name or 'a signal'} at iteration {i}; run again to continue")
        return False

    def _batches(self, iteration: int) -> Iterator[Batch]:
        """Batches from `iteration` on: their order is a function of (seed, epoch) alone."""
        cfg, size = self.cfg, self.cfg.train.batch_size
        epoch, within = divmod(iteration, batches_per_epoch(len(self.train_data), size))
        left = self.iterations - iteration
        while left > 0:
            for batch in batches(
                self.train_data,
                batch_size=size,
                seed=cfg.seed,
                epoch=epoch,
                start=within,
                augment=cfg.data.augment,
                workers=cfg.data.workers,
                part=(self.world.rank, self.world.size),
            ):
                yield batch
                left -= 1
                if left == 0:
                    return
            epoch, within = epoch + 1, 0

    def _validate(self) -> bool:
        cfg = self.cfg.train
        numbers = quick_validation(self.evaluated, self.val_data, cfg.validate_images, cfg.batch_size, self.device)
        self._log({"iteration": self.iteration, "kind": "val", **numbers})
        return self.on_validation is not None and self.on_validation(self.iteration, numbers)

    def _refuse_divergence(self, totals: dict[str, float]) -> None:
        bad = [name for name, value in totals.items() if not abs(value) < float("inf")]
        if bad:
            raise Diverged(
                f"run {self.record.id[:SHORT_ID]} diverged at iteration {self.iteration}: loss {', '.join(bad)} is not "
                f"finite; the last good checkpoint is kept in {self.record.path / 'checkpoints'}"
            )
