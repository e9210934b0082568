"""`data show`: a contact sheet of photos, label maps, overlays and a legend, as one PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pipeline.data.files import FileDataset
from pipeline.data.label_spaces import LabelSpace
from pipeline.data.types import Dataset, Sample

_MARGIN = 8
_LINE = 16
_INK = (230, 230, 230)
_PAPER = (24, 24, 28)
_OVERLAY = 0.5  # weight of the colours over the photo


def contact_sheet(
    samples: Sequence[Sample], space: LabelSpace, wholes: Sequence[NDArray[np.uint8]] | None = None
) -> Image.Image:
    """A row a sample (photo, label map in the palette, overlay), below them a legend of the classes that occur.

    `wholes`: pictures (H,W,3) of the samples' height that stand before them: the photos before they were cropped.
    """
    height, width = samples[0].label.shape
    rows: list[tuple[NDArray[np.uint8], ...]] = [_row(sample, space) for sample in samples]
    widths = [width] * 3
    if wholes is not None:
        rows = [(whole, *row) for whole, row in zip(wholes, rows, strict=True)]
        widths = [max(whole.shape[1] for whole in wholes), *widths]
    lefts = [_MARGIN + sum(widths[:column]) + column * _MARGIN for column in range(len(widths))]
    present = np.unique(np.concatenate([np.unique(sample.label) for sample in samples]))
    row_width = sum(widths) + (len(widths) - 1) * _MARGIN
    sheet_width = max(row_width, 320) + 2 * _MARGIN
    columns = max(1, (sheet_width - 2 * _MARGIN) // 160)
    legend_height = -(-len(present) // columns) * _LINE
    sheet_height = _MARGIN + len(rows) * (height + _LINE + _MARGIN) + legend_height + _MARGIN
    sheet = Image.new("RGB", (sheet_width, sheet_height), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=11)
    top = _MARGIN
    for sample, row in zip(samples, rows, strict=True):
        draw.text((_MARGIN, top), sample.key, fill=_INK, font=font)
        for left, picture in zip(lefts, row, strict=True):
            sheet.paste(Image.fromarray(picture), (left, top + _LINE))
        top += height + _LINE + _MARGIN
    for place, k in enumerate(present):
        left = _MARGIN + place % columns * 160
        line = top + place // columns * _LINE
        draw.rectangle((left, line + 2, left + 12, line + 12), fill=space.palette[int(k)])
        draw.text((left + 18, line), f"{int(k)} {space.classes[int(k)]}"[:24], fill=_INK, font=font)
    return sheet


def _row(sample: Sample, space: LabelSpace) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    colours = space.colours(sample.label)
    mixed = sample.image * (1 - _OVERLAY) + colours * _OVERLAY
    return sample.image, colours, mixed.astype(np.uint8)


def show(dataset: Dataset, path: Path, *, count: int) -> tuple[str, ...]:
    """Write the contact sheet of `count` samples spread over a data set; returns their keys. UserError.

    Not writable.
    """
    import io

    from pipeline.records.atomic import write_bytes

    chosen = sorted({round(i) for i in np.linspace(0, len(dataset) - 1, min(count, len(dataset)))})
    samples = [dataset[index] for index in chosen]
    stream = io.BytesIO()
    wholes = None
    if isinstance(dataset, FileDataset) and dataset.mode == "cover":
        wholes = [dataset.whole(index, dataset.height) for index in chosen]
    contact_sheet(samples, dataset.label_space, wholes).save(stream, format="PNG")
    write_bytes(path, stream.getvalue())
    return tuple(sample.key for sample in samples)
