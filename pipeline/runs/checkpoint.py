"""Checkpoints: tensors and plain types only, written atomically, verified by digest, loadable with `weights_only=True`.

`checkpoints/<iteration>.pt` are for resuming (networks, optimisers, EMA), `checkpoints/final.pt` holds the networks of a
finished run. `checkpoints/index.json` lists each file with its sha256; a file that does not match is skipped with a word.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.config import from_yaml
from pipeline.errors import UserError
from pipeline.models.build import build_generator
from pipeline.models.contract import Generator
from pipeline.records import RunRecord, RunStore, atomic
from pipeline.records.external import EXTERNAL
from pipeline.records.store import SHORT_ID
from pipeline.runs.external import external_generator
from pipeline.schema.run import RunConfig
from pipeline.training.devices import choose_device, set_numerics

FINAL = "final.pt"


def save(record: RunRecord, name: str, state: dict[str, Any], *, keep: int | None = None) -> None:
    """Write `state` as `checkpoints/<name>`; with `keep`, only the newest `keep` numbered files stay."""
    folder = record.path / "checkpoints"
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getvalue()
    index = _index(record)
    atomic.write_bytes(folder / name, data)
    index[name] = hashlib.sha256(data).hexdigest()
    dropped = sorted(item for item in index if item != FINAL)[: -keep or None] if keep is not None else []
    for item in dropped:
        del index[item]
    atomic.write_json(folder / "index.json", index)
    for item in dropped:
        (folder / item).unlink(missing_ok=True)


def has_weights(record: RunRecord) -> bool:
    """Whether the weights of a finished run are here: a rule has none, and a pack can leave them out."""
    return FINAL in _index(record)


def load(record: RunRecord, name: str) -> dict[str, Any]:
    """Read one checkpoint onto the CPU; raises UserError naming the file when it is missing, damaged or unsafe."""
    path = record.path / "checkpoints" / name
    if name == FINAL and not has_weights(record):
        raise UserError(f"the weights of run {record.id[:SHORT_ID]} are not here: left out of its pack, or removed")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {atomic.reason(error)}") from error
    expected = _index(record).get(name)
    if expected != hashlib.sha256(data).hexdigest():
        raise UserError(f"{path} is damaged: its sha256 is not the recorded one")
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def newest(record: RunRecord, say: Callable[[str], None]) -> dict[str, Any] | None:
    """The newest sound checkpoint to resume from, or None. Damaged ones are passed over, and `say` is told."""
    for name in sorted((item for item in _index(record) if item != FINAL), reverse=True):
        try:
            return load(record, name)
        except UserError as error:
            say(f"{error}; falling back to the checkpoint before it")
    return None


def tidy(record: RunRecord) -> None:
    """Remove what was only for resuming, once the record says that the run is finished."""
    index = _index(record)
    atomic.write_json(record.path / "checkpoints" / "index.json", {FINAL: index[FINAL]})
    for name in index:
        if name != FINAL:
            (record.path / "checkpoints" / name).unlink(missing_ok=True)


def load_generator(record: RunRecord, device: torch.device) -> tuple[Generator, RunConfig]:
    """The evaluated generator of a finished run, in eval mode on `device`, with the run's config.

    Threads, TF32 and determinism of this process are set as that config says: what is measured later is measured as in the run.
    """
    if not record.exists:
        raise UserError(f"no run at {record.path}")
    config = from_yaml(record.config_yaml)
    set_numerics(config, device)
    # From the record, not the data set: a run can be loaded where its photos are not.
    num_classes = len(record.provenance["data"]["class_names"])
    if record.status["kind"] == EXTERNAL:
        return external_generator(record, config), config
    generator = build_generator(config.model, num_classes, config.data.hw)
    if generator.capabilities.learned:
        generator.load_state_dict(load(record, FINAL)["generator"])
    return generator.to(device).eval(), config


def _index(record: RunRecord) -> dict[str, str]:
    path = record.path / "checkpoints" / "index.json"
    return atomic.read_json(path) if path.exists() else {}


def load_first_stage(record: RunRecord, generator: Generator, discriminator: nn.Module) -> None:
    """Start from the networks of a finished run; only what the second stage trains may be missing there."""
    if record.state != "finished":
        raise UserError(f"init_from: run {record.id[:SHORT_ID]} is {record.state}, not finished")
    state = load(record, FINAL)
    trained_here = {id(parameter) for parameter in generator.sampling_parameters()}
    own = {name for name, parameter in generator.named_parameters() if id(parameter) in trained_here}
    try:
        missing, unexpected = generator.load_state_dict(state["generator"], strict=False)
        discriminator.load_state_dict(state["discriminator"])
    except RuntimeError as error:
        raise UserError(f"init_from: run {record.id[:SHORT_ID]} has other sizes: {error}") from error
    if unexpected or set(missing) - own:
        names = ", ".join(sorted([*unexpected, *(set(missing) - own)])[:3])
        raise UserError(f"init_from: run {record.id[:SHORT_ID]} is another network: {names} do not fit")


def finished_run(out: Path, prefix: str) -> tuple[RunRecord, Generator, RunConfig, torch.device]:
    """The finished run whose id starts with `prefix`, its generator, config and device. UserError when it is not finished."""
    record = RunStore(out / "runs").find(prefix)
    if record.state != "finished":
        raise UserError(f"run {record.id[:10]} is {record.state}, not finished: nothing to load")
    device = choose_device(from_yaml(record.config_yaml).device)
    generator, config = load_generator(record, device)
    return record, generator, config, device
