"""Label maps as people have them: ids, colours of a palette, MATLAB files, polygons of LabelMe and COCO. Each gives (H,W) ids.

Polygons are filled by pycocotools, the COCO authors' own reader. What no polygon covers is the class `BEHIND`.
"""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.data.reading import open_pixels, read_ids
from pipeline.errors import UserError, nearest

BEHIND = (
    "background"  # class of the pixels that no polygon covers, unless the classes have an `unknown` and no such class
)
BLURRED = 40  # of 255: compression changes colours by no more; what is farther off is a class that the palette lacks
Colour = tuple[int, int, int]


class LabelReader(Protocol):
    """How the label map of one photo is read."""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Of the files it reads."""
        ...

    @property
    def settings(self) -> dict[str, Any]:
        """Plain values that change what is read: work done under others is done again."""
        ...

    def read(self, label: Path, photo: Path) -> NDArray[np.int32]:
        """(H,W) ids of the label file of a photo; UserError names the file and what is wrong with it."""
        ...


@dataclass(frozen=True)
class Ids:
    """PNG files that hold ids."""

    suffixes: tuple[str, ...] = (".png",)
    settings: dict[str, Any] = field(default_factory=dict)

    def read(self, label: Path, photo: Path) -> NDArray[np.int32]:
        return read_ids(label)


@dataclass(frozen=True)
class Colours:
    """Pictures whose colours stand for classes; the id is the colour's place in the palette."""

    palette: tuple[tuple[str, Colour], ...]  # class, colour; a class may have several
    tolerance: int  # a colour that is not in the palette is the nearest one, if no channel differs by more
    suffixes: tuple[str, ...] = (".png", ".bmp", ".gif", ".tif", ".tiff", ".jpg", ".jpeg")

    @property
    def settings(self) -> dict[str, Any]:
        return {"palette": [[name, list(colour)] for name, colour in self.palette], "tolerance": self.tolerance}

    def read(self, label: Path, photo: Path) -> NDArray[np.int32]:
        pixels = np.asarray(open_pixels(label, "label map").convert("RGB"))
        flat = pixels.reshape(-1, 3).astype(np.int32)
        seen, places = np.unique(flat @ np.array([1 << 16, 1 << 8, 1]), return_inverse=True)
        colours = np.stack([seen >> 16, seen >> 8 & 255, seen & 255], axis=1)
        known = np.array([colour for _, colour in self.palette])
        distance = np.abs(colours[:, None] - known).max(axis=2)  # (seen, known): largest difference of a channel
        far = distance.min(axis=1) > self.tolerance
        if far.any():
            counts = np.bincount(places, minlength=len(seen))
            worst = sorted(np.flatnonzero(far), key=lambda number: -counts[number])[:4]
            shown = ", ".join(f"{tuple(colours[n].tolist())} ({counts[n]} pixels)" for n in worst)
            count, most = int(far.sum()), int(distance.min(axis=1).max())
            blurred = f", or allow --tolerance {most} where compression has changed colours" if most <= BLURRED else ""
            which = "1 colour is" if count == 1 else f"{count} colours are"
            raise UserError(
                f"{label}: {which} not in the palette: {shown}; add {'it' if count == 1 else 'them'}{blurred}"
            )
        ids: NDArray[np.int32] = distance.argmin(axis=1)[places].reshape(pixels.shape[:2]).astype(np.int32)
        return ids


@dataclass(frozen=True)
class Matlab:
    """MATLAB files (up to version 7.2) with a matrix of ids."""

    key: str  # name of the variable
    suffixes: tuple[str, ...] = (".mat",)

    @property
    def settings(self) -> dict[str, Any]:
        return {"mat_key": self.key}

    def read(self, label: Path, photo: Path) -> NDArray[np.int32]:
        from scipy.io import loadmat, whosmat

        try:
            found = loadmat(label, variable_names=[self.key]).get(self.key)
            names = [name for name, _, _ in whosmat(label)]
        except NotImplementedError as error:
            raise UserError(f"{label}: a MATLAB file of version 7.3; save it with -v7") from error
        except Exception as error:  # whatever scipy raises on a broken file
            raise UserError(f"{label}: cannot be read as a MATLAB file ({error})") from error
        if found is None:
            raise UserError(f"{label}: has no variable {self.key}{nearest(self.key, names)}; it has {', '.join(names)}")
        values = np.asarray(found)
        if values.ndim != 2 or values.dtype.kind not in "iufb" or not np.array_equal(values, np.floor(values)):
            raise UserError(f"{label}: {self.key} is {values.dtype} {values.shape}; it must be a matrix of class ids")
        return values.astype(np.int32)


