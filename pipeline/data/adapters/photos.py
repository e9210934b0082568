"""Adapters of COCO-Stuff, DeepFashion, ADE20K and plain folders: one folder of photos beside one of label maps."""

from __future__ import annotations

from pathlib import Path

from pipeline.data.adapters.pairing import pair
from pipeline.data.label_spaces import LabelSpace, make_space
from pipeline.data.listing import Listing, SampleFiles
from pipeline.data.tables import read_names
from pipeline.errors import UserError

CLASSES = "classes.txt"
MOST_CLASSES = 256  # label maps have 8 bits


def unknown_layout(root: Path, name: str, expected: str) -> UserError:
    """The error for a root in none of a data set's layouts: what was expected and what lies there."""
    return UserError(f"{root}: not a layout of {name}; expected {expected}; found {entries_below(root)}")


def entries_below(root: Path) -> str:
    """What lies in a folder, for messages."""
    entries = sorted(p.name for p in root.iterdir() if not p.name.startswith("."))
    return ", ".join(entries[:8]) + (", ..." if len(entries) > 8 else "") if entries else "nothing"


def _train_val(root: Path) -> dict[str, tuple[SampleFiles, ...]]:
    """SPADE's folders `<part>_img`, `<part>_label`, `<part>_inst`, those that are there."""
    return {
        part: pair(root / f"{part}_img", root / f"{part}_label", root / f"{part}_inst")
        for part in ("train", "val", "test")
        if (root / f"{part}_img").is_dir() and (root / f"{part}_label").is_dir()
    }


def find_coco_stuff(root: Path, space: LabelSpace) -> Listing:
    """COCO-Stuff: SPADE's folders, or `train2017`/`val2017` photos beside `stuffthingmaps/<part>`."""
    parts = _train_val(root)
    if parts:
        return Listing("train_img + train_label", parts, space)
    for photos, labels in (("", "stuffthingmaps"), ("images", "annotations")):
        found = {
            part: pair(root / photos / f"{part}2017", root / labels / f"{part}2017")
            for part in ("train", "val")
            if (root / photos / f"{part}2017").is_dir() and (root / labels / f"{part}2017").is_dir()
        }
        if found:
            return Listing("train2017 + stuffthingmaps", found, space)
    raise unknown_layout(
        root, "coco_stuff", "train_img/ + train_label/ (val_ likewise), or train2017/ + stuffthingmaps/train2017/"
    )


def find_deepfashion(root: Path, space: LabelSpace) -> Listing:
    """DeepFashion (SMIS's parsing): `img` + `label` (+ `inst`), or the same by part."""
    if (root / "img").is_dir() and (root / "label").is_dir():
        return Listing("img + label", {"all": pair(root / "img", root / "label", root / "inst")}, space)
    parts = _train_val(root)
    if parts:
        return Listing("train_img + train_label", parts, space)
    raise unknown_layout(root, "deepfashion", "img/ + label/ (+ inst/), or train_img/ + train_label/")


def find_ade20k(root: Path, space: LabelSpace) -> Listing:
    """ADE20K SceneParsing: `images/{training,validation}` + `annotations/{training,validation}`; the full release is refused."""
    base = root / "ADEChallengeData2016" if (root / "ADEChallengeData2016").is_dir() else root
    full = base / "index_ade20k.mat", base / "index_ade20k.pkl", base / "ADE20K_2021_17_01"
    if any(path.exists() for path in full) or _has_full_release_files(base):
        raise UserError(
            f"{base}: this is the full ADE20K release (*_seg.png, *_parts_*.png); needed is the SceneParsing one "
            "(ADEChallengeData2016: images/training + annotations/training, ids 0..150)"
        )
    names = {"train": "training", "val": "validation"}
    parts = {
        part: pair(base / "images" / folder, base / "annotations" / folder)
        for part, folder in names.items()
        if (base / "images" / folder).is_dir() and (base / "annotations" / folder).is_dir()
    }
    if not parts:
        raise unknown_layout(base, "ade20k", "images/training/ + annotations/training/ (validation likewise)")
    return Listing("images/training + annotations/training", parts, space)


def _has_full_release_files(base: Path) -> bool:
    for folder in (base / "images" / "training", base / "images" / "validation", base / "images" / "ADE", base):
        if folder.is_dir() and next(folder.rglob("*_seg.png"), None) is not None:
            return True
    return False


def classes_file_space(root: Path) -> LabelSpace:
    """The label space of a plain folder: `classes.txt`, a name a line in the order of the ids; the class `unknown` is unknown."""
    path = root / CLASSES
    if not path.is_file():
        raise UserError(
            f"{path} is missing: data=folder needs the class names, one a line, in the order of the label ids"
        )
    names = read_names(path, str(path))
    if len(names) > MOST_CLASSES:
        raise UserError(f"{path}: {len(names)} classes; at most {MOST_CLASSES} fit into label maps of 8 bits")
    return make_space("folder", tuple(names), unknown=names.index("unknown") if "unknown" in names else None)


def find_folder(root: Path, space: LabelSpace) -> Listing:
    """Any `images` + `labels` (+ `instances`), flat or by part: `images/train` + `labels/train`, ..."""
    if not (root / "images").is_dir() or not (root / "labels").is_dir():
        raise unknown_layout(root, "folder", "images/ + labels/ + classes.txt (instances/ if there are any)")
    parts = {
        part: pair(root / "images" / part, root / "labels" / part, root / "instances" / part)
        for part in ("train", "val", "test")
        if (root / "images" / part).is_dir() and (root / "labels" / part).is_dir()
    }
    return Listing(
        "images + labels", parts or {"all": pair(root / "images", root / "labels", root / "instances")}, space
    )
