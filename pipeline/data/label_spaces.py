"""Label spaces: what the numbers in a label map mean, for every data set. Class names travel with every map and record.

A space says the classes and their order, which raw file value becomes which class, what is unknown, which classes
change place when a photo is mirrored, the colours for display, and named groups for editing. Two data sets never
share ids by accident: maps are only ever compared through a space's `name` and `classes`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.data import class_names
from pipeline.data.palettes import CELEBAMASK_HQ_PALETTE, CITYSCAPES_PALETTE, distinct_palette
from pipeline.errors import UserError, nearest

Ids = TypeVar("Ids", bound=np.integer)

_UNUSED = -1  # raw value that no class answers to


@dataclass(frozen=True)
class LabelSpace:
    """Meaning of the ids 0..K-1; K = len(classes) includes the unknown class where there is one."""

    name: str
    classes: tuple[str, ...]
    unknown: int | None  # index of the class that means "not annotated", None where everything is annotated
    mirror_permutation: tuple[int, ...]  # class k of a photo is class mirror_permutation[k] of its mirror image
    palette: tuple[tuple[int, int, int], ...]  # K RGB colours, 0..255
    groups: Mapping[str, tuple[str, ...]]  # named sets of classes for editing
    raw_to_class: tuple[int, ...]  # lookup from raw file value to class, -1 where the value is not allowed
    background: int | None  # index of the class behind everything, None where a space has none

    @property
    def num_classes(self) -> int:
        """K, the number of mask channels."""
        return len(self.classes)

    def index(self, name: str) -> int:
        """Index of class `name`; UserError with the nearest names where there is none."""
        if name not in self.classes:
            raise UserError(f"label space {self.name} has no class {name!r}{nearest(name, self.classes)}")
        return self.classes.index(name)

    def members(self, name: str) -> tuple[int, ...]:
        """Indices of a group, or of the single class of that name."""
        if name in self.groups:
            return tuple(self.index(member) for member in self.groups[name])
        if name in self.classes:
            return (self.index(name),)
        known = (*self.groups, *self.classes)
        raise UserError(f"label space {self.name} has no class or group {name!r}{nearest(name, known)}")

    def decode(self, raw: NDArray[np.integer], source: str) -> NDArray[np.uint8]:
        """Raw file values (H,W) -> class indices (H,W) uint8, by table; UserError naming `source` and the illegal values."""
        values = np.unique(raw)
        bad = [int(v) for v in values if v < 0 or v >= len(self.raw_to_class) or self.raw_to_class[int(v)] == _UNUSED]
        if bad:
            allowed = _ranges([v for v, k in enumerate(self.raw_to_class) if k != _UNUSED])
            shown = ", ".join(map(str, bad[:8])) + (", ..." if len(bad) > 8 else "")
            raise UserError(f"{source}: label ids {shown} are not ids of {self.name} (allowed: {allowed})")
        table = np.asarray([max(k, 0) for k in self.raw_to_class], dtype=np.uint8)
        result: NDArray[np.uint8] = table[raw]
        return result

    def raw_ids(self) -> tuple[int, ...]:
        """The raw file value of each class (the lowest, where several stand for one): what `decode` reads back."""
        return tuple(self.raw_to_class.index(k) for k in range(self.num_classes))

    def prepared(self) -> LabelSpace:
        """The same classes for files that already hold class indices 0..K-1 (what `data prepare` writes)."""
        return replace(self, raw_to_class=tuple(range(self.num_classes)))

    def mirror(self, label: NDArray[Ids]) -> NDArray[Ids]:
        """Label map (..., H, W) of the mirrored photo: flipped left-right, left and right classes exchanged."""
        table = np.asarray(self.mirror_permutation, dtype=label.dtype)
        return np.ascontiguousarray(table[label][..., ::-1])

    def colours(self, label: NDArray[np.integer]) -> NDArray[np.uint8]:
        """(H,W) class indices -> (H,W,3) uint8 RGB in the palette."""
        result: NDArray[np.uint8] = np.asarray(self.palette, dtype=np.uint8)[label]
        return result


def _ranges(values: list[int]) -> str:
    """[0, 1, 2, 255] -> "0..2, 255"."""
    parts: list[str] = []
    start = previous = values[0]
    for value in [*values[1:], None]:
        if value is not None and value == previous + 1:
            previous = value
            continue
        parts.append(str(start) if start == previous else f"{start}..{previous}")
        if value is not None:
            start = previous = value
    return ", ".join(parts)


def _side_permutation(
    classes: tuple[str, ...], left: str = "l_", right: str = "r_", keep: tuple[str, ...] = ()
) -> tuple[int, ...]:
    """Exchange every `l_x` with `r_x`; classes in `keep` (l_lip: lower lip) and all others stay."""
    permutation = list(range(len(classes)))
    for k, name in enumerate(classes):
        if name in keep or not name.startswith((left, right)):
            continue
        partner = (right if name.startswith(left) else left) + name[len(left) :]
        permutation[k] = classes.index(partner)
    return tuple(permutation)


def make_space(name: str, classes: tuple[str, ...], *, unknown: int | None = None) -> LabelSpace:
    """A space whose raw values are its indices, without sides or groups: for `folder` data sets with a class-names file.

    Classes named `left_x` / `right_x` or `l_x` / `r_x` (both present) exchange on mirroring.
    """
    if len(set(classes)) != len(classes) or not classes:
        raise UserError(f"label space {name}: class names must be unique and not empty")
    permutation = list(range(len(classes)))
    for k, this in enumerate(classes):
        for left, right in (("left_", "right_"), ("left ", "right "), ("l_", "r_")):
            if this.startswith(left) and right + this[len(left) :] in classes:
                other = classes.index(right + this[len(left) :])
                permutation[k], permutation[other] = other, k
    count = len(classes)
    return LabelSpace(
        name, classes, unknown, tuple(permutation), distinct_palette(count), {}, tuple(range(count)), None
    )


def _celebamask_hq(raw_order: tuple[str, ...] = class_names.CELEBAMASK_HQ) -> LabelSpace:
    """The 19 face classes in the one order used here; files in another order are converted by name as they are read."""
    classes = class_names.CELEBAMASK_HQ
    return LabelSpace(
        name="celebamask_hq",
        classes=classes,
        unknown=None,
        mirror_permutation=_side_permutation(classes, keep=("l_lip",)),  # l_lip is the lower lip
        palette=CELEBAMASK_HQ_PALETTE,
        groups={
            "eyes": ("l_eye", "r_eye"),
            "mouth": ("mouth", "u_lip", "l_lip"),
            "lips": ("u_lip", "l_lip"),
            "hair": ("hair",),
            "eyebrows": ("l_brow", "r_brow"),
            "skin": ("skin", "nose"),
            "nose": ("nose",),
            "ears": ("l_ear", "r_ear"),
            "background": ("background",),
        },
        raw_to_class=tuple(classes.index(name) for name in raw_order),
        background=0,
    )


def _celebamask_13() -> LabelSpace:
    """SemanticStyleGAN's 13 face classes; left and right are one class, so a mirror exchanges none."""
    names = {"glasses": "eye_g", "eyes": "l_eye", "brows": "l_brow", "ears": "l_ear", "earrings": "ear_r"}
    colours = dict(zip(class_names.CELEBAMASK_HQ, CELEBAMASK_HQ_PALETTE, strict=True))
    classes = class_names.CELEBAMASK_13
    return LabelSpace(
        name="celebamask_13",
        classes=classes,
        unknown=None,
        mirror_permutation=tuple(range(len(classes))),
        palette=tuple(colours[names.get(name, name)] for name in classes),
        groups={"eyebrows": ("brows",)},
        raw_to_class=tuple(range(len(classes))),
        background=0,
    )


