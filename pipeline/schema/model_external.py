"""Config of pictures that other code has made: what is known of them is a name, a digest, and how they were brought to size."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipeline.schema.base import ModelSection

ResizeFilter = Literal["none", "nearest", "box", "bilinear", "bicubic", "lanczos"]  # Pillow's, with antialiasing


class ExternalModel(ModelSection):
    """Stands where a family's section would: no config chooses it, `pipeline import-images` writes it."""

    family: Literal["external"]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.+-]*$", description="letters, digits, _ . + and -")]
    pictures: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]  # digest of names and files
    resize: ResizeFilter  # none: the pictures had the data's size

    @property
    def only_pictures(self) -> bool:
        """Always: there is no network."""
        return True
