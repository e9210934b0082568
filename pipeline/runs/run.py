"""The way of one run: record -> data -> networks -> training -> evaluation -> record.

`execute` starts, resumes or recognises as finished the run that a resolved config names. A kill at any instant leaves a record
that reads; calling `execute` again continues from the newest sound checkpoint and, on CPU, gives bit-identical results.
"""

from __future__ import annotations

from contextlib import nullcontext

from pipeline.config import ResolvedRun, to_yaml
from pipeline.data import Dataset, Split, build_dataset
from pipeline.data.crop import run_cropping
from pipeline.errors import RunFailed, UserError
from pipeline.progress import Progress, Quiet, in_charge
from pipeline.records import RunRecord, RunStore
from pipeline.records.store import SHORT_ID
from pipeline.runs import checkpoint
from pipeline.runs.attempt import Attempt, OnValidation
from pipeline.runs.evaluation import evaluate_record
from pipeline.runs.preemption import Preempted, stop_signals
from pipeline.runs.trained import Diverged, TrainedAttempt
from pipeline.schema.families import family_of, family_spec
from pipeline.training.devices import choose_device
from pipeline.training.distributed import join


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
    if said := run_cropping(resolved.config.data):
        progress.say(f"data: {said}")
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
                kind = TrainedAttempt if family_spec(family_of(resolved.config.model)).learned else Attempt
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
