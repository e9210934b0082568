"""What a figure is to the rest of the code: pictures with their words, and what was left out with the reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.figures.style import encode, figure_style
from pipeline.errors import UserError
from pipeline.records import atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure


MARGIN_INCHES = 0.08  # letters are a little wider at the resolution of a file than at that of the layout
WRITTEN = "index.json"  # names of the files that a build wrote into its folder


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

        Figures of an earlier build that this one no longer has are removed, so the folder never mixes two states; `WRITTEN`
        lists them, and no other file is touched. In a folder without that list they are those called like what is left out.
        """
        files = {
            f"{item.name}.{kind}": data
            for item in self.pictures
            for kind, data in (("png", item.png), ("pdf", item.pdf))
        }
        missing = {f"{item.name}.{kind}" for item in self.left_out for kind in ("png", "pdf")}
        listed = _listed(folder / WRITTEN)
        for name in (missing if listed is None else listed) - set(files):
            (folder / name).unlink(missing_ok=True)
        atomic.write_json(folder / WRITTEN, sorted(files))  # before the files: a build cut off leaves none unlisted
        for name, data in files.items():
            atomic.write_bytes(folder / name, data)
        return [folder / name for name in files]


def _listed(index: Path) -> set[str] | None:
    """Names of figure files that an earlier build lists; None where there is no list, or nobody can read it."""
    try:
        listed = atomic.read_json(index)
    except UserError:
        return None
    if not isinstance(listed, list):
        return None
    names = [name for name in listed if isinstance(name, str) and name.endswith((".png", ".pdf"))]
    return {name for name in names if Path(name).name == name}  # a list never leads to files of other folders


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
