"""A run as a file to share: record, weights (safetensors), config and a model card in one archive, and back.

What comes from elsewhere is trusted with nothing: it must be what its run id says, load as plain values and tensors, and fit the
network that its config describes. What named the other machine (paths, hosts) is left out.
"""

from __future__ import annotations

import dataclasses
import json
import secrets
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors

from pipeline.config import from_yaml, to_yaml
from pipeline.errors import UserError
from pipeline.identity import digest, identity_text
from pipeline.models.build import build_generator
from pipeline.records import SCHEMA_VERSION, MetricRow, RunRecord, RunStore, atomic
from pipeline.records.external import EXTERNAL
from pipeline.records.store import PER_IMAGE_COLUMNS, SHORT_ID
from pipeline.runs import checkpoint
from pipeline.runs.archive import MOST_TEXT, parse_json, read_archive, write_archive
from pipeline.runs.card import KIND_WORDS, model_card
from pipeline.schema.families import family_of
from pipeline.schema.run import RunConfig

WEIGHTS = "weights.safetensors"
PLAIN = ("identity.json", "metrics.json", "history.jsonl", "per_image.parquet", "access.npz")  # as they are
MOST_ROWS = 20_000_000  # of per-image values
MOST_TABLE_BYTES = 256 * 2**20  # of access tables, unpacked


