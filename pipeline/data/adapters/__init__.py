"""Adapters: the layouts in which data sets lie on disk, as users download them or as `data prepare` writes them.

A data set is a row here, and one in `pipeline.schema.data.SPACES_OF`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipeline.data.adapters import celebamask, photos, prepared, street
from pipeline.data.label_spaces import LabelSpace, label_space
from pipeline.data.listing import Listing, with_unique_keys
from pipeline.errors import UserError, nearest
from pipeline.schema.data import CLASSES_FILE, SPACES_OF

FINDERS: dict[str, Callable[[Path, LabelSpace], Listing]] = {
    "celebamask_hq": celebamask.find,
    "ade20k": photos.find_ade20k,
    "deepfashion": photos.find_deepfashion,
    "cityscapes": street.find,
    "coco_stuff": photos.find_coco_stuff,
    "folder": photos.find_folder,
}

# Entries below a root that tell a data set as users download it.
CLUES: dict[str, tuple[str, ...]] = {
    "celebamask_hq": (celebamask.PHOTOS, "CelebAMask-HQ"),
    "cityscapes": ("leftImg8bit",),
    "ade20k": ("ADEChallengeData2016", "images/training"),
    "deepfashion": ("img",),
    "folder": (photos.CLASSES,),
}


def find_listing(name: str, root: Path, space_name: str) -> Listing:
    """Listing of data set `name` below `root`, its labels read in label space `space_name`.

    UserError: a data set or space of no such name, a root in none of the known layouts, unpaired files.
    """
    if name not in FINDERS:
        raise UserError(
            f"data={name}: unknown data set{nearest(name, list(FINDERS))}; known: procfaces, {', '.join(FINDERS)}"
        )
    if space_name not in SPACES_OF[name]:
        raise UserError(f"data.label_space={space_name}: {name} can be read in {' or '.join(SPACES_OF[name])}")
    if prepared.is_prepared(root):
        return prepared.find(name, root, space_name)
    space = photos.classes_file_space(root) if space_name == CLASSES_FILE else label_space(space_name)
    return with_unique_keys(FINDERS[name](root, space))


def guess_data_set(root: Path) -> str:
    """Which data set lies below `root`, by the names of its folders. UserError where none or more than one fits."""
    if prepared.is_prepared(root):
        return str(prepared.read_manifest(root)["data"])
    fits = [name for name, entries in CLUES.items() if any((root / entry).exists() for entry in entries)]
    if not fits and any((root / folder).is_dir() for folder in ("train_img", "val_img", "stuffthingmaps")):
        street_scenes = next(root.glob("*_img/*_leftImg8bit.png"), None) is not None
        fits = ["cityscapes" if street_scenes else "coco_stuff"]
    if len(fits) != 1:
        found = f"could be {' or '.join(fits)}" if fits else "fits no known layout"
        raise UserError(f"{root}: {found}; say which with --data (one of {', '.join(FINDERS)})")
    return fits[0]
