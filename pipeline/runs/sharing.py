"""A run as a file to share: record, weights (safetensors), config and a model card in one archive, and back.

What comes from elsewhere is trusted with nothing: it must be what its run id says, load as plain values and tensors, and fit the
network that its config describes. What named the other machine (paths, hosts) is left out.
"""

from __future__ import annotations

import functools
import json
import secrets
import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_tensors

from pipeline.config import from_yaml, to_yaml
from pipeline.data import data_fingerprint
from pipeline.errors import UserError
from pipeline.models.build import build_generator
from pipeline.records import RunRecord, RunStore, atomic
from pipeline.records.external import EXTERNAL
from pipeline.records.store import SHORT_ID
from pipeline.runs import checkpoint
from pipeline.runs.archive import read_archive, write_archive
from pipeline.runs.card import model_card
from pipeline.runs.untrusted import checked, read_tensors, refused
from pipeline.schema.data import DataConfig
from pipeline.schema.run import RunConfig

WEIGHTS = "weights.safetensors"
ABANDONED_S = 3600.0  # an unpacking takes seconds
WITH_WEIGHTS = ("trained", "released")  # kinds of runs that have any
PLAIN = ("identity.json", "metrics.json", "history.jsonl", "per_image.parquet", "access.npz")  # as they are


def parts_left_out(record: RunRecord, without: Collection[str]) -> set[str]:
    """What of `without` a pack of this run lacks: a run without weights has none to leave out, one that is pictures keeps them.

    UserError for a run that is not finished, or whose record a reader would refuse.
    """
    if record.state != "finished":
        raise UserError(f"run {record.id[:SHORT_ID]} is {record.state}, not finished: nothing to pack")
    checked(record.path, record, record.id)
    kind = record.status["kind"]
    nothing = ({"weights"} if kind not in WITH_WEIGHTS else set()) | ({"pictures"} if kind == EXTERNAL else set())
    return set(without) - nothing


