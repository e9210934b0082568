"""Geometry of samples: resize (images bicubic with antialiasing, labels nearest), crop, mirror, connected components.

Photos and labels go through the same box, so that they stay aligned whatever their own sizes are. As the papers did:
SEAN and (CA)2-SIS stretch square faces to 256; SPADE stretches ADE20K and COCO-Stuff to 286 and crops 256, and
stretches Cityscapes to 512x256.
"""

from __future__ import annotations

from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from pipeline.data.label_spaces import LabelSpace
from pipeline.data.types import Sample

ResizeMode = Literal["stretch", "cover"]
Ids = TypeVar("Ids", bound=np.integer)
Box = tuple[float, float, float, float]  # left, top, right, bottom as fractions of the picture

# Raised whenever the pixels that come out of a given file and config change: it enters the data fingerprint.
TRANSFORM_VERSION = 1


def source_box(source_aspect: float, target_aspect: float, mode: ResizeMode) -> Box:
    """The part of a picture (fractions) that fills a target: all of it, or the largest centred part of the target's aspect."""
    if mode == "stretch":
        return 0.0, 0.0, 1.0, 1.0
    if source_aspect > target_aspect:
        cut = (1 - target_aspect / source_aspect) / 2
        return cut, 0.0, 1 - cut, 1.0
    cut = (1 - source_aspect / target_aspect) / 2
    return 0.0, cut, 1.0, 1 - cut


def resize_image(image: Image.Image, height: int, width: int, box: Box) -> NDArray[np.uint8]:
    """RGB picture -> (height, width, 3) uint8, bicubic with antialiasing."""
    w, h = image.size
    pixels = (box[0] * w, box[1] * h, box[2] * w, box[3] * h)
    if image.size == (width, height) and box == (0.0, 0.0, 1.0, 1.0):
        return np.array(image, dtype=np.uint8)
    return np.array(image.resize((width, height), Image.Resampling.BICUBIC, box=pixels), dtype=np.uint8)


def resize_label(label: NDArray[Ids], height: int, width: int, box: Box) -> NDArray[Ids]:
    """Ids (H,W) -> (height, width), the id at each target pixel's centre: no id is ever mixed or invented.

    Data alone are resized so. Networks, losses and metrics shrink a mask by `models.conditioning.resize_nearest`, which takes the
    upper left corner instead, as the releases do.
    """
    h, w = label.shape
    rows = np.floor((box[1] + (np.arange(height) + 0.5) / height * (box[3] - box[1])) * h).astype(np.intp)
    columns = np.floor((box[0] + (np.arange(width) + 0.5) / width * (box[2] - box[0])) * w).astype(np.intp)
    return np.ascontiguousarray(label[np.clip(rows, 0, h - 1)[:, None], np.clip(columns, 0, w - 1)[None, :]])


def crop(sample: Sample, top: int, left: int, height: int, width: int) -> Sample:
    """The (height, width) part of a sample whose upper left corner is (top, left)."""
    rows, columns = slice(top, top + height), slice(left, left + width)
    instance = None if sample.instance is None else np.ascontiguousarray(sample.instance[rows, columns])
    return Sample(
        np.ascontiguousarray(sample.image[rows, columns]),
        np.ascontiguousarray(sample.label[rows, columns]),
        sample.key,
        instance,
    )


def mirror(sample: Sample, space: LabelSpace) -> Sample:
    """The mirrored photo with the label map that names its sides correctly: twice is the identity."""
    instance = None if sample.instance is None else np.ascontiguousarray(sample.instance[:, ::-1])
    return Sample(np.ascontiguousarray(sample.image[:, ::-1]), space.mirror(sample.label), sample.key, instance)


def augment_sample(
    sample: Sample, space: LabelSpace, rng: np.random.Generator, height: int, width: int, *, mirrored: bool
) -> Sample:
    """Random crop to (height, width), then a mirror with probability 1/2 if `mirrored`; all randomness from `rng`."""
    h, w = sample.label.shape
    top, left = int(rng.integers(h - height + 1)), int(rng.integers(w - width + 1))
    flip = bool(rng.random() < 0.5)
    if (h, w) != (height, width):
        sample = crop(sample, top, left, height, width)
    return mirror(sample, space) if mirrored and flip else sample


def connected_components(label: NDArray[np.integer]) -> NDArray[np.int32]:
    """Instance ids (H,W) int32 where a data set has none: 4-connected components of equal class, numbered from 0 by class."""
    instance = np.zeros(label.shape, dtype=np.int32)
    count = 0
    for k in np.unique(label):
        parts, found = ndimage.label(label == k)
        instance[parts > 0] = parts[parts > 0] - 1 + count
        count += int(found)
    return instance