def pack(record: RunRecord, file: Path, licence: str) -> None:
    """Write a finished run as the archive `file`; the same record gives the same bytes. UserError where it is not finished."""
    if record.state != "finished":
        raise UserError(f"run {record.id[:SHORT_ID]} is {record.state}, not finished: nothing to pack")
    config = _portable(from_yaml(record.config_yaml), None)
    members: dict[str, bytes | Path] = {
        "README.md": model_card(record, config, licence).encode(),
        "record/config.yaml": to_yaml(config).encode(),
        "record/status.json": _json(_status_elsewhere(record.status)),
        "record/provenance.json": _json(_provenance_elsewhere(record.provenance)),
    }
    members |= {f"record/{name}": record.path / name for name in PLAIN if (record.path / name).exists()}
    for folder in ("samples", "pictures"):
        for path in sorted((record.path / folder).rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                members[f"record/{path.relative_to(record.path).as_posix()}"] = path
    if (record.path / "checkpoints" / checkpoint.FINAL).exists():
        members[WEIGHTS] = _tensors_of(checkpoint.load(record, checkpoint.FINAL))
    write_archive(file, record.id, members)


def unpack(file: Path, store: RunStore, data_root: Path | None) -> RunRecord:
    """The record of an archive, in `store`; one that is there already is left as it is.

    `data_root`: where its photos lie here. Raises UserError naming the file and what is wrong with it; then nothing is left behind.
    """
    with _beside(store) as folder:
        run_id = read_archive(file, folder)
        known = store.record(run_id)
        if known.exists:
            if known.state != "finished":
                raise UserError(f"run {run_id[:SHORT_ID]} is here already, and {known.state}: {known.path}")
            return known
        made = RunRecord(folder / "record")
        config = _checked(file, made, run_id)
        atomic.write_text(made.path / "config.yaml", to_yaml(_portable(config, data_root)))
        weights = folder / WEIGHTS
        if weights.exists():
            checkpoint.save(made, checkpoint.FINAL, _fitting(file, weights, config, made))
        elif made.status["kind"] in ("trained", "released"):
            raise _refused(file, "it holds no weights")
        store.root.mkdir(parents=True, exist_ok=True)
        made.path.rename(known.path)
    return known


@contextmanager
def _beside(store: RunStore) -> Iterator[Path]:
    """A folder on the store's own disk that no command takes for a run, gone at the end."""
    folder = store.root.parent / "cache" / f"unpacking-{secrets.token_hex(8)}"
    folder.mkdir(parents=True)
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
    try:
        with safe_open(weights, framework="pt") as opened:
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 - it is no mapping
            iteration = str((opened.metadata() or {}).get("iteration", "0"))
    except (SafetensorError, ValueError, OSError) as error:
        raise _refused(file, f"{WEIGHTS} is no safetensors file ({error})") from error
    if not iteration.isdecimal():
        raise _refused(file, f"{WEIGHTS} says {iteration[:20]!r} of its iterations")
    state: dict[str, Any] = {"iteration": int(iteration)}
    for key, tensor in tensors.items():
        network, _, name = key.partition(".")
        if network not in ("generator", "discriminator") or not name:
            raise _refused(file, f"{WEIGHTS} holds {key!r}, of no network of a run")
        state.setdefault(network, {})[name] = tensor
    try:
        with torch.device("meta"):  # a config can ask for more memory than there is: nothing is allocated for it
            generator = build_generator(config.model, len(record.provenance["data"]["class_names"]), config.data.hw)
    except (RuntimeError, ValueError, OverflowError, UserError) as error:
        raise _refused(file, f"its config builds no network ({error})") from error
    wanted = {key: tuple(tensor.shape) for key, tensor in generator.state_dict().items()}
    found = {key: tuple(tensor.shape) for key, tensor in state.get("generator", {}).items()}
    if wanted != found:
        key = sorted(set(wanted.items()) ^ set(found.items()))[0][0]
        raise _refused(
            file, f"its weights do not fit its config: {key} is {found.get(key)}, wanted is {wanted.get(key)}"
        )
    return state


def _checked(file: Path, record: RunRecord, run_id: str) -> RunConfig:
    """The config of a record from elsewhere, all of whose files have been looked into."""
    text = _text(file, record, "identity.json")
    identity = parse_json(text, f"{file}, identity.json")
    if digest(text.decode("utf-8", "replace")) != run_id or not isinstance(identity, dict):
        raise _refused(file, "identity.json is not what the run id is the digest of")
    config = _config_of(file, _text(file, record, "config.yaml"))
    own = identity_text(
        config.identity_values(),
        {"digest": identity.get("data")},
        identity.get("schema", 0),
        weights=identity.get("weights"),
    )
    if digest(own) != run_id:
        raise _refused(file, "config.yaml is another run's than identity.json")
    facts = parse_json(_text(file, record, "provenance.json"), f"{file}, provenance.json")
    if not _describes(facts, str(identity.get("data"))):
        raise _refused(file, "provenance.json does not describe the data of the run")
    status = parse_json(_text(file, record, "status.json"), f"{file}, status.json")
    if not isinstance(status, dict) or status.get("state") != "finished" or status.get("kind") not in KIND_WORDS:
        raise _refused(file, "status.json is not that of a finished run")
    attempts = status.get("attempts")
    if not isinstance(attempts, list) or not all(isinstance(item, dict) for item in attempts):
        raise _refused(file, "status.json lists no attempts")
    if (status["kind"] == EXTERNAL) != (family_of(config.model) == EXTERNAL):
        raise _refused(file, "status.json and config.yaml do not agree about what the run is")
    _check_metrics(file, record)
    _check_arrays(file, record)
    return config


def _config_of(file: Path, data: bytes) -> RunConfig:
    """The config in YAML text without aliases, which can grow without end when they are followed."""
    try:
        text = data.decode()
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
            raise _refused(file, "config.yaml holds aliases")
        return from_yaml(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _refused(file, f"config.yaml cannot be read ({type(error).__name__})") from error
    except UserError as error:
        raise UserError(f"{file} is refused: {error}") from error


def _describes(facts: Any, data_digest: str) -> bool:
    """Whether provenance says of the data what loading a run needs."""
    data = facts.get("data") if isinstance(facts, dict) else None
    if not isinstance(data, dict) or data.get("digest") != data_digest:
        return False
    names, about = data.get("class_names"), data.get("description")
    return (
        isinstance(names, list)
        and 0 < len(names) <= 256
        and all(isinstance(name, str) for name in names)
        and isinstance(about, dict)
        and isinstance(about.get("label_space"), str)
        and isinstance(data.get("summary"), str)
    )


def _check_metrics(file: Path, record: RunRecord) -> None:
    document = parse_json(_text(file, record, "metrics.json"), f"{file}, metrics.json")
    fields = {field.name for field in dataclasses.fields(MetricRow)}
    try:
        if document["schema"] != SCHEMA_VERSION or not all(set(row) <= fields for row in document["rows"]):
            raise ValueError("another schema")
        for row in document["rows"]:
            MetricRow.from_json(row)
    except (KeyError, TypeError, ValueError) as error:
        raise _refused(file, f"metrics.json holds no metric rows of this version ({error})") from error


def _check_arrays(file: Path, record: RunRecord) -> None:
    """Per-image values and access tables: of the right kind, and no larger than they can be."""
    path = record.path / "per_image.parquet"
    if path.exists():
        try:
            table = pq.ParquetFile(path)
            columns, rows = set(table.schema_arrow.names), table.metadata.num_rows
        except (pa.ArrowException, OSError) as error:
            raise _refused(file, f"per_image.parquet cannot be read ({type(error).__name__})") from error
        if columns != set(PER_IMAGE_COLUMNS) or rows > MOST_ROWS:
            raise _refused(file, "per_image.parquet does not hold per-image values")
    path = record.path / "access.npz"
    if path.exists():
        try:
            with zipfile.ZipFile(path) as archive:
                large = sum(info.file_size for info in archive.infolist()) > MOST_TABLE_BYTES
            sound = not large and all(table.dtype.kind == "f" for table in record.access_tables().values())
        except (zipfile.BadZipFile, UserError) as error:
            raise _refused(file, "access.npz cannot be read") from error
        if not sound:
            raise _refused(file, "access.npz does not hold tables of learned access")


def _text(file: Path, record: RunRecord, name: str) -> bytes:
    path = record.path / name
    if not path.exists() or path.stat().st_size > MOST_TEXT:
        raise _refused(file, f"{name} is missing, or too large")
    return path.read_bytes()


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _refused(file: Path, why: str) -> UserError:
    return UserError(f"{file} is refused: {why}")
