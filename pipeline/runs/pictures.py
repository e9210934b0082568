"""The pictures of an external record: `pictures/WHAT/NAME.png` in its folder, at the data's size, each verified as it is read."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pipeline.data.batch import image_tensor
from pipeline.errors import UserError
from pipeline.records import RunRecord, atomic

INDEX = "index.json"  # {what: {name: sha256 of the file}}


class RecordPictures:
    """What an external record hands to an evaluation in a network's place (a `models.external.PictureSource`)."""

    def __init__(self, record: RunRecord) -> None:
        self.folder = record.path / "pictures"
        self.note: str = record.provenance["external"]["note"]
        self.index: dict[str, dict[str, str]] = atomic.read_json(self.folder / INDEX)

    def read(self, what: str, names: Sequence[str]) -> Tensor:
        """Pictures (N,3,H,W) float32 in [-1,1]; UserError naming a file that is missing or was changed."""
        return image_tensor(np.stack([self._read(what, name) for name in names]))

    def lacks(self, what: str, names: Sequence[str]) -> list[str]:
        """Which of the names there is no picture of."""
        return [name for name in names if name not in self.index.get(what, {})]

    def _read(self, what: str, name: str) -> NDArray[np.uint8]:
        path = self.folder / what / f"{name}.png"
        if name not in self.index.get(what, {}):
            raise UserError(f"{path}: no such picture was imported")
        try:
            data = path.read_bytes()
        except OSError as error:
            raise UserError(f"cannot read {path}: {atomic.reason(error)}") from error
        if hashlib.sha256(data).hexdigest() != self.index[what][name]:
            raise UserError(f"{path} is damaged: its sha256 is not the recorded one; import the pictures again")
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def keep_pictures(record: RunRecord, what: str, name: str, picture: NDArray[np.uint8]) -> str:
    """Write one picture (H,W,3) of a record that is being made; returns the sha256 of its file."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format="PNG")
    path: Path = record.path / "pictures" / what / f"{name}.png"
    atomic.write_bytes(path, stream.getvalue(), durable=False)
    return hashlib.sha256(stream.getvalue()).hexdigest()
