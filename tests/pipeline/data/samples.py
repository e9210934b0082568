"""Small data sets written for tests: procedural faces in the layouts that users download."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from pipeline.data.class_names import CELEBAMASK_HQ, CELEBAMASK_HQ_G_MASK
from pipeline.data.prepare import OwnLayout, Prepared, prepare
from pipeline.data.procfaces import label_map, layout_of, light_of, render_label, styles_of
from pipeline.schema.data import DataConfig

ROOT = Path(__file__).parents[3]
REALDATA = ROOT.parent / "shared" / "realdata"


def realdata(name: str) -> Path:
    """Folder of a real sample set; skips the test where it is absent."""
    path = REALDATA / name
    if not path.is_dir():
        pytest.skip(f"no real samples of {name} at ../shared/realdata")
    return path


def data_config(name: str = "procfaces", **changes: Any) -> DataConfig:
    """The defaults of conf/data/<name>.yaml at 32 pixels, uncached, with changes (`mirror`, `load_scale` go to augment)."""
    values = yaml.safe_load((ROOT / "pipeline" / "conf" / "data" / f"{name}.yaml").read_text())
    values |= {"size": 32, "cache": "none"}
    values["aspect"] = values["aspect"] or 1.0
    values["augment"] |= {key: changes.pop(key) for key in ("mirror", "load_scale") if key in changes}
    return DataConfig(**(values | changes))


def face(index: int, size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """(image (H,W,3), label (H,W)) uint8 of procedural face `index`."""
    label = label_map(layout_of(3, index), size, size)
    return render_label(label, styles_of(3, index), light_of(3, index)), label


def write_merged(root: Path, numbers: list[int], *, order: tuple[str, ...] = CELEBAMASK_HQ, size: int = 64) -> Path:
    """CelebA-HQ-img + merged_labels of procedural faces, ids in `order`; photos twice the size of the labels."""
    (root / "CelebA-HQ-img").mkdir(parents=True, exist_ok=True)
    (root / "merged_labels").mkdir(parents=True, exist_ok=True)
    table = np.asarray([order.index(name) for name in CELEBAMASK_HQ], dtype=np.uint8)
    for number in numbers:
        image, label = face(number, size)
        photo = Image.fromarray(image).resize((2 * size, 2 * size), Image.Resampling.BICUBIC)
        photo.save(root / "CelebA-HQ-img" / f"{number}.jpg", quality=95)
        Image.fromarray(table[label]).save(root / "merged_labels" / f"{number}.png")
    return root


def write_g_mask(root: Path, numbers: list[int]) -> Path:
    """As `write_merged`, in the other label order that circulates."""
    return write_merged(root, numbers, order=CELEBAMASK_HQ_G_MASK)


def write_parts(root: Path, numbers: list[int], size: int = 64) -> Path:
    """CelebA-HQ-img + CelebAMask-HQ-mask-anno: one mask a part, 2,000 images a folder."""
    (root / "CelebA-HQ-img").mkdir(parents=True, exist_ok=True)
    for number in numbers:
        image, label = face(number, size)
        Image.fromarray(image).save(root / "CelebA-HQ-img" / f"{number}.jpg", quality=95)
        folder = root / "CelebAMask-HQ-mask-anno" / str(number // 2000)
        folder.mkdir(parents=True, exist_ok=True)
        for k in np.unique(label[label > 0]):
            mask = Image.fromarray(np.where(label == k, 255, 0).astype(np.uint8))
            mask.save(folder / f"{number:05d}_{CELEBAMASK_HQ[k]}.png")
    return root


def write_folder(root: Path, count: int, size: int = 48) -> Path:
    """images + labels + classes.txt of procedural faces."""
    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    (root / "classes.txt").write_text("\n".join(CELEBAMASK_HQ) + "\n")
    for index in range(count):
        image, label = face(index, size)
        Image.fromarray(image).save(root / "images" / f"face{index}.png")
        Image.fromarray(label).save(root / "labels" / f"face{index}.png")
    return root


def prepared(
    name: str, source: Path, target: Path, *, space: str | None = None, workers: int = 2, **layout: Any
) -> Prepared:
    """`data prepare` with the usual label space; `layout` as its options say it."""
    usual = {"cityscapes": "cityscapes_35", "folder": "classes_file"}
    own = OwnLayout(**layout) if layout else None
    return prepare(name, source, target, space_name=space or usual.get(name, name), workers=workers, layout=own)
