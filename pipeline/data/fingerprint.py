"""The data fingerprint: one digest of what a run's data are, whatever folder they lie in. It enters the run identity."""

from __future__ import annotations

from typing import Any

from pipeline.data.types import SPLITS
from pipeline.identity import canonical_digest
from pipeline.schema.data import NUISANCE_FIELDS, DataConfig


def data_fingerprint(cfg: DataConfig) -> dict[str, Any]:
    """{"digest", "description", "summary"}: sha256 hex, the plain dict it is of, and one line in words for table footnotes.

    The description holds the content of the files (or the renderer's version), split and transform. File digests are remembered by
    (path, size, modification time) in the user's cache, so a second call is fast; the digest itself depends on content alone.
    Raises UserError as `build_dataset` does.
    """
    from pipeline.data.transforms import TRANSFORM_VERSION

    settings = {key: value for key, value in cfg.identity_values().items() if key not in NUISANCE_FIELDS}
    description: dict[str, Any] = {"settings": settings, "transform_version": TRANSFORM_VERSION}
    if cfg.name == "procfaces":
        from pipeline.data.procfaces import RENDERER_VERSION

        description |= {"renderer_version": RENDERER_VERSION, "label_space": "celebamask_hq", "split_rule": "indices"}
    else:
        from pipeline.data.sources import open_source

        description |= open_source(cfg).describe()
    return {"digest": canonical_digest(description), "description": description, "summary": _summary(cfg, description)}


def _summary(cfg: DataConfig, description: dict[str, Any]) -> str:
    """For instance "procfaces 32x32, 512 train, 64 val, 128 test images"."""
    height, width = cfg.hw
    parts = []
    for split in SPLITS:
        found = description["splits"][split]["images"] if "splits" in description else None
        counts = [count for count in (cfg.count_limit(split), found) if count is not None]
        parts.append(f"{min(counts)} {split}")
    rule = "" if cfg.name == "procfaces" else f", split {description['split_rule']}"
    return f"{cfg.name} {width}x{height}, {', '.join(parts)} images{rule}"
