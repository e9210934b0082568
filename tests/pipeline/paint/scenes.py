"""Requests as the page makes them."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

RECIPE: dict[str, Any] = {"base": 0, "towards": None, "position": 0, "noise": 0, "seed": 0, "classes": {}}


def ask(
    label: NDArray[np.uint8], *, number: int = 1, styles: tuple[str, ...] = ("sample:0",), **recipe: Any
) -> dict[str, Any]:
    """A scene as the page sends it; keywords change its recipe."""
    return {
        "page": "test", "number": number, "label": base64.b64encode(label.tobytes()).decode(), "styles": styles,
        "recipe": {**RECIPE, **recipe},
    }  # fmt: skip


def body(value: Any) -> bytes:
    return json.dumps(value).encode()


def unpacked(text: str, *shape: int) -> NDArray[np.uint8]:
    return np.frombuffer(base64.b64decode(text), dtype=np.uint8).reshape(shape)


def png(array: NDArray[np.uint8]) -> bytes:
    """A PNG file: grey (class ids) of (H,W), RGB of (H,W,3)."""
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, format="PNG")
    return stream.getvalue()
