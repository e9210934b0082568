"""A record from elsewhere, looked into before it is taken: nothing in it is executed, followed or believed without being checked.

It must be what its run id says, hold plain values of the kinds that readers expect, and lead to no file but its own.
"""

from __future__ import annotations

import dataclasses
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from safetensors import SafetensorError, safe_open

from pipeline.config import from_yaml
from pipeline.errors import UserError
from pipeline.identity import digest, identity_text
from pipeline.records import SCHEMA_VERSION, MetricRow, RunRecord
from pipeline.records.external import EXTERNAL
from pipeline.records.store import PER_IMAGE_COLUMNS
from pipeline.runs.archive import MOST_TEXT, parse_json
from pipeline.runs.card import KIND_WORDS
from pipeline.schema.families import family_of
from pipeline.schema.run import RunConfig

MOST_ROWS = 20_000_000  # of per-image values
MOST_TABLE_BYTES = 256 * 2**20  # of access tables, unpacked


def checked(file: Path, record: RunRecord, run_id: str) -> RunConfig:
    """The config of a record from elsewhere, all of whose files have been looked into."""
    text = _text(file, record, "identity.json")
    identity = parse_json(text, f"{file}, identity.json")
    if digest(text.decode("utf-8", "replace")) != run_id or not isinstance(identity, dict):
        raise refused(file, "identity.json is not what the run id is the digest of")
    config = _config_of(file, _text(file, record, "config.yaml"))
    own = identity_text(
        config.identity_values(),
        {"digest": identity.get("data")},
        identity.get("schema", 0),
        weights=identity.get("weights"),
    )
    if digest(own) != run_id:
        raise refused(file, "config.yaml is another run's than identity.json")
    facts = parse_json(_text(file, record, "provenance.json"), f"{file}, provenance.json")
    if not _describes(facts, str(identity.get("data"))):
        raise refused(file, "provenance.json does not describe the data of the run")
    status = parse_json(_text(file, record, "status.json"), f"{file}, status.json")
    if not isinstance(status, dict) or status.get("state") != "finished" or status.get("kind") not in KIND_WORDS:
        raise refused(file, "status.json is not that of a finished run")
    attempts = status.get("attempts")
    if not isinstance(attempts, list) or not all(isinstance(item, dict) for item in attempts):
        raise refused(file, "status.json lists no attempts")
    if (status["kind"] == EXTERNAL) != (family_of(config.model) == EXTERNAL):
        raise refused(file, "status.json and config.yaml do not agree about what the run is")
    if status["kind"] == EXTERNAL and not _describes_pictures(facts.get("external")):
        raise refused(file, "provenance.json does not say where the pictures came from")
    _check_metrics(file, record)
    _check_history(file, record)
    _check_arrays(file, record)
    _check_indices(file, record)
    return config


