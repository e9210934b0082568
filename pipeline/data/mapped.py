"""The prepared cache: one split's samples at the training size as memory-mapped arrays, so that loading costs nothing.

A cache is named by the data fingerprint (content of the files, split, transform), so it is never stale; it is built
in a folder of its own and renamed into place, so several writers at once end with one complete cache.
"""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.data.digests import user_cache
from pipeline.data.fingerprint import data_fingerprint
from pipeline.data.types import Dataset, Sample, Split
from pipeline.errors import UserError
from pipeline.progress import LongStep
from pipeline.records import atomic
from pipeline.records.kept import kept_at
from pipeline.schema.data import DataConfig

_FORMAT = 1


def cache_folder(cfg: DataConfig, split: Split, shared: Path | None = None) -> Path:
    """Where the cache of `split` lies (whether or not it is built): `<root>/mapped/<digest>`.

    The root is the config's `cache_root`, else `shared`, else the user's cache folder.
    """
    base = Path(cfg.cache_root) if cfg.cache_root is not None else shared or user_cache()
    named = {"format": _FORMAT, "data": data_fingerprint(cfg)["digest"], "split": split}
    return kept_at(base / "mapped", named, suffix="")


class Mapped:
    """A data set whose training samples come from a memory-mapped file, built on first use."""

    def __init__(self, cfg: DataConfig, source: Dataset, split: Split, shared: Path | None = None) -> None:
        self.source = source
        self.label_space, self.keys = source.label_space, source.keys
        self.height, self.width, self.load_scale = source.height, source.width, source.load_scale
        self.folder, self._workers = cache_folder(cfg, split, shared), cfg.workers
        self._maps: _Maps | None = None  # opened, or built, for the first sample: a mistake elsewhere costs no decoding

    def __len__(self) -> int:
        return len(self.source)

    def for_training(self, index: int) -> Sample:
        """As the source's, copied out of the map."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        maps = self._opened()
        instance = None if maps.instance is None else np.array(maps.instance[index])
        return Sample(np.array(maps.image[index]), np.array(maps.label[index]), self.keys[index], instance)

    def __getitem__(self, index: int) -> Sample:
        """Sample at the training size: from the map, or decoded again where training sees larger samples."""
        return self.for_training(index) if self.load_scale == 1.0 else self.source[index]

    def _opened(self) -> _Maps:
        if self._maps is None:
            if not self.folder.is_dir():
                _build(self.folder, self.source, self._workers)
            meta = json.loads((self.folder / "meta.json").read_text(encoding="utf-8"))
            shape = (len(self.source), meta["height"], meta["width"])
            self._maps = _Maps(
                np.memmap(self.folder / "image.u8", dtype=np.uint8, mode="r", shape=(*shape, 3)),
                np.memmap(self.folder / "label.u8", dtype=np.uint8, mode="r", shape=shape),
                np.memmap(self.folder / "instance.i32", dtype=np.int32, mode="r", shape=shape)
                if meta["instances"]
                else None,
            )
        return self._maps


@dataclass(frozen=True)
class _Maps:
    image: np.memmap  # (N,H,W,3) uint8
    label: np.memmap  # (N,H,W) uint8
    instance: np.memmap | None  # (N,H,W) int32


def _build(folder: Path, source: Dataset, workers: int) -> None:
    """Decode every sample into a new cache, unless another process makes the same one: then wait for it and take it."""
    building = folder.with_suffix(".building")
    with atomic.patient_lock(folder.with_suffix(".lock")):
        if folder.is_dir():
            return
        try:
            shutil.rmtree(building, ignore_errors=True)  # of a writer that was killed
            building.mkdir()
            _write(building, source, max(1, workers))
            building.rename(folder)
        except OSError as error:
            shutil.rmtree(building, ignore_errors=True)
            raise UserError(f"{folder}: the cache cannot be written ({atomic.reason(error)})") from error


def _write(folder: Path, source: Dataset, workers: int) -> None:
    first = source.for_training(0)
    meta = {
        "height": first.label.shape[0],
        "width": first.label.shape[1],
        "instances": first.instance is not None,
        "classes": list(source.label_space.classes),
        "keys": list(source.keys),
    }
    with (
        (folder / "image.u8").open("wb") as images,
        (folder / "label.u8").open("wb") as labels,
        (folder / "instance.i32").open("wb") as instances,
        ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool,
    ):
        step = 4 * workers  # bounds how many decoded samples wait in memory
        shown = LongStep("preparing samples, once for all runs here:", len(source))
        for begin in range(0, len(source), step):
            indices = range(max(begin, 1), min(begin + step, len(source)))
            decoded = pool.map(source.for_training, indices)
            for sample in [first, *decoded] if begin == 0 else decoded:
                images.write(sample.image.tobytes())
                labels.write(sample.label.tobytes())
                if sample.instance is not None:
                    instances.write(sample.instance.tobytes())
            shown.update(min(begin + step, len(source)))
        for stream in (images, labels, instances):
            stream.flush()
            os.fsync(stream.fileno())
    (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
