"""Config of the region-mean painter: a rule without parameters, so there is nothing to set."""

from __future__ import annotations

from typing import Literal

from pipeline.schema.base import ModelSection


class PainterModel(ModelSection):
    """Paints each region with the reference's mean colour of that class; the row every table is held against."""

    family: Literal["painter"]
