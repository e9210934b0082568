"""The look of figures: one style file, one colour-blind safe palette, files that are equal for equal input."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

STYLE_FILE = Path(__file__).with_name("ca2sis.mplstyle")

# Okabe and Ito (2008), "Color universal design", darkened where a thin line on white would be too faint (yellow is left
# out for that reason); told apart by people with protanopia, deuteranopia and tritanopia, and by lightness in print.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#B0598F", "#C98A00", "#3D9AD1", "#4A4A4A", "#7B3FA0")
TRIVIAL_COLOUR = "#8A94A3"  # a rule that learns nothing: always grey
INK = "#1F2733"
MUTED = "#5A6372"
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.4)), (0, (5, 1.6, 1, 1.6)))


@dataclass(frozen=True)
class ArmLook:
    """How one arm is drawn in every figure of a study: colour, marker and dash all differ, so none carries it alone."""

    colour: str
    marker: str
    dash: Any


def arm_looks(arms: Sequence[str], *, reference: str | None = None, trivial: Sequence[str] = ()) -> dict[str, ArmLook]:
    """Give each arm its look. The reference takes the first colour, trivial ones are grey, the rest keep their order.

    Past the eighth arm colours repeat with another marker and dash, so looks stay distinct for 32 arms.
    """
    learned = [arm for arm in arms if arm not in trivial]
    learned.sort(key=lambda arm: arm != reference)  # stable: only moves the reference to the front
    looks = {}
    for index, arm in enumerate(learned):
        turn = index // len(PALETTE)
        looks[arm] = ArmLook(
            PALETTE[index % len(PALETTE)], MARKERS[(index + turn) % len(MARKERS)], DASHES[turn % len(DASHES)]
        )
    for arm in trivial:
        looks[arm] = ArmLook(TRIVIAL_COLOUR, "h", (0, (2, 2)))
    return {arm: looks[arm] for arm in arms}


@contextlib.contextmanager
def figure_style() -> Iterator[None]:
    """Draw inside this block: Agg canvas and the style file, whatever the user's matplotlibrc says."""
    import matplotlib

    matplotlib.use("Agg", force=False)
    import matplotlib.pyplot as plt

    with plt.style.context(["default", str(STYLE_FILE)]), warnings.catch_warnings():
        # A script without a glyph in the font shows as a box, which a reader sees; the warning would only repeat it.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        warnings.filterwarnings("ignore", message=r"Matplotlib currently does not support .* natively")
        yield
        plt.close("all")


def encode(figure: Figure, kind: str, frame: Bbox) -> bytes:
    """The part `frame` (inches) of a figure as "png", "pdf" or "svg" bytes without dates: equal figures, equal bytes."""
    metadata: dict[str, dict[str, Any]] = {
        "png": {"Software": None},
        "pdf": {"CreationDate": None, "ModDate": None, "Producer": None, "Creator": None},
        "svg": {"Date": None, "Creator": None},
    }
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, metadata=metadata[kind], bbox_inches=frame)
    return buffer.getvalue()


def arrow(direction: str) -> str:
    """The arrow that says which way is better: up, down or nothing."""
    return {"max": " ↑", "min": " ↓"}.get(direction, "")


def number(value: float, digits: int = 4, *, sign: bool = False) -> str:
    """A number with `digits` significant digits, zeros kept ("22.30"), a true minus sign; 1e9 and such as powers."""
    import math

    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    exponent = math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}"))))
    form = f".{max(0, digits - 1 - exponent)}f" if -4 <= exponent < 7 else f".{digits - 1}e"
    text = format(abs(value), form)
    return ("−" if value < 0 else "+" if sign else "") + text


def axis_label(metric: str, unit: str, direction: str) -> str:
    """Axis label of a metric: name, unit in brackets, arrow of direction."""
    return f"{metric} [{unit}]{arrow(direction)}" if unit else f"{metric}{arrow(direction)}"


def shorten(text: str, width: int = 34) -> str:
    """Cut a label to `width` characters with an ellipsis, on one line; the full text stands in the table."""
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"


def shorten_apart(texts: Sequence[str], width: int = 34) -> list[str]:
    """`shorten` each; texts that differ stay different: where their beginnings agree, the end is kept instead, else a number."""
    flat = [" ".join(text.split()) for text in texts]
    short = [shorten(text, width) for text in flat]
    ends = [
        f"…{full[1 - width :].lstrip()}" if len(full) > width and _ambiguous(index, short, flat) else cut
        for index, (full, cut) in enumerate(zip(flat, short, strict=True))
    ]
    return [
        f"{shorten(cut, width - 4)} ({index + 1})" if _ambiguous(index, ends, flat) else cut
        for index, cut in enumerate(ends)
    ]


def _ambiguous(index: int, shown: Sequence[str], meant: Sequence[str]) -> bool:
    """Whether something else is shown by the same words."""
    others = zip(shown, meant, strict=True)
    return any(text == shown[index] and full != meant[index] for text, full in others)


def wrap(text: str, width: int = 18, lines: int = 3) -> str:
    """Break a label into at most `lines` lines of about `width` characters."""
    import textwrap

    rows = textwrap.wrap(" ".join(text.split()), width=width) or [""]
    if len(rows) > lines:
        rows = [*rows[: lines - 1], shorten(" ".join(rows[lines - 1 :]), width)]
    return "\n".join(rows)


def strip_frame(axes: Axes) -> None:
    """Turn an axes into a bare image cell."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
