"""Records of pictures made by other code: found by the name they were imported under, and what imported them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from pipeline.records.store import RunRecord, RunStore

EXTERNAL = "external"  # the kind of such a record


def external_records(store: RunStore) -> dict[str, dict[int, list[RunRecord]]]:
    """All external records by name and seed; more than one a seed where pictures were imported again, or for other data."""
    found: dict[str, dict[int, list[RunRecord]]] = {}
    for run_id in store.ids():
        record = store.record(run_id)
        config = record.identity["config"]
        model = config.get("model")
        if isinstance(model, dict) and model.get("family") == EXTERNAL:
            found.setdefault(model["name"], {}).setdefault(config["seed"], []).append(record)
    return found


def import_command(facts: Mapping[str, Any]) -> str:
    """The command that imports such pictures again; `facts` is section `external` of a record's provenance."""
    words = ["import-images", facts["name"]]
    for what, folder in facts["folders"].items():
        words += (
            ["--images", folder["folder"]] if what == "reconstruction" else ["--edited", f"{what}={folder['folder']}"]
        )
    if facts["resize"] != "none":
        words += ["--resize", facts["resize"]]
    return "python -m pipeline " + shlex.join([*words, *facts["overrides"]])


def origin(facts: Mapping[str, Any]) -> str:
    """Where such pictures came from, for people: folders with number and digest."""
    parts = [
        f"{what}: folder {folder['folder']}, {folder['pictures']} pictures, sha256 {folder['sha256']}"
        for what, folder in facts["folders"].items()
    ]
    return "; ".join([*parts, *([facts["note"]] if facts["note"] else [])])