def _coco_stuff() -> LabelSpace:
    classes = (*class_names.COCO_THINGS, *class_names.COCO_STUFF, "unknown")
    raw = [*range(182), *([_UNUSED] * 73), 182]  # 255 = unknown
    return LabelSpace(
        "coco_stuff", classes, 182, tuple(range(183)), distinct_palette(183, dark=182),
        {"things": class_names.COCO_THINGS, "stuff": class_names.COCO_STUFF, "sky": ("clouds", "sky-other"),
         "person": ("person",)},
        tuple(raw), None,
    )  # fmt: skip


def _ade20k() -> LabelSpace:
    classes = (*class_names.ADE20K, "unknown")
    raw = [150, *range(150)]  # 0 = unknown, 1..150 = the classes: by table, never by subtraction in uint8
    groups = {
        "sky": ("sky",),
        "building": ("building", "house", "skyscraper"),
        "person": ("person",),
        "tree": ("tree", "palm", "plant"),
    }
    return LabelSpace(
        "ade20k", classes, 150, tuple(range(151)), distinct_palette(151, dark=150), groups, tuple(raw), None
    )


_CITY_GROUPS: dict[str, tuple[str, ...]] = {
    "flat": ("road", "sidewalk"),
    "construction": ("building", "wall", "fence"),
    "object": ("pole", "traffic light", "traffic sign"),
    "nature": ("vegetation", "terrain"),
    "sky": ("sky",),
    "human": ("person", "rider"),
    "vehicle": ("car", "truck", "bus", "train", "motorcycle", "bicycle"),
}