def _config_of(file: Path, data: bytes) -> RunConfig:
    """The config in YAML text without aliases, which can grow without end when they are followed."""
    try:
        text = data.decode()
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
            raise refused(file, "config.yaml holds aliases")
        return from_yaml(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise refused(file, f"config.yaml cannot be read ({type(error).__name__})") from error
    except UserError as error:
        raise UserError(f"{file} is refused: {error}") from error


def _describes(facts: Any, data_digest: str) -> bool:
    """Whether provenance says of the data what loading a run needs."""
    data = facts.get("data") if isinstance(facts, dict) else None
    if not isinstance(data, dict) or data.get("digest") != data_digest:
        return False
    names, about = data.get("class_names"), data.get("description")
    return (
        isinstance(facts.get("protocols", {}), dict)
        and isinstance(names, list)
        and 0 < len(names) <= 256
        and all(isinstance(name, str) for name in names)
        and isinstance(about, dict)
        and isinstance(about.get("label_space"), str)
        and isinstance(data.get("summary"), str)
    )


def _describes_pictures(facts: Any) -> bool:
    """Whether section `external` of provenance is as an import writes it."""
    folders = facts.get("folders") if isinstance(facts, dict) else None
    if not isinstance(folders, dict) or not isinstance(facts.get("overrides"), list):
        return False
    texts = [facts.get(name) for name in ("name", "split", "resize", "note")] + facts["overrides"]
    for folder in folders.values():
        texts += [folder.get(name) for name in ("folder", "sha256")] if isinstance(folder, dict) else [None]
        if not isinstance(folder, dict) or not isinstance(folder.get("pictures"), int):
            return False
    return all(isinstance(text, str) for text in texts)


def _check_history(file: Path, record: RunRecord) -> None:
    if not (record.path / "history.jsonl").exists():
        return
    for line in _text(file, record, "history.jsonl").splitlines():
        row = parse_json(line, f"{file}, history.jsonl")
        if (
            not isinstance(row, dict)
            or not isinstance(row.get("iteration"), int)
            or row.get("kind") not in ("train", "val")
        ):
            raise refused(file, "history.jsonl holds a line that is no row of a history")


def _check_indices(file: Path, record: RunRecord) -> None:
    """Lists of pictures name files beside them alone: whoever reads them follows what they say."""
    for path in sorted(
        path for folder in ("samples", "pictures") for path in (record.path / folder).rglob("index.json")
    ):
        name = path.relative_to(record.path).as_posix()
        named = list(_pictures_in(parse_json(_text(file, record, name), f"{file}, {name}")))
        if name == "pictures/index.json":
            found = {other.relative_to(path.parent).as_posix() for other in path.parent.glob("*/*.png")}
        else:
            found = {other.name for other in path.parent.glob("*.png")}
        if not set(named) <= found:
            raise refused(file, f"{name} names a picture that is not beside it")


def _pictures_in(value: Any, under: str = "") -> Iterator[str]:
    """Files that an index names: texts ending in .png, and of `{what: {name: sha256}}` each what/name.png."""
    if isinstance(value, str) and value.lower().endswith(".png"):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _pictures_in(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, str) and re.fullmatch("[0-9a-f]{64}", item):
                yield f"{under}/{key}.png"
            else:
                yield from _pictures_in(item, str(key))


def _check_metrics(file: Path, record: RunRecord) -> None:
    document = parse_json(_text(file, record, "metrics.json"), f"{file}, metrics.json")
    fields = {field.name for field in dataclasses.fields(MetricRow)}
    try:
        if document["schema"] != SCHEMA_VERSION or not all(set(row) <= fields for row in document["rows"]):
            raise ValueError("another schema")
        for row in document["rows"]:
            MetricRow.from_json(row)
    except (KeyError, TypeError, ValueError) as error:
        raise refused(file, f"metrics.json holds no metric rows of this version ({error})") from error


def _check_arrays(file: Path, record: RunRecord) -> None:
    """Per-image values and access tables: of the right kind, and no larger than they can be."""
    path = record.path / "per_image.parquet"
    if path.exists():
        try:
            table = pq.ParquetFile(path)
            columns, rows = set(table.schema_arrow.names), table.metadata.num_rows
        except (pa.ArrowException, OSError) as error:
            raise refused(file, f"per_image.parquet cannot be read ({type(error).__name__})") from error
        if columns != set(PER_IMAGE_COLUMNS) or rows > MOST_ROWS:
            raise refused(file, "per_image.parquet does not hold per-image values")
    path = record.path / "access.npz"
    if path.exists():
        try:
            with zipfile.ZipFile(path) as archive:
                large = sum(info.file_size for info in archive.infolist()) > MOST_TABLE_BYTES
            sound = not large and all(table.dtype.kind == "f" for table in record.access_tables().values())
        except (zipfile.BadZipFile, UserError) as error:
            raise refused(file, "access.npz cannot be read") from error
        if not sound:
            raise refused(file, "access.npz does not hold tables of learned access")


def _text(file: Path, record: RunRecord, name: str) -> bytes:
    path = record.path / name
    if not path.exists() or path.stat().st_size > MOST_TEXT:
        raise refused(file, f"{name} is missing, or too large")
    return path.read_bytes()


def read_tensors(path: Path, file: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """(tensors, metadata) of the safetensors file `path`, which came in `file`. UserError where it is none."""
    try:
        with safe_open(path, framework="pt") as opened:
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 - it is no mapping
            return tensors, opened.metadata() or {}
    except (SafetensorError, ValueError, OSError) as error:
        raise refused(file, f"{path.name} is no safetensors file ({error})") from error


def refused(file: Path, why: str) -> UserError:
    return UserError(f"{file} is refused: {why}")
