"""A painted picture on disk: pictures, label map, style photos, and `painting.json`, from which all repeats bit for bit."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pipeline.data.label_spaces import LabelSpace, make_space
from pipeline.data.reading import read_ids, read_photo
from pipeline.editing.painted import encoded, painted
from pipeline.errors import UserError
from pipeline.evaluation.samples import write_png
from pipeline.evaluation.view import as_images
from pipeline.paint.studio import Arm, Labels, Picture, Scene, Studio
from pipeline.provenance import code_version
from pipeline.records import atomic
from pipeline.records.store import SHORT_ID
from pipeline.runs.checkpoint import finished_run
from pipeline.schema.files import check
from pipeline.schema.painting import PaintedPicture, Painting, StylePhoto
from pipeline.schema.yaml12 import read_yaml
from pipeline.training.devices import device_name

FILE = "painting.json"


@dataclass(frozen=True)
class Repeated:
    """One picture of a painting, made again."""

    path: Path
    equal: bool  # bit for bit what was saved


def drawn(studio: Studio, scene: Scene, arm: Arm) -> Picture:
    """(H,W,3) uint8: what a run makes of a scene."""
    return as_images(studio.draw(arm, scene).image).uint8()[0]


def save(studio: Studio, scene: Scene, made: Sequence[Picture], out: Path) -> Path:
    """Write a scene and what the runs made of it into a new folder of `OUT/edits/painted`; returns its `painting.json`."""
    folder = _new_folder(out / "edits" / "painted")
    write_ids(folder / "label.png", scene.label, studio.space)
    styles = []
    for number, name in enumerate(scene.styles):
        photo, files = studio.photo(name), (f"style_{number}.png", f"style_{number}_label.png")
        write_png(folder / files[0], photo.image)
        write_ids(folder / files[1], photo.label, studio.space)
        styles.append(StylePhoto(name=photo.key, photo=files[0], label=files[1]))
    pictures = []
    for arm, picture in zip(studio.arms, made, strict=True):
        file = f"{arm.family}_{arm.record.id[:SHORT_ID]}.png"
        write_png(folder / file, picture)
        pictures.append(PaintedPicture(run=arm.record.id, file=file, pixels=_digest(picture)))
    truth = studio.truth(scene).picture
    if truth is not None:
        write_png(folder / "true_edit.png", truth)
    painting = Painting(
        format=1,
        ids=dict(zip(studio.space.classes, studio.space.raw_ids(), strict=True)),
        label="label.png",
        styles=tuple(styles),
        recipe=scene.recipe,
        pictures=tuple(pictures),
        threads=studio.threads,
        device=device_name(studio.arms[0].device),
        torch=torch.__version__,
        code=str(code_version()["code_digest"]),
    )
    atomic.write_json(folder / FILE, painting.model_dump(mode="json"))
    return folder / FILE


def repeat(path: Path, out: Path, folder: Path) -> tuple[Painting, list[Repeated]]:
    """Make the pictures of the painting `path` again, with the runs of `out`, and write them into `folder`.

    UserError: a file that is missing or not as a painting is, a run that is not here or has other classes or another size.
    """
    document = read_yaml(path, "painting")
    painting = check(Painting, document.values, document)
    return painting, [_again(painting, made, path.parent, out, folder) for made in painting.pictures]


def write_ids(path: Path, label: Labels, space: LabelSpace) -> None:
    """Write class indices (H,W) as a palette PNG of the ids that the data set's own files have: it can be opened again."""
    ids = np.asarray(space.raw_ids(), dtype=np.uint8)
    colours = np.zeros((256, 3), dtype=np.uint8)
    colours[ids] = np.asarray(space.palette, dtype=np.uint8)
    image = Image.fromarray(ids[label])
    image.putpalette(colours.tobytes())
    atomic.write_with(path, lambda file: image.save(file, format="PNG"), durable=False)


def _again(painting: Painting, made: PaintedPicture, beside: Path, out: Path, folder: Path) -> Repeated:
    record, generator, config, device = finished_run(out, made.run)
    torch.set_num_threads(painting.threads)
    space = _space(painting, tuple(record.provenance["data"]["class_names"]), record.id)
    label = _labels(beside / painting.label, space, config.data.hw)
    photos = [
        (_photo(beside / s.photo, config.data.hw), _labels(beside / s.label, space, config.data.hw))
        for s in painting.styles
    ]
    synthesis = painted(
        generator, painting.recipe, space, label, lambda place: encoded(generator, *photos[place], device), device
    )
    picture = as_images(synthesis.image).uint8()[0]
    write_png(folder / made.file, picture)
    return Repeated(folder / made.file, _digest(picture) == made.pixels)


def _space(painting: Painting, classes: Sequence[str], run_id: str) -> LabelSpace:
    """The run's classes under the ids of the painting's files."""
    if set(painting.ids) != set(classes):
        raise UserError(f"painting: run {run_id[:SHORT_ID]} was trained on other classes than ids names")
    table = [-1] * (1 + max(painting.ids.values()))
    for index, name in enumerate(classes):
        table[painting.ids[name]] = index
    return dataclasses.replace(make_space("painting", tuple(classes)), raw_to_class=tuple(table))


def _labels(path: Path, space: LabelSpace, size: tuple[int, int]) -> Labels:
    label = space.decode(read_ids(path), str(path))
    _check_size(path, (label.shape[0], label.shape[1]), size)
    return label


def _photo(path: Path, size: tuple[int, int]) -> Picture:
    photo = np.array(read_photo(path))  # torch wants arrays it could write to
    _check_size(path, (photo.shape[0], photo.shape[1]), size)
    return photo


def _check_size(path: Path, here: tuple[int, int], wanted: tuple[int, int]) -> None:
    if here != wanted:
        raise UserError(f"{path} is {here[0]}x{here[1]} (height x width); the run draws {wanted[0]}x{wanted[1]}")


def _digest(picture: Picture) -> str:
    return hashlib.sha256(np.ascontiguousarray(picture).tobytes()).hexdigest()


def _new_folder(parent: Path) -> Path:
    """A folder named by the second; by a number as well where there is one already."""
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
    names = (stamp, *(f"{stamp}-{number}" for number in range(2, 1000)))
    parent.mkdir(parents=True, exist_ok=True)
    for name in names:
        try:
            (parent / name).mkdir()
        except FileExistsError:
            continue
        return parent / name
    raise UserError(f"{parent}: too many paintings in one second")