def _cityscapes_35() -> LabelSpace:
    classes = tuple(name for name, _ in class_names.CITYSCAPES)
    raw = [
        *range(34),
        34,
    ]  # ids 0..33 as drawn; 34 is where SPADE-family loaders put the never drawn license plate (-1)
    return LabelSpace("cityscapes_35", classes, 0, tuple(range(35)), CITYSCAPES_PALETTE, _CITY_GROUPS, tuple(raw), None)


def _cityscapes_19() -> LabelSpace:
    kept = sorted((train, raw, name) for raw, (name, train) in enumerate(class_names.CITYSCAPES) if train is not None)
    classes = (*(name for _, _, name in kept), "unknown")
    raw = tuple(19 if train is None else train for _, train in class_names.CITYSCAPES)
    palette = (*(CITYSCAPES_PALETTE[r] for _, r, _ in kept), (0, 0, 0))
    return LabelSpace("cityscapes_19", classes, 19, tuple(range(20)), palette, _CITY_GROUPS, raw, None)


def _deepfashion() -> LabelSpace:
    # Ids 0..5 named from the pictures (SMIS's parsing: hair, face, skin, top, bottom, socks, shoes, background);
    # which of 6 and 7 is
    # socks and which is shoes is not stated anywhere we know, so they keep numbers.
    classes = ("background", "hair", "face", "top_clothes", "bottom_clothes", "skin", "class_6", "class_7")
    groups = {"clothes": ("top_clothes", "bottom_clothes"), "hair": ("hair",), "skin": ("face", "skin")}
    return LabelSpace(
        "deepfashion", classes, None, tuple(range(8)), distinct_palette(8, dark=0), groups, tuple(range(8)), 0
    )


SPACES: dict[str, Callable[[], LabelSpace]] = {
    "celebamask_hq": _celebamask_hq,
    "celebamask_hq_g_mask": lambda: _celebamask_hq(class_names.CELEBAMASK_HQ_G_MASK),
    "celebamask_13": _celebamask_13,
    "coco_stuff": _coco_stuff,
    "ade20k": _ade20k,
    "cityscapes_35": _cityscapes_35,
    "cityscapes_19": _cityscapes_19,
    "deepfashion": _deepfashion,
}


@cache
def label_space(name: str) -> LabelSpace:
    """The registered space of that name; UserError with the nearest names where there is none."""
    if name not in SPACES:
        raise UserError(f"label_space={name}: unknown{nearest(name, list(SPACES))}; known: {', '.join(SPACES)}")
    return SPACES[name]()


def recorded_space(facts: Mapping[str, Any]) -> LabelSpace:
    """The space of a run's data as its provenance describes them, without the data: maps of it hold class indices 0..K-1."""
    name, classes = facts["description"]["label_space"], tuple(facts["class_names"])
    if name in SPACES and label_space(name).classes == classes:
        return label_space(name).prepared()
    return make_space(name, classes, unknown=classes.index("unknown") if "unknown" in classes else None)
