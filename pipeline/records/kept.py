"""Arrays kept under the digest of all they depend on: read where they are there, else made; deleting them loses time alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.identity import canonical_digest
from pipeline.records import atomic


def kept_at(folder: Path, depends_on: object, suffix: str = ".npy") -> Path:
    """The file in `folder` for what follows from plain `depends_on` alone."""
    return folder / f"{canonical_digest(depends_on)[:32]}{suffix}"


def read_array(path: Path | None, shape: tuple[int, ...] | None = None) -> NDArray | None:
    """The array in `path`; None without a path, and where the file is absent, cut off or of another shape than `shape`."""
    try:
        array: NDArray | None = None if path is None else np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return array if array is None or shape is None or array.shape == shape else None


def write_array(path: Path, array: NDArray) -> None:
    """Keep `array` in `path`, in one step."""
    atomic.write_with(path, lambda file: np.save(file, array, allow_pickle=False))


def kept_array(path: Path | None, make: Callable[[], NDArray], shape: tuple[int, ...] | None = None) -> NDArray:
    """What `read_array` finds in `path`, else what `make` gives, which is then kept there (without a path: nowhere)."""
    array = read_array(path, shape)
    if array is None:
        array = make()
        if path is not None:
            write_array(path, array)
    return array
