"""How much of the photos a training size cuts away, and which aspect cuts away little: nothing is lost unseen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median

from pipeline.data.adapters.prepared import MANIFEST, read_manifest
from pipeline.data.listing import SampleFiles
from pipeline.data.reading import photo_size
from pipeline.data.sources import open_source
from pipeline.data.transforms import ResizeMode, source_box
from pipeline.schema.data import DataConfig

STEPS = 4  # a proposed long side is so many parts of the short one, or a multiple: networks that halve can then draw it
LONGEST = 4.0  # of a proposed aspect
LOOKED_AT = 500  # photos whose headers are read where no manifest says their sizes
TELLING = 0.005  # share below which a crop cuts away nothing to speak of

Size = tuple[int, int]  # width, height


def usual_aspect(sizes: Sequence[Size]) -> float:
    """width / height of the median photo, the long side rounded to quarters of the short one (0.667: portraits of 2:3)."""
    middle = median(math.log(width / height) for width, height in sizes)
    long = min(LONGEST, max(1.0, round(STEPS * math.exp(abs(middle))) / STEPS))
    return long if middle > 0 else 1.0 / long


def default_aspect(root: str | None) -> float:
    """The aspect for data below `root` where a config sets none: what their manifest proposes, else 1."""
    if root is None or not (Path(root) / MANIFEST).is_file():
        return 1.0
    return float(read_manifest(Path(root)).get("aspect", 1.0))


def cut_away(sizes: Sequence[Size], aspect: float, mode: ResizeMode) -> float:
    """Mean share of the photos' area that is cut away at a training size of this aspect."""
    boxes = (source_box(width / height, aspect, mode) for width, height in sizes)
    return fmean(1.0 - (right - left) * (bottom - top) for left, top, right, bottom in boxes)


def photo_sizes(listed: Sequence[SampleFiles]) -> list[Size]:
    """Sizes of the photos, upright; of many without a manifest, those of some, evenly spread."""
    if all(files.size is not None for files in listed):
        return [files.size for files in listed if files.size is not None]
    return [photo_size(files.photo) for files in listed[:: -(-len(listed) // LOOKED_AT)]]


def cropping(sizes: Sequence[Size], aspect: float, mode: ResizeMode) -> str:
    """What a crop does to photos, for people, and which aspect would do less; "" where nothing is cropped."""
    if mode == "stretch":
        return ""
    share, better = cut_away(sizes, aspect, mode), usual_aspect(sizes)
    if share < TELLING:
        return f"data.aspect={aspect:.4g} keeps the photos whole"
    least = cut_away(sizes, better, mode)
    hint = f"; data.aspect={better:.4g} would cut away {percent(least)}" if share - least > TELLING else ""
    return f"data.aspect={aspect:.4g} cuts away {percent(share)} of the photos (all but their middle){hint}"


def run_cropping(cfg: DataConfig) -> str:
    """`cropping` of what a run trains on."""
    if cfg.name == "procfaces" or cfg.resize == "stretch":
        return ""
    return cropping(photo_sizes(open_source(cfg).splits["train"]), cfg.aspect, cfg.resize)


def percent(share: float) -> str:
    """0.333 -> "33 %"."""
    return f"{100 * share:.0f} %" if share >= TELLING else "nothing"
