"""Requests as the page makes them."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.pipeline.paint.conftest import Served

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


def png(array: NDArray[np.uint8], content: str = "PNG") -> bytes:
    """A PNG file, or one of another format: grey (class ids) of (H,W), RGB of (H,W,3)."""
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, format=content)
    return stream.getvalue()


def told(served: Served, path: str, value: Any) -> dict[str, Any]:
    """The answer to a request that must succeed."""
    status, data, _ = served.ask(path, body(value))
    assert status == 200, data
    return dict(json.loads(data))


def pictures(served: Served, scene: dict[str, Any], *, final: bool = True) -> dict[str, Any]:
    """The answer to a scene in one piece: true edit, last word, and `pictures`, a row a run, unless it was overtaken."""
    status, data, _ = served.ask("pictures", body({**scene, "final": final}))
    assert status == 200, data
    parts = [json.loads(line) for line in data.splitlines()]
    runs = {part["run"]: part for part in parts if "run" in part}
    whole = {key: value for part in parts if "run" not in part for key, value in part.items()}
    return {**whole, "pictures": [runs[run] for run in sorted(runs)]}