@dataclass(frozen=True)
class LabelMe:
    """JSON files of LabelMe; shapes are painted in their order, later over earlier."""

    classes: tuple[str, ...]
    behind: int  # id of what no shape covers
    suffixes: tuple[str, ...] = (".json",)

    @property
    def settings(self) -> dict[str, Any]:
        return {"labelme": list(self.classes)}

    def read(self, label: Path, photo: Path) -> NDArray[np.int32]:
        from pycocotools import mask as masks

        content = read_labelme(label)
        height, width = (_side(content, name, label) for name in ("imageHeight", "imageWidth"))
        ids = np.full((height, width), self.behind, dtype=np.int32)
        for shape in content["shapes"]:
            where = masks.frPyObjects([_outline(shape, label)], height, width)
            ids[masks.decode(where)[..., 0].astype(bool)] = class_id(str(shape.get("label")), self.classes, label)
        return ids


@dataclass(frozen=True)
class Coco:
    """One JSON file of COCO for all photos; larger objects first, so that small ones lie on top."""

    file: Path
    classes: tuple[str, ...]
    behind: int
    content: Any  # pycocotools' COCO
    suffixes: tuple[str, ...] = (".json",)

    @property
    def settings(self) -> dict[str, Any]:
        return {"coco": list(self.classes)}

    @cached_property
    def images(self) -> dict[str, dict[str, Any]]:
        """Entries of the file's photos by stem of the file name; UserError where two photos have one."""
        found: dict[str, dict[str, Any]] = {}
        for entry in self.content.imgs.values():
            other = found.setdefault(Path(entry["file_name"]).stem, entry)
            if other is not entry:
                names = f"{other['file_name']} and {entry['file_name']}"
                raise UserError(f"{self.file}: {names} are of one name; photos are found by it")
        return found

    def read(self, label: Path, photo: Path) -> NDArray[np.int32]:
        entry = self.images[photo.stem]
        ids = np.full((entry["height"], entry["width"]), self.behind, dtype=np.int32)
        objects = self.content.loadAnns(self.content.getAnnIds(imgIds=entry["id"]))
        for one in sorted(objects, key=lambda one: (-float(one.get("area", 0)), one["id"])):
            name = self.content.cats[one["category_id"]]["name"]
            try:
                inside = self.content.annToMask(one).astype(bool)
            except Exception as error:  # whatever the reader raises on a broken outline
                raise UserError(
                    f"{label}: object {one['id']} of {photo.name} has no outline that reads ({error})"
                ) from error
            ids[inside] = class_id(name, self.classes, label)
        return ids


def open_coco(path: Path) -> Any:
    """The content of a COCO file; UserError where it is none."""
    from pycocotools.coco import COCO

    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it reports its progress there
            content = COCO(str(path))
    except Exception as error:  # whatever the reader raises on another JSON file
        raise UserError(f"{path}: cannot be read as a COCO file ({error})") from error
    if not content.imgs or not content.cats:
        raise UserError(f"{path}: not a COCO file of objects: it has no images or no categories")
    return content


def read_labelme(path: Path) -> dict[str, Any]:
    """The content of a LabelMe file; UserError where it is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a LabelMe file ({error})") from error
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise UserError(f"{path}: not a LabelMe file: it has no list of shapes")
    return content


def class_id(name: str, classes: tuple[str, ...], path: Path) -> int:
    """Place of a class that an annotation names; UserError with the nearest where there is none."""
    if name not in classes:
        raise UserError(f"{path}: {name!r} is not one of the classes{nearest(name, classes)}")
    return classes.index(name)


def _side(content: dict[str, Any], name: str, path: Path) -> int:
    value = content.get(name)
    if not isinstance(value, int) or value < 1:
        raise UserError(f"{path}: {name} is {value!r}, not a number of pixels")
    return value


def _outline(shape: dict[str, Any], path: Path) -> list[float]:
    """x, y, x, y, ... of a shape's outline."""
    kind, points = shape.get("shape_type", "polygon"), shape.get("points") or []
    flat = [float(value) for point in points for value in point]
    if kind == "rectangle" and len(points) == 2:
        (left, top), (right, bottom) = points
        return [left, top, right, top, right, bottom, left, bottom]
    if kind == "circle" and len(points) == 2:
        centre, edge = (np.asarray(point, dtype=float) for point in points)
        angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
        ring = centre + np.linalg.norm(edge - centre) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        return [float(value) for value in ring.reshape(-1)]
    if kind == "polygon" and len(points) >= 3:
        return flat
    raise UserError(
        f"{path}: a {kind} of {len(points)} points covers no area; allowed are polygons, rectangles and circles"
    )
