"""Your own photos: from files as people have them to what `data prepare folder` starts from, without a script in between."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.data.adapters.pairing import complete_pairs, list_files
from pipeline.data.adapters.photos import CLASSES, MOST_CLASSES, entries_below
from pipeline.data.adapters.prepared import MANIFEST
from pipeline.data.label_spaces import LabelSpace, make_space
from pipeline.data.listing import unique_keys
from pipeline.data.prepare.labels import (
    BEHIND,
    Coco,
    Colours,
    Ids,
    LabelMe,
    LabelReader,
    Matlab,
    open_coco,
    read_labelme,
)
from pipeline.data.prepare.raw import Job, Raw
from pipeline.data.reading import PHOTO_SUFFIXES
from pipeline.data.tables import read_names, read_table, whole_number
from pipeline.errors import UserError, nearest

LARGEST_ID = 65535
PARTS = ("train", "val", "test")
Named = dict[int, str]  # class names by id


@dataclass(frozen=True)
class OwnLayout:
    """Where a folder of one's own has what, and how its label maps are read."""

    images: str = "images"  # folder of the photos, below the root
    labels: str = "labels"  # folder of the label maps below the root, or one COCO file
    palette: Path | None = None  # CSV: name,red,green,blue
    tolerance: int = 0  # of colours
    mat_key: str | None = None  # variable in MATLAB files
    classes: Path | None = None  # names, one a line in the order of the ids, or a CSV: id,name
    merge: Path | None = None  # CSV: from,to

    @property
    def usual(self) -> bool:
        """Whether it says nothing that the layout `images` + `labels` + `classes.txt` does not."""
        return self == OwnLayout()


def is_own(source: Path, layout: OwnLayout) -> bool:
    """Whether `source` is to be read by `layout`: options say so, or its labels are polygons, or nothing names its ids."""
    if not layout.usual:
        return True
    if not source.is_dir() or (source / MANIFEST).is_file():
        return False
    labels = source / layout.labels
    polygons = any(labels.rglob("*.json")) and not any(labels.rglob("*.png"))
    return polygons or not (source / CLASSES).is_file()


def find_own(source: Path, layout: OwnLayout) -> Raw:
    """The jobs below `source` by `layout`. UserError: missing folders and files, unpaired files, wrong tables."""
    images = source / layout.images
    if not images.is_dir():
        raise UserError(f"{images}: no such folder; give it with --images (found: {entries_below(source)})")
    labels = source / layout.labels
    if not labels.exists():
        raise UserError(
            f"{labels}: no such folder or file; give it with --labels (found: {entries_below(source)}){_hint(source, layout)}"
        )
    reader, names = _reader(source, labels, layout)
    space = merged_space(names, layout.merge)
    jobs = _jobs(images, labels, reader)
    if not jobs:
        raise UserError(f"--from {source}: no samples found ({layout.images} + {layout.labels})")
    keys = unique_keys([(job.part, job.key) for job in jobs])
    jobs = [replace(job, key=keys[job.part, job.key]) for job in jobs]
    what = type(reader).__name__.lower()
    texts = {CLASSES: "".join(f"{name}\n" for name in space.classes)}
    return Raw(f"{what} in {layout.labels}", space, tuple(sorted(jobs, key=lambda job: job.key)), (), texts, reader)


def merged_space(names: Named, merge: Path | None) -> LabelSpace:
    """The label space of classes by id, those that a CSV file (from,to) merges taken together, in the order of their first id."""
    table = _merging(merge, names) if merge is not None else {}
    final = {number: table.get(name, name) for number, name in sorted(names.items())}
    classes = tuple(dict.fromkeys(final.values()))
    if len(classes) > MOST_CLASSES:
        raise UserError(f"{len(classes)} classes; at most {MOST_CLASSES} fit, merge some with --merge")
    space = make_space("folder", classes, unknown=classes.index("unknown") if "unknown" in classes else None)
    raw = [classes.index(final[number]) if number in final else -1 for number in range(max(final) + 1)]
    return replace(space, raw_to_class=tuple(raw))


def _reader(source: Path, labels: Path, layout: OwnLayout) -> tuple[LabelReader, Named]:
    """The reader that options and files ask for, and the names of the ids it gives."""
    if layout.palette is not None and layout.mat_key is not None:
        raise UserError("--palette and --mat-key: label maps are colours or MATLAB files, not both")
    if layout.palette is not None:
        palette = read_palette(layout.palette)
        return Colours(palette, layout.tolerance), {number: name for number, (name, _) in enumerate(palette)}
    given = read_classes(layout.classes) if layout.classes is not None else None
    if layout.mat_key is not None:
        return Matlab(layout.mat_key), given or _class_file(source, "--classes FILE")
    if labels.is_file():
        content = open_coco(labels)
        found = [content.cats[number]["name"] for number in sorted(content.cats)]
        classes, behind = _with_behind(found if given is None else list(given.values()))
        return Coco(labels, classes, behind, content), dict(enumerate(classes))
    outlines = list_files(labels, LabelMe.suffixes)
    if outlines and layout.labels != layout.images and (maps := list_files(labels, Ids.suffixes)):
        raise UserError(
            f"{labels}: holds {len(maps)} label maps and {len(outlines)} JSON files; move those away that are not meant"
        )
    if outlines:
        if given is None and (source / CLASSES).is_file():
            given = read_classes(source / CLASSES)
        shapes = [shape for path in outlines.values() for shape in read_labelme(path)["shapes"]]
        found = sorted({str(shape.get("label")) for shape in shapes})
        classes, behind = _with_behind(found if given is None else list(given.values()))
        return LabelMe(classes, behind), dict(enumerate(classes))
    if list_files(labels, Matlab.suffixes):
        raise UserError(f"{labels}: holds MATLAB files; say which variable has the ids, with --mat-key NAME")
    return Ids(), given or _class_file(source, "--classes FILE, or --palette FILE for label maps in colours")


