"""What makes two runs the same run: the sha256 of a canonical text of everything that can change the result.

Nuisance keys (where, on what and how loudly a run happens) are left out by the explicit list below; clock and counters never
enter. Values are typed by the schema before they get here, so `1`, `1.0` and `true` cannot be confused.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

# Dotted paths of the resolved config that do not change what is computed, each with why.
NUISANCE_KEYS: tuple[str, ...] = (
    "preset",  # a name for values that are all present in the resolved config
    "notes",
    "device",  # recorded in provenance; numerics across devices are compared there
    "threads",
    "tracking",
    "protocol",  # evaluation adds rows to a record; each row carries its own fingerprint
    "data.root",  # the data fingerprint says what is there
    "data.group",  # so does the split that follows from it
    "data.workers",
    "data.cache",
    "data.cache_root",
    "train.log_every",
    "train.validate_every",
    "train.validate_images",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "model.checkpointing",  # recomputes activations, same numbers
)


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no free choice: equal values give equal text, unequal types unequal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def without_nuisance(config: dict[str, Any]) -> dict[str, Any]:
    """Copy of a resolved config without `NUISANCE_KEYS`."""

    def strip(section: dict[str, Any], prefix: str) -> dict[str, Any]:
        kept = {}
        for key, value in section.items():
            path = f"{prefix}{key}"
            if path not in NUISANCE_KEYS:
                kept[key] = strip(value, f"{path}.") if isinstance(value, dict) else value
        return kept

    return strip(config, "")


def identity_text(
    config: dict[str, Any], data_fingerprint: dict[str, Any], schema_version: int, *, weights: str | None = None
) -> str:
    """The canonical text whose digest is the run id.

    `config` is the resolved config as plain values, `data_fingerprint` that of `pipeline.data.data_fingerprint`; only its
    digest enters, the description is for people. `weights` is the digest of released weights, for runs not trained here.
    """
    body = {"config": without_nuisance(config), "data": data_fingerprint["digest"], "schema": schema_version}
    return canonical_json(body if weights is None else {**body, "weights": weights})


def digest(text: str) -> str:
    """sha256 of a text, hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def canonical_digest(value: Any) -> str:
    """sha256 of the canonical JSON of plain `value`, hex."""
    return digest(canonical_json(value))


def file_digest(path: Path) -> str:
    """sha256 of a file's content, hex. Raises OSError where it cannot be read."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
