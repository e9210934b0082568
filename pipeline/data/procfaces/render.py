"""The renderer: a label map, one style per class and one light make a picture. It is the ground truth of every edit.

Everything but styles and light comes from the label map alone (relief, irises, nostrils, teeth), so an edited,
swapped or noisy map has a picture as exact as an original one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.data.procfaces.layouts import FaceLayout
from pipeline.data.procfaces.shapes import ID, label_map, pixel_grid
from pipeline.data.procfaces.styles import FaceStyles, Light
from pipeline.data.procfaces.textures import texture

Pixels = NDArray[np.float32]

# How far each class stands out towards the viewer, in CelebAMask-HQ order (chosen by eye).
_RELIEF = np.asarray(
    [0.0, 1.0, 1.35, 1.15, 0.93, 0.93, 1.06, 1.06, 0.72, 0.72, 0.9, 1.08, 1.10, 0.95, 1.15, 0.8, 0.55, 0.45, 0.50],
    dtype=np.float32,
)
_DETAILED = tuple(ID[name] for name in ("l_eye", "r_eye", "nose", "mouth", "skin", "u_lip"))
# How much each class shines (hair, lips, jewellery, eyes).
_GLOSS = np.asarray(
    [0.0, 0.10, 0.16, 0.25, 0.2, 0.2, 0.05, 0.05, 0.08, 0.08, 0.2, 0.15, 0.25, 0.22, 0.05, 0.5, 0.5, 0.06, 0.04],
    dtype=np.float32,
)


def render(layout: FaceLayout, styles: FaceStyles, light: Light, height: int, width: int) -> NDArray[np.uint8]:
    """Picture (H,W,3) uint8 of any layout in any styles under any light."""
    return render_label(label_map(layout, height, width), styles, light)


def render_label(label: NDArray[np.integer], styles: FaceStyles, light: Light) -> NDArray[np.uint8]:
    """Picture (H,W,3) uint8 of any label map (H,W) of CelebAMask-HQ ids: edited or not."""
    height, width = label.shape
    x, y = pixel_grid(height, width)
    size = min(height, width)
    albedo = _albedo(label, styles, x, y)
    shade, gloss = _shading(label, light, x, y, size)
    warmth = np.float32(light.warmth)
    tint = np.asarray([1 + 0.16 * warmth, 1 + 0.02 * warmth, 1 - 0.20 * warmth], dtype=np.float32)
    picture = albedo * (shade[..., None] * tint) + gloss[..., None] * tint
    if size >= 96:  # soften stair-steps; below, a pixel is wider than the blur
        picture = ndimage.gaussian_filter(picture, (size / 400.0, size / 400.0, 0), mode="nearest")
    picture = picture / (1 + 0.12 * np.maximum(picture - 0.75, 0))  # gentle shoulder against burnt highlights
    result: NDArray[np.uint8] = (np.clip(picture, 0, 1) * 255.0 + 0.5).astype(np.uint8)
    return result


def _albedo(label: NDArray[np.integer], styles: FaceStyles, x: Pixels, y: Pixels) -> Pixels:
    """(H,W,3) float32 colour before light."""
    flat = label.reshape(-1)
    xs, ys = x.reshape(-1), y.reshape(-1)
    albedo = np.zeros((flat.size, 3), dtype=np.float32)
    present = np.flatnonzero(np.bincount(flat, minlength=len(styles.classes)))
    for k in present:
        style = styles.classes[k]
        where = np.flatnonzero(flat == k)
        px, py = xs[where], ys[where]
        colour, accent = np.asarray(style.colour, dtype=np.float32), np.asarray(style.accent, dtype=np.float32)
        if style.texture == "plain" or style.contrast == 0:
            values = np.broadcast_to(colour, (where.size, 3)).copy()
        else:
            place = _strand_place(px, py) if style.texture == "strands" else (px, py)
            weight = (texture(style, *place) * np.float32(style.contrast))[:, None]
            values = colour + (accent - colour) * weight
        albedo[where] = _detail(int(k), values, colour, px, py)
    return albedo.reshape(*label.shape, 3)


def _extent(values: Pixels) -> tuple[float, float]:
    """Where a region begins and ends along one axis; without the outermost percent (stray pixels)."""
    ordered = np.sort(values)
    margin = ordered.size // 100
    return float(ordered[margin]), float(ordered[-1 - margin])


def _strand_place(x: Pixels, y: Pixels) -> tuple[Pixels, Pixels]:
    """Hair falls fanning out from the crown: the place along which strands are laid."""
    centre, top = np.float32(x.mean()), np.float32(y.mean() - 1.9 * y.std())
    fan = np.float32(0.62) + np.float32(0.38) * np.clip(y - top, 0, 1.2)
    return (x - centre) / fan, y


def _detail(k: int, values: Pixels, colour: Pixels, x: Pixels, y: Pixels) -> Pixels:
    """What a region has inside: irises, nostrils, teeth, cheeks; placed by the region's own extent."""
    if k not in _DETAILED:
        return values
    left, right = _extent(x)
    top, bottom = _extent(y)
    width, height = max(right - left, 1e-3), max(bottom - top, 1e-3)
    centre_x = (left + right) / 2
    if k in (ID["l_eye"], ID["r_eye"]):
        distance = np.hypot(x - centre_x, y - top - 0.46 * height) / max(0.56 * height, 0.045)
        white = np.asarray([0.95, 0.94, 0.92], dtype=np.float32)
        values = white + (values - white) * _step(1.0 - distance)[:, None]
        lid = 0.55 + 0.45 * np.clip((y - top) / (0.35 * height), 0, 1)
        values = values * ((1 - 0.92 * _step(0.45 - distance)) * lid)[:, None]
        return values
    if k == ID["nose"]:
        for side in (-1, 1):
            d = np.hypot(
                (x - centre_x - side * 0.24 * width) / (0.14 * width), (y - bottom + 0.055 * height) / (0.055 * height)
            )
            values = values * (1 - 0.5 * np.clip(1.4 - d, 0, 1))[:, None]
        return values
    if k == ID["mouth"]:
        depth = np.clip(((y - top) / height - 0.55) / 0.3, 0, 1)[:, None]
        values = values + (np.asarray([0.35, 0.08, 0.08], dtype=np.float32) - values) * depth
        return values
    if k == ID["skin"]:
        for side in (-1, 1):
            d = np.hypot(
                (x - centre_x - side * 0.28 * width) / (0.2 * width), (y - top - 0.62 * height) / (0.14 * height)
            )
            cheek = (0.2 * np.exp(-d * d))[:, None]
            values = values + (colour * np.asarray([1.08, 0.72, 0.70], dtype=np.float32) - values) * cheek
        return values
    values = values * (1 - 0.25 * np.clip((y - top) / height, 0, 1))[:, None]  # the upper lip, darker towards the mouth
    return values


