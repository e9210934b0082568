"""Small label maps of each kind as people have them: colours, MATLAB files, LabelMe and COCO outlines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat

from pipeline.data.prepare import OwnLayout, Prepared, prepare

COLOURS = {"sky": (70, 130, 180), "road": (128, 64, 128), "car": (0, 0, 142)}


SHORT = (
    "size=16", "train.iterations=2", "train.batch_size=2", "train.validate_every=2", "train.validate_images=1",
    "protocol=quick", "tracking.mode=disabled",
)  # fmt: skip


def scene(number: int, width: int = 48, height: int = 32) -> np.ndarray:
    """(H,W) ids: sky (0) above road (1), a car (2) on it where `number` is even; of many sizes."""
    width += 16 * (number % 3)
    ids = np.ones((height, width), dtype=np.uint8)
    ids[: height // 2] = 0
    if number % 2 == 0:
        ids[20:28, 10:26] = 2
    return ids


def photo_of(ids: np.ndarray, number: int) -> Image.Image:
    noise = np.random.default_rng(number).integers(0, 60, (*ids.shape, 3))
    base = np.array([[150, 190, 230], [90, 90, 90], [170, 30, 30]])[ids]
    return Image.fromarray(np.clip(base + noise, 0, 255).astype(np.uint8))


def write_photos(folder: Path, count: int, name: str = "street_{}") -> list[tuple[str, np.ndarray]]:
    folder.mkdir(parents=True)
    found = []
    for number in range(count):
        ids = scene(number)
        photo_of(ids, number).save(folder / f"{name.format(number)}.png")
        found.append((name.format(number), ids))
    return found


def write_coloured(root: Path, count: int = 12) -> Path:
    for name, ids in write_photos(root / "images", count):
        (root / "labels").mkdir(exist_ok=True)
        Image.fromarray(np.array(list(COLOURS.values()), dtype=np.uint8)[ids]).save(root / "labels" / f"{name}.png")
    rows = [f"{name},{','.join(map(str, colour))}" for name, colour in COLOURS.items()]
    (root / "colours.csv").write_text("name,red,green,blue\n" + "\n".join(rows) + "\n")
    return root


def write_matlab(root: Path, count: int = 6) -> Path:
    """Ids from 1, as MATLAB counts; `lorry` never occurs and goes to `vehicle` with `car`."""
    for name, ids in write_photos(root / "photos", count):
        (root / "annotations").mkdir(exist_ok=True)
        savemat(root / "annotations" / f"{name}.mat", {"groundtruth": ids + 1.0, "author": "nobody"})
    (root / "names.txt").write_text("nothing\nsky\nroad\ncar\nlorry\n")
    (root / "merge.csv").write_text("from,to\ncar,vehicle\nlorry,vehicle\nnothing,sky\n")
    return root


def outline(top: float, left: float, bottom: float, right: float) -> list[list[float]]:
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def write_labelme(root: Path, count: int = 6) -> Path:
    for number, (name, ids) in enumerate(write_photos(root / "images", count)):
        height, width = ids.shape
        shapes = [
            {"label": "sky", "points": outline(0, 0, 16, width), "shape_type": "polygon"},
            {"label": "road", "points": [[0, 16], [width, height]], "shape_type": "rectangle"},
        ]
        if number % 2 == 0:
            shapes.append({"label": "car", "points": outline(20, 10, 28, 26), "shape_type": "polygon"})
        content = {"shapes": shapes, "imagePath": f"{name}.png", "imageHeight": height, "imageWidth": width}
        (root / "images" / f"{name}.json").write_text(json.dumps(content))
    return root


def write_coco(root: Path, count: int = 8) -> Path:
    """Two videos; the road reaches over the car's place and is written after it, but is larger."""
    images, annotations = [], []
    photos = write_photos(root / "images", count // 2, "north_{}")
    for number in range(count // 2):
        ids = scene(number)
        photo_of(ids, 50 + number).save(root / "images" / f"south_{number}.png")
        photos.append((f"south_{number}", ids))
    for number, (name, ids) in enumerate(photos):
        height, width = ids.shape
        images.append({"id": number, "file_name": f"{name}.png", "height": height, "width": width})
        boxes = [(9, (20, 10, 28, 26))] if (ids == 2).any() else []
        for category, (top, left, bottom, right) in [*boxes, (4, (16, 0, height, width))]:
            flat = [value for point in outline(top, left, bottom, right) for value in point]
            annotations.append({
                "id": len(annotations) + 1, "image_id": number, "category_id": category, "iscrowd": 0,
                "segmentation": [flat], "area": (bottom - top) * (right - left), "bbox": [left, top, right - left, bottom - top],
            })  # fmt: skip
    categories = [{"id": 4, "name": "road"}, {"id": 9, "name": "car"}]
    (root / "instances.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return root


def run(source: Path, target: Path, **layout: Any) -> Prepared:
    return prepare("folder", source, target, space_name="classes_file", workers=1, layout=OwnLayout(**layout))
