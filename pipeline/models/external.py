"""Pictures made by other code, in the place of a network: they are there by name, and nothing can be drawn anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from pipeline.errors import UserError
from pipeline.models.contract import Capabilities, Generator, Synthesis
from pipeline.schema.model_external import ExternalModel

RECONSTRUCTION = "reconstruction"  # of a sample, by its key; edits go by their task


class PictureSource(Protocol):
    """Where the pictures lie."""

    note: str  # what a reader of numbers measured on them must know, "" where nothing

    def read(self, what: str, names: Sequence[str]) -> Tensor:
        """Pictures (N,3,H,W) float32 in [-1,1] of `what` ("reconstruction" or an edit task) with these names."""
        ...

    def lacks(self, what: str, names: Sequence[str]) -> list[str]:
        """Which of the names there is no picture of."""
        ...


class ExternalPictures(Generator):
    """What an evaluation measures instead of a network. Without attention, style or cost: nothing but pictures is known."""

    source: PictureSource | None = None

    def __init__(self, cfg: ExternalModel, num_classes: int) -> None:
        super().__init__()
        self.config = cfg
        self.num_classes = num_classes
        self.stride = 1
        self.capabilities = Capabilities(style="none", learned=False, draws=False)
        self.name, self.resize = cfg.name, cfg.resize

    @property
    def pictures(self) -> PictureSource:
        """The pictures; UserError where none were handed over."""
        if self.source is None:
            raise UserError(f"{self.name} is no network: `python -m pipeline import-images` brings its pictures here")
        return self.source

    def encode_style(self, image: Tensor, mask: Tensor) -> Tensor:
        """Always UserError."""
        raise UserError(f"{self.name} was made by other code: only its pictures are here, and it draws no others")

    def synthesize(self, mask: Tensor, style: Tensor, *, attention: bool = True) -> Synthesis:
        """Always UserError."""
        raise UserError(f"{self.name} was made by other code: only its pictures are here, and it draws no others")


def build(cfg: ExternalModel, num_classes: int, size: tuple[int, int]) -> Generator:
    """Without pictures: the record that holds them hands them over."""
    return ExternalPictures(cfg, num_classes)
