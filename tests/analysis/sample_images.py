"""Writes sample images into synthetic runs, in the layout that figures read: palette masks, RGB images, attention maps, edits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.records import RunStore, StudyManifest

PALETTE = [(20, 24, 40), (232, 190, 160), (90, 50, 30), (60, 110, 200), (200, 60, 80)]
CLASSES = ["background", "skin", "hair", "eyes", "mouth"]


def add_samples(
    out: Path,
    manifest: StudyManifest,
    *,
    count: int = 6,
    size: int = 32,
    blur: dict[str, int] | None = None,
    attention: tuple[str, ...] = (),
    edits: bool = False,
) -> None:
    """Give every finished run `count` samples of `size` pixels; `blur` (arm -> block size) makes an arm's output coarser."""
    store = RunStore(out / "runs")
    for cell in manifest.cells:
        record = store.record(cell.run_id)
        if record.state != "finished":
            continue
        folder = record.path / "samples" / manifest.protocol
        folder.mkdir(parents=True, exist_ok=True)
        items = []
        for index in range(count):
            label = face_labels(size, index)
            target = paint(label, index)
            block = (blur or {}).get(cell.arm, 2)
            output = np.repeat(np.repeat(target[::block, ::block], block, 0), block, 1)[:size, :size]
            files: dict[str, object] = {}
            for what, image in (("style", paint(label, index)), ("target", target), ("output", output)):
                files[what] = f"{index:04d}_{what}.png"
                Image.fromarray(image).save(folder / str(files[what]))
            files["mask"] = f"{index:04d}_mask.png"
            save_labels(folder / str(files["mask"]), label)
            if cell.arm in attention:
                files["attention_classes"] = [f"{index:04d}_classes_0.png"]
                save_labels(folder / f"{index:04d}_classes_0.png", np.roll(label, 2, axis=1)[::2, ::2])
            error = np.mean((output / 255.0 - target / 255.0) ** 2)
            item: dict[str, object] = {
                "index": index,
                "key": f"image-{index:04d}",
                "psnr": float(-10 * np.log10(error + 1e-6)),
                "files": files,
            }
            if edits:
                name = f"{index:04d}_edit_hair.png"
                Image.fromarray(output[::-1]).save(folder / name)
                item["edits"] = [{"task": "style of hair", "file": name, "truth": files["target"]}]
            items.append(item)
        (folder / "index.json").write_text(json.dumps({"items": items}))


def face_labels(size: int, index: int) -> np.ndarray:
    """HW uint8 class indices of a rough face."""
    y, x = np.mgrid[0:size, 0:size] / size - 0.5
    x = x + 0.03 * (index % 3 - 1)
    label = np.zeros((size, size), np.uint8)
    label[(x / 0.38) ** 2 + ((y + 0.06) / 0.44) ** 2 < 1] = 2
    label[(x / 0.28) ** 2 + ((y - 0.05) / 0.38) ** 2 < 1] = 1
    for side in (-0.12, 0.12):
        label[((x - side) / 0.06) ** 2 + ((y + 0.02) / 0.035) ** 2 < 1] = 3
    label[(x / 0.1) ** 2 + ((y - 0.24) / 0.04) ** 2 < 1] = 4
    return label


def paint(label: np.ndarray, index: int) -> np.ndarray:
    """HWC uint8 image: each class in a colour that depends on the index, with a light from the left."""
    generator = np.random.default_rng(index)
    colours = np.asarray(PALETTE, float) * generator.uniform(0.6, 1.15, (len(PALETTE), 1))
    light = np.linspace(1.1, 0.75, label.shape[1])[None, :, None]
    texture = generator.normal(0, 6, label.shape)[..., None]
    return np.clip(colours[label] * light + texture, 0, 255).astype(np.uint8)


def save_labels(path: Path, label: np.ndarray) -> None:
    image = Image.fromarray(label)
    image.putpalette([channel for colour in PALETTE for channel in colour])
    image.save(path)
