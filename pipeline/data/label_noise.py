"""Label noise: maps damaged in ways that annotators and segmenters damage them, for evaluation and for training."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.data.layouts import filled
from pipeline.data.transforms import resize_label
from pipeline.data.types import Sample
from pipeline.schema.data import LabelNoise, NoiseKind

Labels = NDArray[np.uint8]


# Full strength (level 1) of each kind, in units of the short side or as a probability (chosen by eye: recognisable, but bad).
JITTER = 0.06  # standard deviation of the boundary displacement


JITTER_SCALE = 0.04  # correlation length of the displacement


BORDER = 0.05  # pixels by which regions shrink or grow


CONFUSION = 0.5  # probability that a class is read as another one


DROPPED = 0.5  # probability that a class is missing


SPURIOUS = 6  # regions that are not there


SPURIOUS_RADIUS = (0.04, 0.12)


DS = 4  # factor by which the map is made smaller and larger again; 256 to 64 pixels


EDGE = 0.01  # width of the band on either side of a border that nobody labelled


RANDOM = 0.1  # probability that nobody labelled a pixel


def damaged(
    label: Labels,
    kind: NoiseKind,
    level: float,
    *,
    num_classes: int,
    rng: np.random.Generator,
    unknown: int | None = None,
) -> Labels:
    """(H,W) class ids 0..K-1 damaged by `kind` at `level` in 0..1; level 0 gives the map itself.

    `unknown` is the class of pixels that `edge` and `random` leave without a label; class 0 where the space has none.
    """
    if level == 0:
        return label.copy()
    if kind in _UNLABELLING:
        result = label.copy()
        result[_UNLABELLING[kind](label, level, rng)] = 0 if unknown is None else unknown
        return result
    return _KINDS[kind](label, level, num_classes, rng)


def noisy_sample(
    sample: Sample, noise: LabelNoise, *, num_classes: int, unknown: int | None, rng: np.random.Generator
) -> Sample:
    """The sample with a damaged label map, with probability `noise.probability`; photo and instances are left alone.

    One of the kinds, all alike, at a level drawn between 0 and `noise.level`.
    """
    if rng.random() >= noise.probability:
        return sample
    kind = noise.kinds[int(rng.integers(len(noise.kinds)))]
    level = noise.level * (1 - rng.random())  # never 0
    label = damaged(sample.label, kind, level, num_classes=num_classes, rng=rng, unknown=unknown)
    return Sample(sample.image, label, sample.key, sample.instance)


def noise_stream(seed: int, kind: NoiseKind, key: str) -> np.random.Generator:
    """Randomness of one image and kind; all levels share it, so that a higher level is the same damage, stronger."""
    return np.random.default_rng([seed, zlib.crc32(kind.encode()), zlib.crc32(key.encode())])


def _jitter(label: Labels, level: float, num_classes: int, rng: np.random.Generator) -> Labels:
    height, width = label.shape
    side = min(height, width)
    field = rng.standard_normal((2, height, width))
    field = np.stack([ndimage.gaussian_filter(one, JITTER_SCALE * side, mode="wrap") for one in field])
    field *= level * JITTER * side / max(float(field.std()), 1e-9)
    rows, columns = np.mgrid[0:height, 0:width]
    rows = np.clip(np.rint(rows + field[0]), 0, height - 1).astype(np.intp)
    columns = np.clip(np.rint(columns + field[1]), 0, width - 1).astype(np.intp)
    return label[rows, columns]


def _border(label: Labels, level: float, *, grow_small: bool) -> Labels:
    """Small classes grow over large ones, or shrink under them, by a disc; the order of classes is their area."""
    radius = max(1, round(level * BORDER * min(label.shape)))
    classes, inverse, counts = np.unique(label, return_inverse=True, return_counts=True)
    order = np.argsort(np.argsort(counts, kind="stable"))  # rank by area: 0 is the smallest class
    ranks = order[inverse].reshape(label.shape)
    reach = np.arange(-radius, radius + 1)
    disc = reach[:, None] ** 2 + reach[None, :] ** 2 <= radius**2
    choose = ndimage.minimum_filter if grow_small else ndimage.maximum_filter
    moved = choose(ranks, footprint=disc, mode="nearest")
    by_rank = classes[np.argsort(order)]
    return by_rank[moved].astype(label.dtype)


def _erosion(label: Labels, level: float, num_classes: int, rng: np.random.Generator) -> Labels:
    return _border(label, level, grow_small=False)


def _dilation(label: Labels, level: float, num_classes: int, rng: np.random.Generator) -> Labels:
    return _border(label, level, grow_small=True)


def _confusion(label: Labels, level: float, num_classes: int, rng: np.random.Generator) -> Labels:
    chance, wrong = rng.random(num_classes), rng.integers(1, max(2, num_classes), num_classes)
    table = np.arange(num_classes)
    hit = chance < level * CONFUSION
    table[hit] = (table[hit] + wrong[hit]) % num_classes
    return table[label].astype(label.dtype)


def _dropped(label: Labels, level: float, num_classes: int, rng: np.random.Generator) -> Labels:
    chance = rng.random(num_classes)
    counts = np.bincount(label.reshape(-1), minlength=num_classes)
    chance[int(counts.argmax())] = 1.0  # the largest class stays: something must fill the holes
    return filled(label, (chance < level * DROPPED)[label])


def _spurious(label: Labels, level: float, num_classes: int, rng: np.random.Generator) -> Labels:
    height, width = label.shape
    side = min(height, width)
    result = label.copy()
    rows, columns = np.mgrid[0:height, 0:width]
    placed = [
        (rng.random(2), rng.uniform(*SPURIOUS_RADIUS, 2) * side, int(rng.integers(num_classes)))
        for _ in range(SPURIOUS)
    ]
    for centre, radii, k in placed[: max(1, round(level * SPURIOUS))]:
        ellipse = ((rows - centre[0] * height) / radii[0]) ** 2 + ((columns - centre[1] * width) / radii[1]) ** 2 <= 1
        result[ellipse] = k
    return result


def _ds(label: Labels, level: float, num_classes: int, rng: np.random.Generator) -> Labels:
    height, width = label.shape
    factor, whole = 1 + level * (DS - 1), (0.0, 0.0, 1.0, 1.0)
    small = resize_label(label, max(1, round(height / factor)), max(1, round(width / factor)), whole)
    return resize_label(small, height, width, whole)


def _edge(label: Labels, level: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """The pixels (H,W) near a border that lose their label: all at level 1."""
    reach = 2 * max(1, round(EDGE * min(label.shape))) + 1
    near = ndimage.maximum_filter(label, reach, mode="nearest") != ndimage.minimum_filter(label, reach, mode="nearest")
    lost: NDArray[np.bool_] = near & (rng.random(label.shape) < level)
    return lost


def _random(label: Labels, level: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """The pixels (H,W), wherever they lie, that lose their label."""
    lost: NDArray[np.bool_] = rng.random(label.shape) < level * RANDOM
    return lost


_UNLABELLING: dict[NoiseKind, Callable[[Labels, float, np.random.Generator], NDArray[np.bool_]]] = {
    "edge": _edge,
    "random": _random,
}

_KINDS: dict[NoiseKind, Callable[[Labels, float, int, np.random.Generator], Labels]] = {
    "jitter": _jitter,
    "erosion": _erosion,
    "dilation": _dilation,
    "confusion": _confusion,
    "dropped": _dropped,
    "spurious": _spurious,
    "ds": _ds,
}
