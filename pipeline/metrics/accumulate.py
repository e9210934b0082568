"""Map and reduce of an evaluation: what one batch contributes, how contributions add up, and how they survive a kill.

A contribution is a dict of arrays; the prefix of the key says how it is reduced: `each/` one value an image, concatenated;
`sum/` added; `feat/` rows of features, concatenated. Nothing of the images themselves is kept, so memory stays bounded.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.records import atomic

Contribution = dict[str, NDArray]


@dataclass
class Totals:
    """Reduced contributions of the batches seen so far, in order."""

    parts: dict[str, list[NDArray]] = field(default_factory=dict)
    sums: dict[str, NDArray] = field(default_factory=dict)

    def add(self, contribution: Contribution) -> None:
        """Reduce one more batch; a key without a known prefix raises ValueError."""
        for key, value in contribution.items():
            kind = key.partition("/")[0]
            if kind == "sum":
                self.sums[key] = value if key not in self.sums else self.sums[key] + value
            elif kind in ("each", "feat"):
                self.parts.setdefault(key, []).append(value)
            else:
                raise ValueError(f"contribution {key!r}: the prefix must be each/, sum/ or feat/")

    def stacked(self, key: str) -> NDArray:
        """All rows of an `each/` or `feat/` key, in the order of the images."""
        return np.concatenate(self.parts[key])

    def each(self) -> dict[str, NDArray]:
        """Every `each/` key without its prefix."""
        return {key[5:]: np.concatenate(value) for key, value in self.parts.items() if key.startswith("each/")}

    def has(self, key: str) -> bool:
        """Whether any batch contributed `key`."""
        return key in self.parts or key in self.sums


class Resume:
    """Contributions on disk while an evaluation runs, under a digest of everything they depend on; None folder: nowhere."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def get(self, stage: str, index: int) -> Contribution | None:
        """The stored contribution of batch `index` of `stage`, or None; an unreadable file counts as absent."""
        if self.folder is None:
            return None
        path = self._path(stage, index)
        try:
            with np.load(path, allow_pickle=False) as archive:
                return {key.replace("|", "/"): archive[key] for key in archive.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return None

    def put(self, stage: str, index: int, contribution: Contribution) -> None:
        """Store a contribution atomically."""
        if self.folder is None:
            return
        buffer = io.BytesIO()
        np.savez(buffer, **{key.replace("/", "|"): value for key, value in contribution.items()})  # type: ignore[arg-type]
        atomic.write_bytes(self._path(stage, index), buffer.getvalue(), durable=False)

    def clear(self) -> None:
        """Remove everything stored: the evaluation is complete and its rows are about to be written."""
        if self.folder is None or not self.folder.is_dir():
            return
        for path in self.folder.glob("*.npz"):
            path.unlink(missing_ok=True)
        self.folder.rmdir()

    def _path(self, stage: str, index: int) -> Path:
        assert self.folder is not None, "paths exist only with a folder"
        return self.folder / f"{stage}_{index:06d}.npz"
