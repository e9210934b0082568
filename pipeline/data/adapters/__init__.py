"""Adapters: the layouts in which data sets lie on disk, as users download them or as `data prepare` writes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipeline.data.adapters import celebamask, photos, prepared, street
from pipeline.data.label_spaces import LabelSpace, label_space
from pipeline.data.sources import Layout
from pipeline.errors import UserError, nearest

CLASSES_FILE = "classes_file"  # label space of `folder`: read from the root's classes.txt

_FINDERS: dict[str, Callable[[Path, LabelSpace], Layout]] = {
    "celebamask_hq": celebamask.find,
    "ade20k": photos.find_ade20k,
    "deepfashion": photos.find_deepfashion,
    "cityscapes": street.find,
    "coco_stuff": photos.find_coco_stuff,
    "folder": photos.find_folder,
}
DATA_SETS: tuple[str, ...] = tuple(_FINDERS)

# Label spaces that make sense for each data set; the first is the usual one.
SPACES_OF: dict[str, tuple[str, ...]] = {
    "celebamask_hq": ("celebamask_hq", "celebamask_hq_g_mask"),
    "ade20k": ("ade20k",),
    "deepfashion": ("deepfashion",),
    "cityscapes": ("cityscapes_35", "cityscapes_19"),
    "coco_stuff": ("coco_stuff",),
    "folder": (CLASSES_FILE,),
}


def find_layout(name: str, root: Path, space_name: str) -> Layout:
    """Layout of data set `name` below `root`, its labels read in label space `space_name`.

    UserError: a data set or space of no such name, a root in none of the known layouts, unpaired files.
    """
    if name not in _FINDERS:
        raise UserError(
            f"data={name}: unknown data set{nearest(name, DATA_SETS)}; known: procfaces, {', '.join(DATA_SETS)}"
        )
    if space_name not in SPACES_OF[name]:
        raise UserError(f"data.label_space={space_name}: {name} can be read in {' or '.join(SPACES_OF[name])}")
    if (root / prepared.MANIFEST).is_file():
        return prepared.find(name, root, space_name)
    space = photos.classes_file_space(root) if space_name == CLASSES_FILE else label_space(space_name)
    return _FINDERS[name](root, space)
