"""Face layouts: the parameters of one face's geometry, and how they are drawn at random.

Lengths are in units of half the short side of the image; x points right, y down, origin in the image centre. Sides
follow CelebAMask-HQ: `l_` is the subject's left, the right half of the image. Lengths inside the face are fractions
of its half width `face_width` or half height `face_height`, as each comment says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from pipeline.data.procfaces.seeding import stream

HairKind = Literal["bald", "short", "medium", "long", "updo"]
HatKind = Literal["none", "beanie", "brim", "cap"]
GlassesKind = Literal["none", "clear", "sun"]
Neckline = Literal["round", "v", "high"]
Name = TypeVar("Name", bound=str)


@dataclass(frozen=True)
class FaceLayout:
    """Geometry of one face."""

    centre_x: float
    centre_y: float
    face_width: float  # half width of the face
    face_height: float  # half height of the face, hairless top to chin
    jaw: float  # narrowing of the face at the chin, 0 oval .. 0.5 pointed
    roundness: float  # exponent of the outline, 2 ellipse, larger squarer
    roll: float  # radians, head tilt
    yaw: float  # -1..1, head turn; positive towards the image's right
    eye_distance: float  # of face_width, centre to centre / 2
    eye_height: float  # of face_height, above the face centre
    eye_width: float  # of face_width, half width
    eye_open: float  # ratio half height / half width of an eye
    left_eye_closed: bool
    right_eye_closed: bool
    brow_gap: float  # of face_height, above the eye
    brow_thickness: float  # of face_height
    brow_arch: float  # of face_height
    brow_tilt: float  # of face_height, positive: outer end lower
    nose_width: float  # of face_width, half width
    nose_length: float  # of face_height, below the eye line
    mouth_height: float  # of face_height, below the face centre
    mouth_width: float  # of face_width, half width
    mouth_open: float  # of face_height, full opening; 0 closed
    smile: float  # of face_height, rise of the corners
    upper_lip: float  # of face_height
    lower_lip: float  # of face_height
    ear_size: float  # of face_height, half height
    hair: HairKind
    hair_volume: float  # of face_width, beyond the face
    hair_length: float  # of face_height, lower end of long hair below the face centre
    hairline: float  # of face_height, height of the forehead's end above the face centre
    fringe: float  # curvature of the hairline, of face_height
    parting: float  # of face_width, sideways place of the parting
    wave: float  # of face_width, waviness of the hair's outline
    wave_count: float
    wave_phase: float
    hat: HatKind
    hat_height: float  # of face_height, above the brim
    glasses: GlassesKind
    glasses_size: float  # of eye_width
    frame: float  # of eye_width, thickness
    left_earring: bool
    right_earring: bool
    earring_size: float  # of face_height
    necklace: bool
    necklace_drop: float
    neck_width: float  # of face_width
    shoulder_height: float  # y of the shoulders at the neck
    shoulder_slope: float
    neckline: Neckline
    neckline_depth: float


def layout_of(seed: int, index: int) -> FaceLayout:
    """Layout of face `index` of data seed `seed`; a pure function of the two."""
    rng = stream(seed, index, "layout")

    def between(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    def normal(mean: float, std: float, low: float, high: float) -> float:
        return float(np.clip(rng.normal(mean, std), low, high))

    def chance(probability: float) -> bool:
        return bool(rng.random() < probability)

    hair: HairKind = _pick(rng, ("bald", "short", "medium", "long", "updo"), (0.05, 0.36, 0.18, 0.33, 0.08))
    hat: HatKind = _pick(rng, ("none", "beanie", "brim", "cap"), (0.90, 0.04, 0.03, 0.03))
    glasses: GlassesKind = _pick(rng, ("none", "clear", "sun"), (0.86, 0.10, 0.04))
    feminine = chance(0.75 if hair in ("medium", "long", "updo") else 0.2)
    earrings = chance(0.45 if feminine else 0.04)
    face_width = normal(0.47, 0.03, 0.39, 0.55)
    volumes: dict[HairKind, tuple[float, float]] = {
        "bald": (0.0, 0.0),
        "short": (0.04, 0.20),
        "medium": (0.14, 0.38),
        "long": (0.12, 0.36),
        "updo": (0.04, 0.12),
    }
    hair_volume = between(*volumes[hair])
    bangs = hair != "updo" and chance(0.25)
    return FaceLayout(
        centre_x=normal(0.0, 0.035, -0.1, 0.1),
        centre_y=normal(0.07, 0.025, 0.0, 0.13),
        face_width=face_width,
        face_height=face_width * normal(1.34, 0.06, 1.2, 1.48),
        jaw=normal(0.26, 0.08, 0.08, 0.45),
        roundness=normal(2.25, 0.18, 1.95, 2.8),
        roll=normal(0.0, 0.07, -0.22, 0.22),
        yaw=normal(0.0, 0.4, -1.0, 1.0),
        eye_distance=normal(0.44, 0.025, 0.38, 0.5),
        eye_height=normal(0.12, 0.025, 0.06, 0.18),
        eye_width=normal(0.235, 0.02, 0.19, 0.28),
        eye_open=normal(0.52, 0.08, 0.34, 0.7),
        left_eye_closed=chance(0.02),
        right_eye_closed=chance(0.02),
        brow_gap=normal(0.15, 0.02, 0.11, 0.2),
        brow_thickness=normal(0.046 if feminine else 0.058, 0.009, 0.034, 0.08),
        brow_arch=normal(0.05, 0.02, 0.0, 0.1),
        brow_tilt=normal(0.03, 0.025, -0.03, 0.08),
        nose_width=normal(0.21, 0.03, 0.15, 0.29),
        nose_length=normal(0.42, 0.03, 0.34, 0.48),
        mouth_height=normal(0.54, 0.025, 0.49, 0.6),
        mouth_width=normal(0.39, 0.05, 0.28, 0.5),
        mouth_open=between(0.05, 0.15) if chance(0.5) else 0.0,
        smile=normal(0.045, 0.04, -0.03, 0.12),
        upper_lip=normal(0.064, 0.011, 0.042, 0.09),
        lower_lip=normal(0.075, 0.015, 0.045, 0.11),
        ear_size=normal(0.2, 0.025, 0.15, 0.26),
        hair=hair,
        hair_volume=hair_volume,
        hair_length=between(0.75, 1.1) if hair == "medium" else between(1.2, 2.0),
        hairline=between(0.38, 0.5) if bangs else between(0.62, 0.8),
        fringe=between(0.02, 0.2) if bangs else between(0.35, 0.8),
        parting=between(-0.5, 0.5),
        wave=between(0.0, 0.05) if chance(0.6) else between(0.05, 0.11),
        wave_count=between(5.0, 13.0),
        wave_phase=between(0.0, 6.28),
        hat=hat,
        hat_height=between(0.5, 0.75),
        glasses=glasses,
        glasses_size=between(1.25, 1.55),
        frame=between(0.24, 0.36),
        left_earring=earrings,
        right_earring=earrings and not chance(0.1),
        earring_size=between(0.05, 0.1),
        necklace=chance(0.3 if feminine else 0.03),
        necklace_drop=between(0.1, 0.22),
        neck_width=normal(0.56 if feminine else 0.68, 0.05, 0.45, 0.8),
        shoulder_height=normal(0.87, 0.03, 0.80, 0.94),
        shoulder_slope=between(0.15, 0.4),
        neckline=_pick(rng, ("round", "v", "high"), (0.45, 0.35, 0.20)),
        neckline_depth=between(0.05, 0.2),
    )


def _pick(rng: np.random.Generator, names: tuple[Name, ...], weights: tuple[float, ...]) -> Name:
    """One of `names` by weight (they sum to one)."""
    return names[int(np.searchsorted(np.cumsum(weights), rng.random() * sum(weights), side="right"))]
