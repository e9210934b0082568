"""Drawing a layout as an exact label map: analytic shapes painted back to front, no anti-aliasing, any resolution."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.class_names import CELEBAMASK_HQ
from pipeline.data.procfaces.layouts import FaceLayout

Field = NDArray[np.floating[Any]]
Region = NDArray[np.bool_]
ID = {name: index for index, name in enumerate(CELEBAMASK_HQ)}


def pixel_grid(height: int, width: int) -> tuple[Field, Field]:
    """Pixel centres as (x, y), each (H,W) float32; the short side spans [-1, 1]."""
    half = min(height, width) / 2.0
    xs = (np.arange(width, dtype=np.float32) + 0.5 - width / 2.0) / half
    ys = (np.arange(height, dtype=np.float32) + 0.5 - height / 2.0) / half
    return np.broadcast_to(xs, (height, width)).astype(np.float32), np.broadcast_to(
        ys[:, None], (height, width)
    ).astype(np.float32)


def label_map(layout: FaceLayout, height: int, width: int) -> NDArray[np.uint8]:
    """(H,W) uint8 class indices in CelebAMask-HQ order."""
    return _Canvas(layout, height, width).paint()


class _Canvas:
    """One layout being painted: image frame (x, y) for body, head frame (u, v) for everything on the tilted head."""

    def __init__(self, layout: FaceLayout, height: int, width: int) -> None:
        self.f = layout
        self.x, self.y = pixel_grid(height, width)
        dx, dy = self.x - np.float32(layout.centre_x), self.y - np.float32(layout.centre_y)
        cos, sin = np.float32(np.cos(layout.roll)), np.float32(np.sin(layout.roll))
        self.u, self.v = cos * dx + sin * dy, -sin * dx + cos * dy
        self.a, self.b = layout.face_width, layout.face_height
        self.turn = layout.yaw * 0.16 * layout.face_width  # sideways shift of what lies on the front of the head
        self.label = np.zeros((height, width), dtype=np.uint8)

    def put(self, name: str, region: Region) -> None:
        self.label[region] = ID[name]

    def paint(self) -> NDArray[np.uint8]:
        f = self.f
        self.face = self._face()
        self.cap = self._hair_cap()
        if f.hair != "bald":
            self.put("hair", self.cap)
            if f.hair == "updo":
                bun_u, bun_v = self.u / (0.36 * self.a), (self.v + 1.26 * self.b) / (0.26 * self.b)
                self.put("hair", bun_u**2 + bun_v**2 < 1)
        self._body()
        if f.hair in ("medium", "long"):
            self._curtain()
        self._ears()
        self.put("skin", self.face)
        self._features()
        if f.hair != "bald":
            self._fringe()
        self._glasses()
        self._earrings()
        self._hat()
        return self.label

    def _face(self) -> Region:
        down = np.maximum(self.v / self.b, 0)
        half = self.a * np.maximum(1 - self.f.jaw * down**2, 0.05)
        p = np.float32(self.f.roundness)
        return (np.abs(self.u) / half) ** p + (np.abs(self.v) / self.b) ** p < 1

    def _wave(self, along: Field) -> Field:
        result: Field = np.float32(self.f.wave * self.a) * np.sin(
            np.float32(self.f.wave_count) * along + np.float32(self.f.wave_phase)
        )
        return result

    def _hair_cap(self) -> Region:
        """Hair around the upper head, behind the face."""
        f = self.f
        volume = f.hair_volume * self.a
        rise = 0.10 * self.b
        angle = np.arctan2(self.v + rise, np.abs(self.u) + 1e-6)
        edge = self._wave(angle)
        radius_u, radius_v = self.a * 1.06 + volume + edge, self.b * 0.98 + volume * 0.9 + edge
        end = 0.0 if f.hair in ("short", "updo", "bald") else 0.35
        result: Region = ((self.u / radius_u) ** 2 + ((self.v + rise) / radius_v) ** 2 < 1) & (
            self.v < (end + 0.06) * self.b
        )
        return result

    def _curtain(self) -> None:
        """Hair that falls beside the face and over the shoulders."""
        f = self.f
        end = f.hair_length * self.b
        t = np.clip(self.v / end, 0, 1)
        outer = self.a * 1.06 + f.hair_volume * self.a * (1 + 0.35 * t) + self._wave(self.v * 2.2)
        inner = self.a * (0.80 - 0.18 * t) + self._wave(self.v * 1.7) * 0.5
        tip = end - 0.25 * self.b * ((np.abs(self.u) - inner) / self.a) ** 2 + self._wave(self.u * 3.0)
        self.put(
            "hair", (np.abs(self.u) < outer) & (np.abs(self.u) > inner) & (self.v > -0.12 * self.b) & (self.v < tip)
        )

    def _body(self) -> None:
        f = self.f
        dx = np.abs(self.x - np.float32(f.centre_x - 0.35 * f.roll * self.b))
        chest = np.maximum(self.y - (f.shoulder_height - 0.16), 0)
        neck_half = f.neck_width * self.a + 1.5 * chest**1.5
        neck = (dx < neck_half) & (self.y > f.centre_y + 0.35 * self.b)
        shoulders = (
            self.y > f.shoulder_height - 0.10 + f.shoulder_slope * np.maximum(dx - f.neck_width * self.a, 0) ** 1.3
        )
        self.put("neck", neck | (shoulders & (dx < f.neck_width * self.a + 0.25)))
        below = self.y - (f.shoulder_height - 0.05)
        collar = f.neck_width * self.a
        if f.neckline == "v":
            cut = dx < (collar + 0.12) * (1 - below / (f.neckline_depth * 1.6 + 0.06))
        elif f.neckline == "round":
            cut = (dx / (collar + 0.14)) ** 2 + (np.maximum(below, 0) / (f.neckline_depth + 0.04)) ** 2 < 1
        else:
            cut = (dx < collar) & (below < -0.02)
        self.put("cloth", shoulders & ~cut)
        if f.necklace:
            bow = f.shoulder_height - 0.10 + f.necklace_drop * (1 - (dx / (collar + 0.1)) ** 2)
            chain = (np.abs(self.y - bow) < 0.022) & (dx < collar + 0.08)
            pendant = (dx / 0.04) ** 2 + ((self.y - (f.shoulder_height - 0.08 + f.necklace_drop)) / 0.05) ** 2 < 1
            self.put("neck_l", (chain | pendant) & (self.y > f.centre_y + 0.8 * self.b))

    def _ears(self) -> None:
        f = self.f
        for name, side in (("l_ear", 1.0), ("r_ear", -1.0)):
            hidden = f.hair in ("medium", "long") and f.hair_volume > 0.2
            turned_away = f.yaw * side > 0.55
            if hidden or turned_away:
                continue
            out = self.a * (0.98 + 0.05 * max(0.0, -f.yaw * side))
            du, dv = (self.u * side - out) / (0.16 * self.a), (self.v + 0.02 * self.b) / (f.ear_size * self.b)
            self.put(name, (du - 0.25 * dv) ** 2 * 0.9 + dv**2 < 1)

    def eye_at(self, side: float) -> tuple[float, float]:
        """Centre (u, v) of the eye on `side` (+1 the subject's left)."""
        return self.turn + side * self.f.eye_distance * self.a * (
            1 - 0.08 * side * self.f.yaw
        ), -self.f.eye_height * self.b

    def _features(self) -> None:
        f, a, b = self.f, self.a, self.b
        self._nose()
        for side, eye, brow, closed in (
            (1.0, "l_eye", "l_brow", f.left_eye_closed),
            (-1.0, "r_eye", "r_brow", f.right_eye_closed),
        ):
            cu, cv = self.eye_at(side)
            s = (self.u - cu) * side / (f.eye_width * a)  # -1 inner .. 1 outer corner
            if not closed:
                half = f.eye_open * f.eye_width * a
                dv = self.v - cv + 0.12 * half * s  # outer corner slightly higher
                lid = 1 - s * s
                self.put(eye, (np.abs(s) < 1) & (dv > -half * lid) & (dv < 0.85 * half * lid))
            t = s / 1.35
            line = cv - f.brow_gap * b - f.brow_arch * b * (1 - (t - 0.1) ** 2) + f.brow_tilt * b * t
            thick = f.brow_thickness * b * np.clip(1.15 - 0.65 * t, 0.25, 1.6) * 0.75
            self.put(brow, (t > -0.95) & (t < 1.0) & (np.abs(self.v - line) < thick) & self.face)
        self._mouth()

    def _nose(self) -> None:
        f, a, b = self.f, self.a, self.b
        top, bottom = -0.02 * b, (f.nose_length - f.eye_height) * b
        t = (self.v - top) / (bottom - top)
        du = self.u - self.turn * (1 + 0.5 * np.clip(t, 0, 1))
        half = f.nose_width * a * (0.36 + 0.25 * np.clip(t, 0, 1) ** 2)
        ridge = (t > 0) & (t < 1) & (np.abs(du) < half)
        tip = (du / (f.nose_width * a)) ** 2 + ((self.v - bottom + 0.03 * b) / (0.095 * b)) ** 2 < 1
        self.put("nose", ridge | tip)

    def _mouth(self) -> None:
        f, a, b = self.f, self.a, self.b
        s = (self.u - self.turn * 1.1) / (f.mouth_width * a * (1 - 0.08 * abs(f.yaw)))
        inside = np.abs(s) < 1
        profile = np.sqrt(np.maximum(1 - s * s, 0))
        middle = f.mouth_height * b - f.smile * b * (s * s - 0.4)
        opening = 0.5 * f.mouth_open * b * profile
        bow = 1 + 0.18 * np.cos(np.clip(s, -0.5, 0.5) * 4 * np.pi) * -1  # the dip in the middle of the upper lip
        upper, lower = f.upper_lip * b * profile**0.8 * bow, f.lower_lip * b * profile**0.8
        dv = self.v - middle
        if f.mouth_open > 0:
            self.put("mouth", inside & (np.abs(dv) <= opening))
        self.put("u_lip", inside & (dv < -opening) & (dv > -opening - upper))
        self.put("l_lip", inside & (dv > opening) & (dv < opening + lower))
        if f.mouth_open == 0:  # no gap of skin along the closed mouth's line
            self.put("u_lip", inside & (dv == 0))

    def _fringe(self) -> None:
        f = self.f
        offset = (self.u - f.parting * self.a) / self.a
        line = -f.hairline * self.b + f.fringe * self.b * np.abs(offset) ** 1.6 + self._wave(self.u * 2.5) * 0.5
        clear = -0.34 * self.b + 1.5 * self.b * np.maximum(
            np.abs(self.u - self.turn) / self.a - 0.74, 0
        )  # leaves the eyes free
        self.put("hair", (self.face | self.cap) & (self.v < np.minimum(np.minimum(line, clear), 0.02 * self.b)))

    def _glasses(self) -> None:
        f, a = self.f, self.a
        if f.glasses == "none":
            return
        size, frame = f.eye_width * a * f.glasses_size, f.eye_width * a * f.frame
        region = np.zeros_like(self.face)
        for side in (1.0, -1.0):
            cu, cv = self.eye_at(side)
            du, dv = np.abs(self.u - cu), np.abs(self.v - cv - 0.02 * self.b)
            outer = (du / size) ** 3 + (dv / (0.8 * size)) ** 3 < 1
            inner = (du / (size - frame)) ** 3 + (dv / (0.8 * size - frame)) ** 3 < 1
            region |= outer if f.glasses == "sun" else outer & ~inner
            temple = (
                (np.abs(self.v - cv + 0.15 * size) < 0.45 * frame)
                & (du > size)
                & ((self.u - cu) * side > 0)
                & self.face
            )
            region |= temple
        _, cv = self.eye_at(1.0)
        region |= (np.abs(self.v - cv + 0.1 * size) < 0.5 * frame) & (
            np.abs(self.u - self.turn) < f.eye_distance * a - size * 0.9
        )
        self.put("eye_g", region)

    def _earrings(self) -> None:
        f = self.f
        for worn, side in ((f.left_earring, 1.0), (f.right_earring, -1.0)):
            if not worn or f.yaw * side > 0.55:
                continue
            size = f.earring_size * self.b
            du = self.u - side * self.a * 1.03
            dv = self.v - (f.ear_size - 0.02) * self.b - size * 1.1
            self.put("ear_r", (du / (size * 0.7)) ** 2 + (dv / (size * 1.2)) ** 2 < 1)

    def _hat(self) -> None:
        f, a, b = self.f, self.a, self.b
        if f.hat == "none":
            return
        brim = -0.48 * b + 0.10 * b * (self.u / a) ** 2
        wide = a * (1.12 + 0.7 * f.hair_volume)
        dome = (np.abs(self.u) / wide) ** 2.6 + (
            np.maximum(-(self.v + 0.48 * b), 0) / (f.hat_height * b + 0.15 * b)
        ) ** 2.6 < 1
        self.put("hat", dome & (self.v < brim))
        if f.hat == "brim":
            self.put("hat", (self.u / (wide * 1.5)) ** 2 + ((self.v - brim + 0.03 * b) / (0.10 * b)) ** 2 < 1)
        elif f.hat == "cap":
            self.put(
                "hat", ((self.u - self.turn) / (a * 0.95)) ** 2 + ((self.v - brim - 0.02 * b) / (0.12 * b)) ** 2 < 1
            )
