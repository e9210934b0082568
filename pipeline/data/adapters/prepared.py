"""Reading what `data prepare` wrote: photos and label maps beside a manifest that says what they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.data.label_spaces import LabelSpace, label_space, make_space
from pipeline.data.listing import Listing, SampleFiles
from pipeline.data.types import SPLITS, Split
from pipeline.errors import UserError

MANIFEST = "manifest.json"
MANIFEST_FORMAT = 1
WORK = ".prepare"  # journal, lock and temporary files of `data prepare`, below the prepared root


def read_manifest(root: Path) -> dict[str, Any]:
    """The manifest of a prepared root; UserError where it does not read or is of a later format."""
    path = root / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); run `data prepare` again") from error
    if not isinstance(manifest, dict) or manifest.get("format") != MANIFEST_FORMAT:
        raise UserError(f"{path}: not a manifest of format {MANIFEST_FORMAT}; run `data prepare` again")
    return manifest


def is_prepared(root: Path) -> bool:
    """Whether `data prepare` wrote this root; UserError where it has begun and not finished."""
    if (root / MANIFEST).is_file():
        return True
    if (root / WORK).is_dir():
        raise UserError(f"{root}: `data prepare` has not finished it; run the same command again, what is done is kept")
    return False


def prepared_space(manifest: dict[str, Any], wanted: str, path: Path) -> LabelSpace:
    """The space in which prepared label maps are read; Cityscapes' 35 ids can still be read as 19."""
    stored = manifest["label_space"]
    if stored == "folder":
        classes = tuple(manifest["classes"])
        return make_space("folder", classes, unknown=classes.index("unknown") if "unknown" in classes else None)
    if stored == "cityscapes_35" and wanted == "cityscapes_19":
        return label_space(wanted)
    space = label_space(stored).prepared()
    if list(space.classes) != manifest["classes"]:
        raise UserError(f"{path}: its classes are not those of {stored} here; prepare the data again")
    if label_space(wanted).name != space.name:
        raise UserError(f"{path}: prepared in label space {stored}, asked for is data.label_space={wanted}")
    return space


def find(name: str, root: Path, space_name: str) -> Listing:
    """Listing of a prepared root: its samples and the splits by name."""
    manifest = read_manifest(root)
    path = root / MANIFEST
    if manifest["data"] != name:
        raise UserError(f"{path}: prepared from {manifest['data']}, asked for is data={name}")
    space = prepared_space(manifest, space_name, path)
    listed = {key: _sample_files(root, key, entry) for key, entry in manifest["samples"].items()}
    named: dict[str, dict[Split, tuple[SampleFiles, ...]]] = {
        rule: {split: tuple(listed[key] for key in parts[split]) for split in SPLITS}
        for rule, parts in manifest["splits"].items()
    }
    return Listing("prepared", {"all": tuple(listed.values())}, space, named, manifest["default_split"])


def _sample_files(root: Path, key: str, entry: dict[str, Any]) -> SampleFiles:
    instance = entry["instance"]
    size = (entry["width"], entry["height"])
    return SampleFiles(key, root / entry["photo"], root / entry["label"], root / instance if instance else None, size)
