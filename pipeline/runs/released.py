"""Released weights as run records: the authors' own networks stand in tables beside the ones trained here (kind "released")."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pipeline import provenance
from pipeline.config import compose, to_yaml
from pipeline.data import data_fingerprint
from pipeline.data.build import space_of
from pipeline.errors import UserError, nearest
from pipeline.identity import digest, identity_text
from pipeline.models.interop import load_release
from pipeline.records import RunRecord, RunStore, atomic
from pipeline.records.store import SCHEMA_VERSION, now
from pipeline.runs import checkpoint


def import_release(
    family: str, file: Path, encoder: Path | None, overrides: Sequence[str], store: RunStore
) -> RunRecord:
    """Turn a downloaded checkpoint (`latest_net_G.pth` and friends) into a finished record without metrics.

    `encoder`: SPADE's image encoder, which the release keeps in a file of its own. `overrides` choose the data the record is
    to be evaluated on, as for a run. The same file on the same data is the same record. Raises UserError for a file that is
    not plain tensors (nothing in it is executed), a key that does not fit, or data with another number of classes.
    """
    state, weights = read_tensors(file)
    encoder_state, encoder_weights = read_tensors(encoder) if encoder is not None else (None, "")
    generator = load_release(family, state, encoder=encoder_state)
    config = compose([f"model={family}", "preset=paper", *overrides])
    classes = space_of(config.data).classes
    if generator.num_classes != len(classes):
        raise UserError(
            f"{file} was trained on {generator.num_classes} classes; data={config.data.name} has {len(classes)} "
            "(choose the data set of the release, for instance data=celebamask_hq data.root=DIR)"
        )
    config = config.model_copy(update={"model": generator.config})
    fingerprint = data_fingerprint(config.data)
    text = identity_text(
        config.identity_values(), fingerprint, SCHEMA_VERSION, weights=digest(weights + encoder_weights)
    )
    record = store.record(digest(text))
    with record.writing():
        record.create(text, to_yaml(config))
        record.begin_attempt("released")
        record.update_provenance(
            **provenance.code_version(),
            started=now(),
            ended=now(),
            versions=provenance.versions(),
            host=provenance.host_facts(),
            data={**fingerprint, "class_names": list(classes)},
            released={"file": file.name, "sha256": weights, "encoder_sha256": encoder_weights or None},
        )
        checkpoint.save(record, checkpoint.FINAL, {"iteration": 0, "generator": generator.state_dict()})
        record.end_attempt("finished")
    return record


def extract_network(file: Path, name: str, target: Path, harmless: Sequence[type]) -> int:
    """Write the state dict `name` of a training checkpoint with several networks to `target`; returns its tensors' number.

    For checkpoints that `read_tensors` refuses because they pickle an object beside their networks, as SemanticStyleGAN's
    (`g_ema`) does its command line. Nothing in the file is executed: beyond plain tensors and containers the `harmless` classes
    are let through, which must hold values and run nothing; any other is refused. Raises UserError.
    """
    data = _bytes_of(file)
    try:
        with torch.serialization.safe_globals(list(harmless)):
            value: Any = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        detail = " ".join(str(error).split())[:160]
        raise UserError(f"{file} is refused: it is not a checkpoint of plain tensors ({detail})") from error
    networks = [key for key, item in value.items() if _is_state(item)] if isinstance(value, dict) else []
    if name not in networks:
        found = f"it holds {', '.join(networks)}" if networks else "it holds none"
        raise UserError(f"{file}: no network {name!r}{nearest(name, networks)}; {found}")
    state = {key: tensor.clone() for key, tensor in value[name].items()}  # a clone: no storage shared with what is left
    atomic.write_with(target, lambda stream: torch.save(state, stream))
    return len(state)


def read_tensors(file: Path) -> tuple[dict[str, torch.Tensor], str]:
    """State dict and sha256 of a downloaded file. Untrusted: only plain tensors are read, all else is refused.

    Of a training framework's checkpoint, which holds it as "state_dict" among counters, the state dict alone counts.
    """
    data = _bytes_of(file)
    try:
        value: Any = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"{file} is refused: it is not a file of plain tensors ({type(error).__name__}); from a training checkpoint, "
            "`python -m pipeline weights convert` takes the tensors alone"
        ) from error
    if isinstance(value, dict) and isinstance(value.get("state_dict"), dict):
        value = value["state_dict"]
    if not _is_state(value):
        raise UserError(f"{file} is refused: it holds something other than a state dict of tensors")
    return value, hashlib.sha256(data).hexdigest()


def _bytes_of(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {file}: {atomic.reason(error)}") from error


def _is_state(value: Any) -> bool:
    """Whether `value` is a state dict of tensors."""
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(key, str) and isinstance(item, torch.Tensor) for key, item in value.items())
    )
