"""What a figure is to the rest of the code: pictures with their words, and what was left out with the reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.figures.style import encode, figure_style
from pipeline.records import atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure


MARGIN_INCHES = 0.04


class NotDrawable(Exception):
    """A study has no data for a figure; the text says what is missing."""


@dataclass(frozen=True)
class Drawing:
    """A matplotlib figure with its words, before it is encoded."""

    figure: Figure
    title: str
    caption: str  # what is drawn, what intervals mean, how many runs
    alt: str  # the same for readers who cannot see it: the values that matter
    photographic: bool = False  # made of images: no vector version for the report


@dataclass(frozen=True)
class Picture:
    """One finished figure: `name` is the stem of its files."""

    name: str
    title: str
    caption: str
    alt: str
    png: bytes
    pdf: bytes
    svg: bytes | None  # None for grids of images


@dataclass(frozen=True)
class LeftOut:
    """A figure that the study has no data for."""

    name: str
    title: str
    reason: str


@dataclass(frozen=True)
class FigureSet:
    """All figures of a study."""

    pictures: tuple[Picture, ...]
    left_out: tuple[LeftOut, ...]

    def save(self, folder: Path) -> list[Path]:
        """Write `<name>.png` and `<name>.pdf` of every picture into `folder`; returns the paths in order.

        Figures of an earlier build that this one no longer has are removed, so the folder never mixes two states.
        """
        paths = []
        for picture in self.pictures:
            for kind, data in (("png", picture.png), ("pdf", picture.pdf)):
                path = folder / f"{picture.name}.{kind}"
                atomic.write_bytes(path, data)
                paths.append(path)
        for missing in self.left_out:
            for kind in ("png", "pdf"):
                (folder / f"{missing.name}.{kind}").unlink(missing_ok=True)
        return paths


def render(name: str, draw: Callable[[], Drawing]) -> Picture:
    """Call `draw` inside the figure style and encode what it returns. Raises NotDrawable when the data are missing."""
    with figure_style():
        drawing = draw()
        figure = drawing.figure
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # laid out and cropped once, for all three encodings
        frame = figure.get_tightbbox().padded(MARGIN_INCHES)
        return Picture(
            name=name,
            title=drawing.title,
            caption=drawing.caption,
            alt=drawing.alt,
            png=encode(figure, "png", frame),
            pdf=encode(figure, "pdf", frame),
            svg=None if drawing.photographic else encode(figure, "svg", frame),
        )
