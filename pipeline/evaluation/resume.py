"""The state of an evaluation in progress, kept on disk so that a killed one goes on where it stopped."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.data.types import Dataset
from pipeline.identity import file_digest
from pipeline.metrics.accumulate import Contribution
from pipeline.models.contract import Generator
from pipeline.provenance import code_version
from pipeline.records import atomic
from pipeline.records.kept import kept_at
from pipeline.schema.evaluation import ProtocolConfig
from pipeline.weights import FILES, find


def resume_folder(
    cache: Path | None,
    generator: Generator,
    dataset: Dataset,
    protocol: ProtocolConfig,
    groups: tuple[str, ...],
    total: int,
    owner: str,
) -> Path | None:
    """Where the state of this very evaluation is kept: named by owner, weights, data keys, protocol, groups and code.

    And by the files that judge, an external segmenter and the weights of metrics that are there: a metric that has become
    available begins with the first image, and so does what another version of the code or of a file began.
    """
    if cache is None:
        return None
    weights = hashlib.sha256(type(generator).__qualname__.encode())
    for name, tensor in sorted(generator.state_dict().items()):
        weights.update(name.encode())
        weights.update(tensor.detach().cpu().contiguous().view(-1).to(torch.float32).numpy().tobytes())
    depends_on = [
        owner, weights.hexdigest(), list(dataset.keys[:total]), [dataset.height, dataset.width], dataset.label_space.name,
        protocol.digest_for(inverts=generator.capabilities.layout == "own"), protocol.batch_size, list(groups),
        code_version()["code_digest"], _content(protocol.segmenter.external),
        [[file.name, path.stat().st_size] for file in FILES.values() if (path := find(file, protocol.weights_dir))],
    ]  # fmt: skip
    return kept_at(cache / "evaluating", depends_on, suffix="")


def _content(file: str | None) -> str:
    """sha256 of a file; "" of none, and of one that is not there, which is refused where it is opened."""
    return file_digest(Path(file)) if file is not None and Path(file).is_file() else ""


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
        arrays: dict[str, Any] = {key.replace("/", "|"): value for key, value in contribution.items()}
        atomic.write_with(self._path(stage, index), lambda file: np.savez(file, **arrays), durable=False)

    def clear(self) -> None:
        """Remove everything stored: the evaluation is complete and its rows are about to be written."""
        if self.folder is None or not self.folder.is_dir():
            return
        shutil.rmtree(self.folder)  # parts that a kill left half written too

    def _path(self, stage: str, index: int) -> Path:
        assert self.folder is not None, "paths exist only with a folder"
        return self.folder / f"{stage}_{index:06d}.npz"
