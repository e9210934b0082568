"""One attempt at a run that learns: it resumes, trains, validates, stops where it is asked to, and keeps its networks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from pipeline.data.batch import Batch
from pipeline.data.loader import batches, batches_per_epoch
from pipeline.errors import RunFailed
from pipeline.evaluation.validation import quick_validation
from pipeline.models.build import build_discriminator
from pipeline.models.contract import Generator
from pipeline.records import RunStore
from pipeline.records.store import SHORT_ID
from pipeline.runs import checkpoint
from pipeline.runs.attempt import Attempt
from pipeline.runs.checkpoint import load_first_stage
from pipeline.runs.preemption import HEARTBEAT_S, Preempted
from pipeline.training.trainer import Trainer
from pipeline.training.unconditional import UnconditionalTrainer


class Diverged(RunFailed):
    """A loss is not finite any more."""


class TrainedAttempt(Attempt):
    """One attempt at one run of a family that learns: resumes, trains, validates, keeps its networks."""

    kind = "trained"

    def __init__(self, *args: Any) -> None:
        """As `Attempt`."""
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
