"""Styles of faces: per class a colour and a texture, and the one light that falls on the whole picture."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.data.class_names import CELEBAMASK_HQ
from pipeline.data.procfaces.seeding import stream

Colour = tuple[float, float, float]  # RGB, 0..1
TextureKind = Literal["plain", "stripes", "checks", "dots", "clouds", "strands"]


@dataclass(frozen=True)
class ClassStyle:
    """How one class looks, before light."""

    colour: Colour
    accent: Colour  # the texture's second colour
    texture: TextureKind
    frequency: float  # periods per half short side
    orientation: float  # radians
    contrast: float  # 0 none .. 1 the accent in full


@dataclass(frozen=True)
class FaceStyles:
    """One style per class, in CelebAMask-HQ order, absent classes included (so a style for every edit exists)."""

    classes: tuple[ClassStyle, ...]

    def exchanged(self, other: FaceStyles, names: Iterable[str]) -> FaceStyles:
        """These styles with those of the classes `names` taken from `other`: the ground truth of a style edit."""
        taken = {CELEBAMASK_HQ.index(name) for name in names}
        return FaceStyles(tuple(other.classes[k] if k in taken else style for k, style in enumerate(self.classes)))


@dataclass(frozen=True)
class Light:
    """One illumination for the whole picture."""

    azimuth: float  # radians, 0 from the right, pi/2 from above
    elevation: float  # radians above the picture plane; pi/2 frontal
    intensity: float  # strength of the directed light
    ambient: float  # strength of the undirected light
    warmth: float  # -1 bluish .. 1 orange


# Anchors between which colours are drawn (chosen by eye).
_SKIN: tuple[Colour, ...] = (
    (0.98, 0.84, 0.74), (0.94, 0.76, 0.63), (0.85, 0.65, 0.50), (0.72, 0.52, 0.38), (0.55, 0.37, 0.26),
    (0.38, 0.25, 0.18),
)  # fmt: skip
_HAIR: tuple[Colour, ...] = (
    (0.10, 0.08, 0.08), (0.22, 0.14, 0.10), (0.36, 0.22, 0.13), (0.52, 0.33, 0.18), (0.78, 0.60, 0.34),
    (0.90, 0.78, 0.52),
    (0.58, 0.22, 0.10), (0.70, 0.70, 0.70),
)  # fmt: skip
_IRIS: tuple[Colour, ...] = (
    (0.30, 0.50, 0.75),
    (0.25, 0.52, 0.38),
    (0.40, 0.25, 0.12),
    (0.20, 0.12, 0.08),
    (0.50, 0.40, 0.20),
    (0.45, 0.50, 0.55),
)
_LIPS: tuple[Colour, ...] = (
    (0.80, 0.42, 0.40),
    (0.72, 0.20, 0.25),
    (0.86, 0.50, 0.55),
    (0.55, 0.18, 0.26),
    (0.68, 0.38, 0.32),
)
_METAL: tuple[Colour, ...] = ((0.92, 0.76, 0.30), (0.85, 0.86, 0.90), (0.88, 0.58, 0.48), (0.30, 0.70, 0.60))
_FABRIC_TEXTURES: tuple[TextureKind, ...] = ("plain", "stripes", "checks", "dots", "clouds")


def styles_of(seed: int, index: int) -> FaceStyles:
    """Styles of face `index` of data seed `seed`; neighbours in a face (skin and nose, hair and brows) are mildly alike."""
    rng = stream(seed, index, "styles")
    skin = _between(rng, _SKIN)
    hair = _vivid(rng) if rng.random() < 0.12 else _jitter(rng, _one(rng, _HAIR), 0.04)
    iris, lips, metal = (
        _jitter(rng, _one(rng, _IRIS), 0.05),
        _mix(_one(rng, _LIPS), skin, float(rng.uniform(0, 0.5))),
        _one(rng, _METAL),
    )
    strands = ClassStyle(
        hair, _mix(hair, (1.0, 0.92, 0.75), float(rng.uniform(0.15, 0.4))), "strands",
        float(rng.uniform(4, 9)), float(rng.uniform(-0.25, 0.25)), float(rng.uniform(0.35, 0.9)),
    )  # fmt: skip
    brow = _mix(_jitter(rng, hair, 0.05), (0.12, 0.09, 0.08), float(rng.uniform(0.1, 0.6)))
    other_iris = _jitter(rng, _one(rng, _IRIS), 0.05) if rng.random() < 0.03 else iris

    def complexion(colour: Colour, contrast: float) -> ClassStyle:
        return ClassStyle(
            colour, _mix(colour, (0.55, 0.2, 0.12), 0.35), "clouds", float(rng.uniform(1.5, 4)), 0.0, contrast
        )

    def smooth(colour: Colour) -> ClassStyle:
        return ClassStyle(colour, colour, "plain", 1.0, 0.0, 0.0)

    blush = float(rng.uniform(0.0, 0.18))
    by_name: dict[str, ClassStyle] = {
        "background": _fabric(rng, ("plain", "clouds", "stripes", "clouds", "checks"), calm=True),
        "skin": complexion(skin, float(rng.uniform(0.05, 0.35))),
        "nose": complexion(_mix(_jitter(rng, skin, 0.02), (0.85, 0.35, 0.28), blush), 0.1),
        "eye_g": smooth(_jitter(rng, (0.10, 0.10, 0.12), 0.06) if rng.random() < 0.6 else _vivid(rng)),
        "l_eye": smooth(iris),
        "r_eye": smooth(other_iris),
        "l_brow": ClassStyle(brow, strands.accent, "strands", 14.0, 1.3, 0.25),
        "r_brow": ClassStyle(brow, strands.accent, "strands", 14.0, -1.3, 0.25),
        "l_ear": complexion(_mix(_jitter(rng, skin, 0.03), (0.85, 0.40, 0.32), 0.12), 0.1),
        "r_ear": complexion(_mix(_jitter(rng, skin, 0.03), (0.85, 0.40, 0.32), 0.12), 0.1),
        "mouth": smooth(_jitter(rng, (0.93, 0.90, 0.84), 0.05)),
        "u_lip": smooth(_mix(lips, (0.4, 0.1, 0.1), 0.15)),
        "l_lip": smooth(lips),
        "hair": strands,
        "hat": _fabric(rng, _FABRIC_TEXTURES, calm=False),
        "ear_r": smooth(_jitter(rng, metal, 0.04)),
        "neck_l": smooth(_jitter(rng, metal, 0.04)),
        "neck": complexion(_mix(_jitter(rng, skin, 0.03), (0.4, 0.25, 0.2), 0.08), 0.1),
        "cloth": _fabric(rng, _FABRIC_TEXTURES, calm=False),
    }
    return FaceStyles(tuple(by_name[name] for name in CELEBAMASK_HQ))


def light_of(seed: int, index: int) -> Light:
    """Light of face `index` of data seed `seed`."""
    rng = stream(seed, index, "light")
    return Light(
        azimuth=float(rng.uniform(0, np.pi)),  # from above, left to right
        elevation=float(rng.uniform(0.45, 1.2)),
        intensity=float(rng.uniform(0.35, 0.75)),
        ambient=float(rng.uniform(0.44, 0.62)),
        warmth=float(np.clip(rng.normal(0.1, 0.45), -1, 1)),
    )


def _fabric(rng: np.random.Generator, kinds: tuple[TextureKind, ...], *, calm: bool) -> ClassStyle:
    colour = _vivid(rng, saturation=0.45 if calm else 0.75)
    accent = _mix(_vivid(rng), colour, 0.6) if calm else _vivid(rng)
    kind = kinds[int(rng.integers(len(kinds)))]
    contrast = float(rng.uniform(0.15, 0.45) if calm else rng.uniform(0.4, 0.9))
    frequency = float(rng.uniform(0.8, 2.5) if calm else rng.uniform(3.0, 6.0))
    return ClassStyle(colour, accent, kind, frequency, float(rng.uniform(0, np.pi)), contrast)


def _vivid(rng: np.random.Generator, saturation: float = 0.7) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(
        float(rng.random()), float(rng.uniform(0.05, saturation)), float(rng.uniform(0.2, 0.95))
    )
    return red, green, blue


def _one(rng: np.random.Generator, colours: tuple[Colour, ...]) -> Colour:
    return colours[int(rng.integers(len(colours)))]


def _between(rng: np.random.Generator, colours: tuple[Colour, ...]) -> Colour:
    place = float(rng.random()) * (len(colours) - 1)
    low = int(place)
    return _mix(colours[low], colours[low + 1], place - low)


def _mix(first: Colour, second: Colour, weight: float) -> Colour:
    red, green, blue = (a + (b - a) * weight for a, b in zip(first, second, strict=True))
    return red, green, blue


def _jitter(rng: np.random.Generator, colour: Colour, spread: float) -> Colour:
    red, green, blue = (float(np.clip(c + rng.normal(0, spread), 0.02, 1.0)) for c in colour)
    return red, green, blue
