"""Colours for displaying label maps."""

from __future__ import annotations

import colorsys

Palette = tuple[tuple[int, int, int], ...]

# Our own colours for the 19 face classes, in the order of class_names.CELEBAMASK_HQ: left warm, right cool.
CELEBAMASK_HQ_PALETTE: Palette = (
    (32, 32, 40), (236, 188, 156), (214, 130, 96), (120, 90, 200), (60, 170, 90), (40, 140, 190), (150, 190, 60),
    (70, 190, 190),
    (240, 150, 120), (190, 150, 210), (250, 250, 250), (220, 60, 80), (170, 30, 70), (120, 72, 40), (230, 180, 40),
    (255, 225, 90),
    (170, 120, 250), (206, 158, 128), (60, 90, 170),
)  # fmt: skip

# The colours the Cityscapes benchmark publishes for its label ids 0..33 and the license plate.
CITYSCAPES_PALETTE: Palette = (
    (0, 0, 0), (0, 0, 0), (0, 0, 0), (0, 0, 0), (0, 0, 0), (111, 74, 0), (81, 0, 81), (128, 64, 128), (244, 35, 232),
    (250, 170, 160), (230, 150, 140), (70, 70, 70), (102, 102, 156), (190, 153, 153), (180, 165, 180), (150, 100, 100),
    (150, 120, 90), (153, 153, 153), (153, 153, 153), (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152),
    (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142), (0, 0, 70), (0, 60, 100), (0, 0, 90), (0, 0, 110),
    (0, 80, 100),
    (0, 0, 230), (119, 11, 32), (0, 0, 142),
)  # fmt: skip


def distinct_palette(count: int, *, dark: int | None = None) -> Palette:
    """`count` colours spread by the golden angle in hue, three saturations and values; index `dark` becomes near black."""
    colours = []
    for k in range(count):
        red, green, blue = colorsys.hsv_to_rgb(
            (k * 0.61803398875) % 1.0, (0.85, 0.55, 0.7)[k % 3], (0.95, 0.75, 0.55)[k // 3 % 3]
        )
        colours.append((round(red * 255), round(green * 255), round(blue * 255)))
    if dark is not None:
        colours[dark] = (24, 24, 24)
    return tuple(colours)
