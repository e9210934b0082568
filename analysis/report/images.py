"""Images inside the report: each stored once as a data URI, within a budget of bytes that keeps the file small."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.figures.samples import SampleSet, choose_samples
from analysis.figures.study_data import StudyData
from analysis.figures.style import number
from pipeline.errors import UserError

SAMPLE_BYTES = 8_000_000  # of sample images as base64; figures and text stay well below the rest of 20 MB
MAX_INPUTS = 16
JPEG_QUALITY = 88


@dataclass(frozen=True)
class Comparer:
    """What the image comparison shows. `images` are data URIs, everything else refers to them by position."""

    images: tuple[str, ...]
    items: tuple[
        dict[str, Any], ...
    ]  # {"key", "word", "style", "mask", "target", "outputs": {arm: position}, "scores"}
    arms: tuple[str, ...]  # arms that have outputs
    side: int  # pixels of the longer side of an output
    note: str


def build_comparer(data: StudyData, samples: SampleSet | None, rule: str) -> Comparer | None:
    """Collect the images of a sample set; None without any.

    Over the budget images become JPEG, and then fewer inputs are kept; `note` says so.
    """
    if samples is None or not any(
        item.files.get("output") for by_key in samples.by_arm.values() for item in by_key.values()
    ):
        return None
    notes = [f"Seed {samples.seed}, protocol {samples.protocol}."]
    if samples.without:
        notes.append(f"Without images: {', '.join(data.labels[arm] for arm in samples.without)}.")
    found = _collect(data, samples, rule, MAX_INPUTS, _as_is)
    if _size(found) > SAMPLE_BYTES:
        notes.append("Images are stored as JPEG to keep the file small.")
        count = MAX_INPUTS
        found = _collect(data, samples, rule, count, _jpeg)
        while _size(found) > SAMPLE_BYTES and count > 1:
            count //= 2
            found = _collect(data, samples, rule, count, _jpeg)
    images, items, explained = found
    notes.append(f"{len(items)} of {len(samples.keys)} recorded inputs: {explained}.")
    arms = tuple(arm for arm in data.arms if any(arm in item["outputs"] for item in items))
    return Comparer(tuple(images), tuple(items), arms, _side(samples), " ".join(notes))


Found = tuple[list[str], list[dict[str, Any]], str]


def _collect(data: StudyData, samples: SampleSet, rule: str, count: int, encode: Callable[[Path], str]) -> Found:
    choice = choose_samples(data, samples, rule, count)
    positions: dict[str, int] = {}  # data URI -> position: equal images are stored once

    def place(path: Path | None) -> int | None:
        return None if path is None else positions.setdefault(encode(path), len(positions))

    metric = data.primary
    items = []
    for key, word in zip(choice.keys, choice.words, strict=True):
        of_key = {arm: samples.by_arm[arm][key] for arm in data.arms if arm in samples.by_arm}
        shared = {
            what: next((place(sample.files[what]) for sample in of_key.values() if what in sample.files), None)
            for what in ("style", "mask", "target")
        }
        items.append(
            {
                "key": key,
                "word": word,
                **shared,
                "outputs": {arm: place(s.files["output"]) for arm, s in of_key.items() if "output" in s.files},
                "scores": {
                    arm: f"{metric.label} {number(s.scores[metric.name])}{f' {metric.unit}' if metric.unit else ''}"
                    for arm, s in of_key.items()
                    if metric is not None and metric.name in s.scores
                },
            }
        )
    return list(positions), items, choice.rule


def _size(found: Found) -> int:
    return sum(len(image) for image in found[0])


def _side(samples: SampleSet) -> int:
    from PIL import Image

    for by_key in samples.by_arm.values():
        for sample in by_key.values():
            if "output" in sample.files:
                with Image.open(sample.files["output"]) as image:
                    return max(image.size)
    return 0


def data_uri(data: bytes, kind: str) -> str:
    """A data URI of bytes of the media type `kind`."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _as_is(path: Path) -> str:
    """A PNG as it lies on disk; anything that does not read as an image is refused."""
    _check(path)
    return data_uri(path.read_bytes(), "image/png")


def _jpeg(path: Path) -> str:
    _check(path)
    return jpeg_uri(path.read_bytes())


def jpeg_uri(data: bytes) -> str:
    """Any image file's bytes, encoded again as JPEG."""
    from PIL import Image

    buffer = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        image.convert("RGB").save(buffer, format="JPEG", quality=JPEG_QUALITY)
    return data_uri(buffer.getvalue(), "image/jpeg")


def _check(path: Path) -> None:
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, SyntaxError) as error:
        raise UserError(f"{path} is not a readable image") from error