def _hint(source: Path, layout: OwnLayout) -> str:
    """What `--labels` may be where files of polygons lie among the photos; "" where none do."""
    path = next(iter(sorted((source / layout.images).rglob("*.json"))), None)
    if path is None or layout.palette is not None or layout.mat_key is not None:
        return ""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return ""
    kinds = {"shapes": ("LabelMe files", Path(layout.images)), "annotations": ("a COCO file", path.relative_to(source))}
    found = [kinds[key] for key in kinds if isinstance(content, dict) and key in content]
    return "".join(f"; {layout.images}/ holds {what}: --labels {place}" for what, place in found[:1])


def _jobs(images: Path, labels: Path, reader: LabelReader) -> list[Job]:
    if isinstance(reader, Coco):
        photos, known = list_files(images, PHOTO_SUFFIXES), dict.fromkeys(reader.images, labels)
        return [Job(key, "all", photos[key], labels, (), None) for key in complete_pairs(photos, known, images, labels)]
    parts = [part for part in PARTS if (images / part).is_dir() and (labels / part).is_dir()]
    jobs = []
    for part in parts or ["all"]:
        above, below = (images / part, labels / part) if parts else (images, labels)
        photos, maps = list_files(above, PHOTO_SUFFIXES), list_files(below, reader.suffixes)
        jobs += [Job(key, part, photos[key], maps[key], (), None) for key in complete_pairs(photos, maps, above, below)]
    return jobs


def read_palette(path: Path) -> tuple[tuple[str, tuple[int, int, int]], ...]:
    """(class, colour) of a CSV file with columns name, red, green, blue; a class may have several colours, a colour one class."""
    what = f"--palette {path}"
    palette = []
    for number, row in enumerate(read_table(path, ("name", "red", "green", "blue"), what), start=2):
        red, green, blue = (
            whole_number(row[channel], 0, 255, f"{what}, line {number}, {channel}")
            for channel in ("red", "green", "blue")
        )
        palette.append((row["name"], (red, green, blue)))
    colours = [colour for _, colour in palette]
    twice = next((colour for colour in colours if colours.count(colour) > 1), None)
    if twice is not None:
        raise UserError(f"{what}: the colour {twice} stands there twice")
    return tuple(palette)


def read_classes(path: Path) -> Named:
    """Class names by id: a name a line, the first of id 0, or a CSV file with columns id and name."""
    what = f"--classes {path}"
    if path.suffix.lower() == ".csv":
        rows = read_table(path, ("id", "name"), what)
        numbers = [whole_number(row["id"], 0, LARGEST_ID, f"{what}, id") for row in rows]
        names = [row["name"] for row in rows]
    else:
        return dict(enumerate(read_names(path, what)))
    if len(set(names)) != len(names) or len(set(numbers)) != len(numbers):
        raise UserError(f"{what}: a name or an id stands there twice")
    return dict(zip(numbers, names, strict=True))


def _class_file(source: Path, advice: str) -> Named:
    """Names of `classes.txt` below the root, for ids that no option names."""
    path = source / CLASSES
    if not path.is_file():
        raise UserError(f"--from {source}: nothing says what the ids mean; give {advice}, or put {CLASSES} there")
    return read_classes(path)


def _merging(path: Path, names: Named) -> dict[str, str]:
    """{class: what it is merged into}."""
    known = tuple(names.values())
    table: dict[str, str] = {}
    for row in read_table(path, ("from", "to"), f"--merge {path}"):
        if row["from"] not in known:
            raise UserError(f"--merge {path}: there is no class {row['from']!r}{nearest(row['from'], known)}")
        if table.setdefault(row["from"], row["to"]) != row["to"]:
            raise UserError(f"--merge {path}: {row['from']!r} goes to two classes")
    return table


def _with_behind(names: Sequence[str]) -> tuple[tuple[str, ...], int]:
    """Classes of polygons and the place of the one that nothing covers: `background`, else `unknown`, else put first."""
    for behind in (BEHIND, "unknown"):
        if behind in names:
            return tuple(names), list(names).index(behind)
    return (BEHIND, *names), 0
