"""A data section for looking at a folder, without composing a whole run's config."""

from __future__ import annotations

from pathlib import Path

from pipeline.data.adapters import guess_data_set
from pipeline.data.adapters.prepared import MANIFEST, read_manifest
from pipeline.data.crop import default_aspect
from pipeline.errors import UserError, nearest
from pipeline.schema.data import SPACES_OF, DataConfig
from pipeline.schema.yaml12 import read_yaml

_DEFAULTS = Path(__file__).parent.parent / "conf" / "data"


def quick_config(
    root: str, *, data: str | None, space_name: str | None, size: int, count: int, aspect: float | None = None
) -> DataConfig:
    """The defaults of a data set's config with this root (or the word procfaces), short side and aspect, nothing mirrored.

    UserError: no such folder, a folder of no known data set.
    """
    if root == "procfaces":
        name, folder = "procfaces", None
    else:
        folder = Path(root)
        if not folder.is_dir():
            raise UserError(f"{root}: no such folder (or give the word procfaces)")
        name = data if data is not None else guess_data_set(folder)
    if name not in ("procfaces", *SPACES_OF):
        raise UserError(f"--data {name}: unknown{nearest(name, list(SPACES_OF))}; known: {', '.join(SPACES_OF)}")
    values = read_yaml(_DEFAULTS / f"{name}.yaml", "defaults").values
    values |= {"root": None if folder is None else str(folder), "size": size, "cache": "none", "workers": 0}
    values["aspect"] = aspect or values["aspect"] or default_aspect(values["root"])
    values["augment"] = {"mirror": False, "load_scale": 1.0}
    if name == "procfaces":
        values |= dict.fromkeys(("train_images", "val_images", "test_images"), count)
    elif space_name is not None:
        values["label_space"] = space_name
    elif folder is not None and (folder / MANIFEST).is_file():
        stored = read_manifest(folder)["label_space"]
        values["label_space"] = stored if stored in SPACES_OF[name] else SPACES_OF[name][0]
    return DataConfig(**values)