def _step(value: Pixels) -> Pixels:
    result: Pixels = np.clip(np.float32(0.5) + value * np.float32(4.0), 0, 1)
    return result


def _shading(label: NDArray[np.integer], light: Light, x: Pixels, y: Pixels, size: int) -> tuple[Pixels, Pixels]:
    """Diffuse factor and gloss, each (H,W) float32, from a relief blurred at two scales."""
    relief = _RELIEF[label]
    fine = _blur(relief, 0.016 * size)
    broad = _blur(relief, 0.085 * size)
    surface = np.float32(0.10) * fine + np.float32(0.45) * broad
    slope_y, slope_x = np.gradient(surface, np.float32(2.0 / size))
    norm = 1.0 / np.sqrt(slope_x**2 + slope_y**2 + 1)
    flat = np.cos(light.elevation)
    lx, ly, lz = flat * np.cos(light.azimuth), -flat * np.sin(light.azimuth), np.sin(light.elevation)
    facing = (-slope_x * lx - slope_y * ly + lz) * norm
    diffuse = np.maximum(facing, 0)
    falloff = 1 + np.float32(0.22) * (
        x * np.float32(lx) + y * np.float32(ly)
    )  # nearer to the lamp is brighter, all classes
    depth = np.where(label == ID["background"], np.float32(0.25), np.float32(0.5))
    occlusion = 1 - depth * np.clip(broad - fine, 0, 0.6)  # hollows beside what stands out
    crease = 1 - np.float32(0.25) * np.clip(fine - relief, 0, 0.4)
    shade = (light.ambient + light.intensity * diffuse) * falloff * occlusion * crease
    gloss = _GLOSS[label] * np.float32(light.intensity) * np.maximum(facing, 0) ** 24
    return shade.astype(np.float32), gloss.astype(np.float32)


def _blur(values: Pixels, sigma: float) -> Pixels:
    result: Pixels = ndimage.gaussian_filter(values, sigma, mode="nearest", truncate=2.5)
    return result
