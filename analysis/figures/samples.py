"""Recorded sample images: reading them, and choosing which inputs a grid shows by a rule that is stated beside it.

A run keeps them in `samples/<protocol>/`: PNG files and `index.json` = {"items": [{"index", "key", <metric>: number,
"files": {"style", "mask", "target", "output", "attention_classes": [one a level]},
"edits": [{"task", "region", "file", "layout", "reference", "truth"}]}]}. All runs of a study keep the same keys. Masks, layouts
and attention classes (the strongest class by pixel) are palette PNGs: index = class, colour = the class's.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.figures.study_data import StudyData
from pipeline.errors import UserError
from pipeline.records import RunRecord
from pipeline.records.atomic import read_json


@dataclass(frozen=True)
class Edit:
    """One edited image of a sample."""

    task: str
    file: Path
    truth: Path | None  # the edit's ground truth, where the renderer is known
    region: str = ""  # what was edited; "" where the index does not say, "all" for the whole image
    layout: Path | None = None  # the mask that the edit was made for
    reference: Path | None = None  # where style or shape came from

    @property
    def label(self) -> str:
        """Task and region in few words: "style + shape: hair"."""
        words = self.task.removesuffix("_transfer").replace("_and_", " + ").replace("_", " ")
        return words if self.region in ("", "all") else f"{words}: {self.region}"


@dataclass(frozen=True)
class Sample:
    """One input with what a run made of it. Files that the index names but the folder lacks are absent."""

    key: str
    scores: Mapping[str, float]
    files: Mapping[str, Path]  # "style" | "mask" | "target" | "output"
    attention: tuple[Path, ...]  # strongest class by pixel, in the order of the network's levels
    edits: tuple[Edit, ...]


@dataclass(frozen=True)
class SampleSet:
    """The samples of a study at one seed: `by_arm[arm][key]`, keys that all these arms share, in recorded order."""

    protocol: str
    seed: int
    keys: tuple[str, ...]
    by_arm: Mapping[str, Mapping[str, Sample]]
    without: tuple[str, ...]  # arms that have no samples at this seed


def read_samples(run: RunRecord, protocol: str) -> dict[str, Sample]:
    """Samples of one run by key, in recorded order; empty when it kept none. Raises UserError on a damaged index."""
    folder = run.path / "samples" / protocol
    path = folder / "index.json"
    if not path.exists():
        return {}
    document = read_json(path)
    items = document.get("items") if isinstance(document, dict) else None
    if not isinstance(items, list):
        raise UserError(f"{path} has no list of items")
    return {sample.key: sample for sample in (_sample(folder, item) for item in items if isinstance(item, dict))}


def _sample(folder: Path, item: dict[str, Any]) -> Sample:
    files = item.get("files") or {}
    edits = item.get("edits") or []
    return Sample(
        key=str(item.get("key", item.get("index", ""))),
        scores={
            name: float(value)
            for name, value in item.items()
            if name != "index"
            and isinstance(value, int | float)
            and not isinstance(value, bool)
            and math.isfinite(value)
        },
        files={
            what: path
            for what in ("style", "mask", "target", "output")
            if (path := _inside(folder, files.get(what))) is not None
        },
        attention=tuple(
            path for name in files.get("attention_classes") or [] if (path := _inside(folder, name)) is not None
        ),
        edits=tuple(
            Edit(
                str(edit.get("task", "")),
                path,
                _inside(folder, edit.get("truth")),
                str(edit.get("region", "")),
                _inside(folder, edit.get("layout")),
                _inside(folder, edit.get("reference")),
            )
            for edit in edits
            if (path := _inside(folder, edit.get("file"))) is not None
        ),
    )


def _inside(folder: Path, name: object) -> Path | None:
    """The named file if it exists in `folder` itself: an index never leads a report to other files."""
    if not isinstance(name, str) or Path(name).name != name:
        return None
    path = folder / name
    return path if path.is_file() else None


def study_samples(data: StudyData, protocol: str | None = None) -> SampleSet | None:
    """Samples of all arms at the seed at which most arms have them (the lowest of equals); None without any."""
    wanted = protocol or data.manifest.protocol
    best: tuple[int, int, dict[str, dict[str, Sample]]] | None = None
    for seed in data.manifest.seeds:
        found = {}
        for arm in data.arms:
            run = data.runs.get(arm, {}).get(seed)
            samples = {} if run is None else read_samples(run, wanted)
            samples = {key: sample for key, sample in samples.items() if "output" in sample.files or sample.edits}
            if samples:
                found[arm] = samples
        if found and (best is None or len(found) > best[0]):
            best = (len(found), seed, found)
    if best is None:
        return None
    _, seed, by_arm = best
    first = next(iter(by_arm.values()))
    keys = tuple(key for key in first if all(key in samples for samples in by_arm.values()))
    return SampleSet(wanted, seed, keys, by_arm, tuple(arm for arm in data.arms if arm not in by_arm)) if keys else None


@dataclass(frozen=True)
class Choice:
    """Chosen keys, a word for each ("best", "median", ...) and the rule in a sentence."""

    keys: tuple[str, ...]
    words: tuple[str, ...]
    rule: str


def choose(
    keys: Sequence[str], scores: Mapping[str, float], direction: str, rule: str, count: int, name: str = ""
) -> Choice:
    """Choose at most `count` of `keys`.

    `rule` is "spread" (best, worst and evenly spaced ranks between them by `scores`), "first" (recorded order) or
    "seed:N" (drawn with that seed). "spread" falls back to "first", and says so, where scores are missing.
    Raises UserError for another rule.
    """
    count = min(count, len(keys))
    if rule == "spread":
        if direction not in ("max", "min") or any(key not in scores for key in keys):
            first = choose(keys, scores, direction, "first", count)
            return Choice(first.keys, first.words, f"the first {count} in recorded order (no score to sort by)")
        ranked = sorted(keys, key=lambda key: (-scores[key] if direction == "max" else scores[key], key))
        places = sorted({round(place * (len(ranked) - 1) / max(1, count - 1)) for place in range(count)})
        words = tuple(_rank_word(place, len(ranked)) for place in places)
        return Choice(tuple(ranked[place] for place in places), words, f"best to worst by {name}, evenly spaced ranks")
    if rule == "first":
        return Choice(tuple(keys[:count]), ("",) * count, f"the first {count} in recorded order")
    kind, _, number = rule.partition(":")
    if kind == "seed" and number.isdigit():
        drawn = sorted(random.Random(int(number)).sample(range(len(keys)), count))
        return Choice(tuple(keys[i] for i in drawn), ("",) * count, f"{count} drawn with seed {number}")
    raise UserError(f"--pick={rule!r}: allowed are spread, first and seed:N")


def _rank_word(place: int, total: int) -> str:
    if place == 0:
        return "best"
    if place == total - 1:
        return "worst"
    return "median" if place == (total - 1) // 2 or place == total // 2 else f"rank {place + 1}/{total}"


def choose_samples(data: StudyData, samples: SampleSet, rule: str, count: int) -> Choice:
    """Choose keys of a sample set, "spread" being by the primary metric of the reference arm (or the first with it)."""
    metric = data.primary
    order = data.arms if data.reference is None else (data.reference, *data.arms)
    arms = [arm for arm in order if arm in samples.by_arm]
    if metric is None or not arms:
        return choose(samples.keys, {}, "none", rule, count)
    for arm in arms:
        scores = {key: samples.by_arm[arm][key].scores.get(metric.name) for key in samples.keys}
        known = {key: score for key, score in scores.items() if score is not None}
        if len(known) == len(samples.keys):
            return choose(samples.keys, known, metric.direction, rule, count, f"{metric.label} of {data.labels[arm]}")
    return choose(samples.keys, {}, metric.direction, rule, count)