def pack(record: RunRecord, file: Path, licence: str, without: Collection[str] = ()) -> None:
    """Write a finished run as the archive `file`; the same record gives the same bytes.

    `without`: parts to leave out, of `archive.PARTS`: what tables, curves and claims are made of is always there. UserError as in
    `parts_left_out`, and where its weights are asked for and not here.
    """
    without = parts_left_out(record, without)
    weights_wanted = record.status["kind"] in WITH_WEIGHTS and "weights" not in without
    if weights_wanted and not checkpoint.has_weights(record):
        raise UserError(f"the weights of run {record.id[:SHORT_ID]} are not here: pack it with --without weights")
    config = _portable(from_yaml(record.config_yaml), None)
    members: dict[str, bytes | Path] = {
        "README.md": model_card(record, config, licence, without).encode(),
        "record/config.yaml": to_yaml(config).encode(),
        "record/status.json": _json(_status_elsewhere(record.status)),
        "record/provenance.json": _json(_provenance_elsewhere(record.provenance)),
    }
    members |= {f"record/{name}": record.path / name for name in PLAIN if (record.path / name).exists()}
    for folder in () if "pictures" in without else ("samples", "pictures"):
        for path in sorted((record.path / folder).rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                members[f"record/{path.relative_to(record.path).as_posix()}"] = path
    if weights_wanted:
        members[WEIGHTS] = _tensors_of(checkpoint.load(record, checkpoint.FINAL))
    write_archive(file, record.id, members, without)


def unpack(file: Path, store: RunStore, data_roots: Sequence[Path] = ()) -> RunRecord:
    """The record of an archive, in `store`; one that is there already gets what it lacks (weights, the root of its photos).

    `data_roots`: where its photos may lie here; of several the one that holds them, if any does. Raises UserError naming the
    file and what is wrong with it; then nothing is left behind.
    """
    with _beside(store) as folder:
        run_id, without = read_archive(file, folder)
        known = store.record(run_id)
        if known.exists and known.state != "finished":
            raise UserError(f"run {run_id[:SHORT_ID]} is here already, and {known.state}: {known.path}")
        made = RunRecord(folder / "record")
        config = checked(file, made, run_id)
        data_root = _holding(config, str(made.identity["data"]), data_roots)
        atomic.write_text(made.path / "config.yaml", to_yaml(_portable(config, data_root)))
        weights = folder / WEIGHTS
        if weights.exists():
            checkpoint.save(made, checkpoint.FINAL, _fitting(file, weights, config, made))
        elif made.status["kind"] in WITH_WEIGHTS and "weights" not in without:
            raise refused(file, "it holds no weights")
        if known.exists:
            _complete(known, made, data_root)
        else:
            _move(made.path, known.path)
    return known


def _holding(config: RunConfig, data: str, roots: Sequence[Path]) -> Path | None:
    """The root to name in a config: the only one that is given, or the one that holds the data of this fingerprint."""
    if len(roots) < 2:
        return next(iter(roots), None)
    return next(
        (root for root in roots if data == _digest_below(config.data.model_copy(update={"root": str(root)}))), None
    )


@functools.cache
def _digest_below(data: DataConfig) -> str:
    """The fingerprint of the data below a root as a run reads them, "" where they cannot be read so."""
    try:
        return str(data_fingerprint(data)["digest"])
    except UserError:
        return ""


def _complete(known: RunRecord, made: RunRecord, data_root: Path | None) -> None:
    """Give a record that is here already what it lacks and an archive of the same run brings; numbers stay as they are.

    UserError where the archive is of another training: a run id says what was trained, not on which machine.
    """
    if checkpoint.has_weights(made) and not checkpoint.has_weights(known):
        if _training(made) != _training(known):
            raise UserError(
                f"run {known.id[:SHORT_ID]} is here without weights, and from another training of it: "
                "these weights are not those of its numbers"
            )
        checkpoint.save(known, checkpoint.FINAL, checkpoint.load(made, checkpoint.FINAL))
    config = from_yaml(known.config_yaml)
    if data_root is not None and config.data.root is None:
        data = config.data.model_copy(update={"root": str(data_root.resolve())})
        atomic.write_text(known.path / "config.yaml", to_yaml(config.model_copy(update={"data": data})))


def _training(record: RunRecord) -> object:
    """What tells two trainings of one run apart: the history, in which times stand; of a released run its provenance."""
    path = record.path / "history.jsonl"
    return path.read_bytes() if path.exists() else record.provenance.get("released")


def _move(made: Path, target: Path) -> None:
    """Put a finished record into its place; what a start that was killed has left there (no identity: no run) makes room."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if RunRecord(target).is_live:
            raise UserError(f"run {target.name[:SHORT_ID]} is being started here: {target}")
        if target.exists():
            shutil.rmtree(target)
        made.rename(target)
    except OSError as error:
        raise UserError(f"cannot write {target}: {atomic.reason(error)}") from error


@contextmanager
def _beside(store: RunStore) -> Iterator[Path]:
    """A folder on the store's own disk that no command takes for a run, gone at the end."""
    cache = store.root.parent / "cache"
    folder = cache / f"unpacking-{secrets.token_hex(8)}"
    try:
        folder.mkdir(parents=True)
        for left in cache.glob("unpacking-*"):  # by a command that was killed
            if time.time() - left.stat().st_mtime > ABANDONED_S:
                shutil.rmtree(left, ignore_errors=True)
    except OSError as error:
        raise UserError(f"cannot write below {cache}: {atomic.reason(error)}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _portable(config: RunConfig, data_root: Path | None) -> RunConfig:
    """The config without what belongs to one machine: none of these keys is part of the run's identity."""
    root = None if data_root is None else str(data_root.resolve())
    data = config.data.model_copy(update={"root": root, "cache_root": None, "workers": 0})
    segmenter = config.protocol.segmenter.model_copy(update={"external": None})
    protocol = config.protocol.model_copy(update={"weights_dir": None, "segmenter": segmenter})
    tracking = config.tracking.model_copy(update={"mode": "disabled", "entity": None})
    return config.model_copy(update={"data": data, "protocol": protocol, "tracking": tracking, "device": "auto"})


def _status_elsewhere(status: dict[str, Any]) -> dict[str, Any]:
    return {**status, "attempts": [{**attempt, "host": "", "pid": 0} for attempt in status["attempts"]]}


def _provenance_elsewhere(facts: dict[str, Any]) -> dict[str, Any]:
    host = facts.get("host")
    return {**facts, "host": {**host, "hostname": ""} if isinstance(host, dict) else {}}


def _tensors_of(state: dict[str, Any]) -> bytes:
    """Networks of a checkpoint as one safetensors file, keys `<network>.<key>`; counters as its metadata."""
    tensors: dict[str, torch.Tensor] = {}
    counters: dict[str, str] = {}
    for name, value in state.items():
        if isinstance(value, dict):
            tensors |= {f"{name}.{key}": tensor.detach().clone().contiguous() for key, tensor in value.items()}
        else:
            counters[name] = str(value)
    return save_tensors(tensors, metadata=counters)


def _fitting(file: Path, weights: Path, config: RunConfig, record: RunRecord) -> dict[str, Any]:
    """The checkpoint in a safetensors file, whose generator must be the config's, key by key and shape by shape."""
    tensors, metadata = read_tensors(weights, file)
    iteration = metadata.get("iteration", "0")
    if not iteration.isdecimal():
        raise refused(file, f"{WEIGHTS} says {iteration[:20]!r} of its iterations")
    state: dict[str, Any] = {"iteration": int(iteration)}
    for key, tensor in tensors.items():
        network, _, name = key.partition(".")
        if network not in ("generator", "discriminator") or not name:
            raise refused(file, f"{WEIGHTS} holds {key!r}, of no network of a run")
        state.setdefault(network, {})[name] = tensor
    try:
        with torch.device("meta"):  # a config can ask for more memory than there is: nothing is allocated for it
            generator = build_generator(config.model, len(record.provenance["data"]["class_names"]), config.data.hw)
    except (RuntimeError, ValueError, OverflowError, UserError) as error:
        raise refused(file, f"its config builds no network ({error})") from error
    wanted = {key: tuple(tensor.shape) for key, tensor in generator.state_dict().items()}
    found = {key: tuple(tensor.shape) for key, tensor in state.get("generator", {}).items()}
    if wanted != found:
        key = sorted(set(wanted.items()) ^ set(found.items()))[0][0]
        raise refused(
            file, f"its weights do not fit its config: {key} is {found.get(key)}, wanted is {wanted.get(key)}"
        )
    return state


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
