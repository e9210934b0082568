"""A data set as it lies on disk: which files belong together, in which split, in which label space.

`open_source` finds the layout (prepared, or one of those users download), pairs photos with labels by name, and
applies the split rule. It reads no pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.data.adapters import find_listing
from pipeline.data.digests import file_digests
from pipeline.data.label_spaces import LabelSpace
from pipeline.data.listing import SampleFiles
from pipeline.data.splits import divide
from pipeline.data.types import Split
from pipeline.errors import UserError
from pipeline.identity import canonical_digest
from pipeline.schema.data import DataConfig


@dataclass(frozen=True)
class Source:
    """A data set with its split decided."""

    name: str
    root: Path
    layout: str
    space: LabelSpace
    split_rule: str  # the rule that was applied; never "auto"
    splits: dict[Split, tuple[SampleFiles, ...]]

    def describe(self) -> dict[str, Any]:
        """Plain description by content, without paths of this machine: digest of names and files of every split, rule, classes."""
        digests = file_digests(
            self.root, sorted({path for listed in self.splits.values() for r in listed for path in _paths(r)})
        )
        return {
            "layout": self.layout,
            "label_space": self.space.name,
            "classes": list(self.space.classes),
            "split_rule": self.split_rule,
            "splits": {
                split: {
                    "images": len(listed),
                    "sha256": canonical_digest([[r.key, *(digests[p] for p in _paths(r))] for r in listed]),
                }
                for split, listed in self.splits.items()
            },
        }


def _paths(files: SampleFiles) -> list[Path]:
    return [files.photo, files.label] + ([files.instance] if files.instance else [])


def open_source(cfg: DataConfig) -> Source:
    """The source a config names.

    UserError: no root, no such folder, unknown layout or label space, unpaired files, empty split.
    """
    if cfg.root is None:
        raise UserError(f"data.root is not set: data={cfg.name} needs the folder it lies in (data.root=PATH)")
    root = Path(cfg.root)
    if not root.is_dir():
        raise UserError(f"data.root={cfg.root}: no such folder (data={cfg.name})")
    listing = find_listing(cfg.name, root, cfg.label_space)
    rule, splits = divide(cfg, listing, root)
    return Source(cfg.name, root, listing.name, listing.space, rule, splits)
