"""Procedural faces: layouts, per-class styles and one light, rendered exactly, so that every edit has a ground truth.

`render(layout, styles, light, height, width)` draws any combination; `render_label(label, styles, light)` does the
same for any label map, edited or noisy ones included. All three ingredients are pure functions of (seed, index).
"""

from __future__ import annotations

from pipeline.data.procfaces.layouts import FaceLayout, layout_of
from pipeline.data.procfaces.render import render, render_label
from pipeline.data.procfaces.shapes import label_map
from pipeline.data.procfaces.styles import ClassStyle, FaceStyles, Light, light_of, styles_of

# Raised whenever the pictures of a given (seed, index) change: it enters the data fingerprint.
RENDERER_VERSION = 1

__all__ = [
    "RENDERER_VERSION",
    "ClassStyle",
    "FaceLayout",
    "FaceStyles",
    "Light",
    "label_map",
    "layout_of",
    "light_of",
    "render",
    "render_label",
    "styles_of",
]
