"""`data prepare`: exact labels, mistakes named, duplicates kept apart."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data import build_dataset, data_fingerprint
from pipeline.data.prepare import sample as sample_module
from pipeline.data.prepare.duplicates import group_by_look, keep_apart
from pipeline.errors import UserError
from tests.pipeline.data.samples import (
    data_config,
    face,
    realdata,
    write_folder,
    write_g_mask,
    write_merged,
    write_parts,
)
from tests.pipeline.data.samples import prepared as run


def test_part_masks_become_the_label_maps_they_came_from(tmp_path: Path) -> None:
    result = run("celebamask_hq", write_parts(tmp_path / "raw", [0, 1, 2001]), tmp_path / "root")
    assert result.samples == 3 and result.default_split == "holdout"
    for number in (0, 1, 2001):
        merged = np.asarray(Image.open(tmp_path / "root" / "labels" / f"{number}.png"))
        assert np.array_equal(merged, face(number)[1])
    manifest = json.loads((tmp_path / "root" / "manifest.json").read_text())
    assert manifest["classes"][13] == "hair" and manifest["histogram"]["skin"]["images"] == 3
    assert manifest["histogram"]["hair"]["pixels"] == sum(int((face(n)[1] == 13).sum()) for n in (0, 1, 2001))


def test_later_parts_are_painted_over_earlier_ones(tmp_path: Path) -> None:
    """Overlaps: skin everywhere, hair over its left half, an eye over the hair's corner keeps under the hair."""
    raw = tmp_path / "raw"
    (raw / "CelebA-HQ-img").mkdir(parents=True)
    folder = raw / "CelebAMask-HQ-mask-anno" / "0"
    folder.mkdir(parents=True)
    Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(raw / "CelebA-HQ-img" / "0.jpg")
    for part, rows, columns in (("skin", 8, 8), ("hair", 8, 4), ("l_eye", 2, 6)):
        mask = np.zeros((8, 8, 3), dtype=np.uint8)  # the release's masks are RGB
        mask[:rows, :columns] = 255
        Image.fromarray(mask).save(folder / f"00000_{part}.png")
    run("celebamask_hq", raw, tmp_path / "root")
    label = np.asarray(Image.open(tmp_path / "root" / "labels" / "0.png"))
    assert label[0].tolist() == [13] * 4 + [4] * 2 + [1] * 2  # hair (13) over l_eye (4) over skin (1)
    assert label[5].tolist() == [13] * 4 + [1] * 4


def test_the_thirteen_classes_are_painted_in_their_own_order(tmp_path: Path) -> None:
    """Where parts overlap the two spaces differ: ears over hair and nose over glasses here, hair over ears and glasses there."""
    raw = tmp_path / "raw"
    (raw / "CelebA-HQ-img").mkdir(parents=True)
    folder = raw / "CelebAMask-HQ-mask-anno" / "0"
    folder.mkdir(parents=True)
    Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(raw / "CelebA-HQ-img" / "0.jpg")
    for part, columns in (("hair", slice(0, 4)), ("l_ear", slice(2, 4)), ("nose", slice(4, 6)), ("eye_g", slice(4, 8))):
        mask = np.zeros((8, 8), dtype=np.uint8)
        mask[:, columns] = 255
        Image.fromarray(mask).save(folder / f"00000_{part}.png")
    run("celebamask_hq", raw, tmp_path / "thirteen", space="celebamask_13")
    run("celebamask_hq", raw, tmp_path / "nineteen")
    thirteen, nineteen = (
        np.asarray(Image.open(tmp_path / name / "labels" / "0.png"))[0] for name in ("thirteen", "nineteen")
    )
    assert thirteen.tolist() == [7, 7, 6, 6, 5, 5, 10, 10]  # hair, ears, nose, glasses
    assert nineteen.tolist() == [13] * 4 + [3] * 4  # hair, glasses
    assert json.loads((tmp_path / "thirteen" / "manifest.json").read_text())["label_space"] == "celebamask_13"
    with pytest.raises(
        UserError, match="run `python -m pipeline data prepare celebamask_hq .* --label-space celebamask_13"
    ):
        build_dataset(data_config("celebamask_hq", root=str(raw), label_space="celebamask_13"), "train")


def test_part_mask_mistakes(tmp_path: Path) -> None:
    raw = write_parts(tmp_path / "raw", [0, 1])
    odd = raw / "CelebAMask-HQ-mask-anno" / "0" / "00000_hairs.png"
    Image.fromarray(np.zeros((64, 64), dtype=np.uint8)).save(odd)
    with pytest.raises(UserError, match=r"00000_hairs\.png: not a part mask .*did you mean hair"):
        run("celebamask_hq", raw, tmp_path / "root")
    odd.unlink()
    (raw / "CelebA-HQ-img" / "1.jpg").unlink()
    with pytest.raises(UserError, match=r"the first is image 1 \(part masks without photo\)"):
        run("celebamask_hq", raw, tmp_path / "root")
    assert not (tmp_path / "root" / "manifest.json").exists()
    with pytest.raises(UserError, match="not merged yet; run `python -m pipeline data prepare"):
        build_dataset(data_config("celebamask_hq", root=str(raw)), "train")


def test_prepared_root_trains_like_the_raw_one(tmp_path: Path) -> None:
    raw = write_folder(tmp_path / "raw", 5)
    run("folder", raw, tmp_path / "root")
    options = {"split": "holdout", "label_space": "classes_file"}
    a, b = (build_dataset(data_config("folder", root=str(r), **options), "train") for r in (raw, tmp_path / "root"))
    assert a.keys == b.keys and a.label_space.classes == b.label_space.classes
    assert all(np.array_equal(a[i].image, b[i].image) and np.array_equal(a[i].label, b[i].label) for i in range(len(a)))


def test_other_order_is_refused_or_converted_by_name(tmp_path: Path) -> None:
    raw = write_g_mask(tmp_path / "raw", [0, 1, 2])
    with pytest.raises(UserError, match="label order celebamask_hq_g_mask"):
        run("celebamask_hq", raw, tmp_path / "root")
    run("celebamask_hq", raw, tmp_path / "root", space="celebamask_hq_g_mask")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "root" / "labels" / "1.png")), face(1)[1])
    dataset = build_dataset(data_config("celebamask_hq", root=str(tmp_path / "root")), "train")
    assert dataset.label_space.name == "celebamask_hq"


def test_both_published_face_splits_by_name(tmp_path: Path) -> None:
    raw = write_merged(tmp_path / "raw", [3, 27_999, 28_000], size=32)
    lines = ["idx orig_idx orig_file", "3 5 a", "27999 162771 b", "28000 182638 c"]
    (raw / "CelebA-HQ-to-CelebA-mapping.txt").write_text("\n".join(lines))
    result = run("celebamask_hq", raw, tmp_path / "root")
    assert result.default_split == "celebamask_28000_2000"
    assert result.split_sizes["celebamask_official"] == {"train": 1, "val": 1, "test": 1}
    cfg = data_config("celebamask_hq", root=str(tmp_path / "root"), split="celebamask_official")
    assert build_dataset(cfg, "val").keys == ("27999",)
    assert build_dataset(data_config("celebamask_hq", root=str(tmp_path / "root")), "val").keys == ("28000",)


def test_broken_files_are_named_all_at_once_and_the_rest_is_kept(tmp_path: Path) -> None:
    raw, root = write_folder(tmp_path / "raw", 5), tmp_path / "root"
    photo, label = raw / "images" / "face1.png", raw / "labels" / "face3.png"
    good = photo.read_bytes(), label.read_bytes()
    photo.write_bytes(good[0][:-700])
    Image.fromarray(np.zeros((48, 48, 3), dtype=np.uint8)).save(label)
    with pytest.raises(
        UserError,
        match=r"2 of 5 samples cannot be prepared: .*face1\.png.*; .*face3\.png: label map has pixel mode RGB",
    ):
        run("folder", raw, root)
    assert not (root / "manifest.json").exists() and not (root / "labels" / "face3.png").exists()
    photo.write_bytes(good[0])
    label.write_bytes(good[1])
    assert run("folder", raw, root).reused == 3


def test_odd_photos_are_converted(tmp_path: Path) -> None:
    raw = write_folder(tmp_path / "raw", 3)
    image, _ = face(0, 48)
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(image[::-1, ::-1]).save(raw / "images" / "face0.png", exif=exif)
    Image.fromarray(image).convert("CMYK").save(raw / "images" / "face1.jpg")
    (raw / "images" / "face1.png").unlink()
    Image.fromarray(image).save(raw / "images" / "face2.png", format="JPEG")  # wrong extension
    run("folder", raw, tmp_path / "root")
    for name in ("face0.png", "face1.png", "face2.png"):
        with Image.open(tmp_path / "root" / "photos" / name) as photo:
            assert (photo.format, photo.mode) == ("PNG", "RGB")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "root" / "photos" / "face0.png")), image)


def test_targets_that_cannot_be(tmp_path: Path) -> None:
    raw = write_folder(tmp_path / "raw", 2)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        run("folder", raw, tmp_path / "file" / "root")
    with pytest.raises(UserError, match="lies inside --from"):
        run("folder", raw, raw / "prepared")
    run("folder", raw, tmp_path / "root")
    with pytest.raises(UserError, match="prepared already"):
        run("folder", tmp_path / "root", tmp_path / "more")
    with pytest.raises(UserError, match="prepared from folder, asked for is data=coco_stuff"):
        build_dataset(data_config("coco_stuff", root=str(tmp_path / "root")), "train")


def test_duplicates_are_kept_out_of_different_splits(tmp_path: Path) -> None:
    """The same photo under two names, the second recompressed: at most one split holds it."""
    raw = write_folder(tmp_path / "raw", 10, size=96)
    parts = run("folder", raw, tmp_path / "first").root
    splits = json.loads((parts / "manifest.json").read_text())["splits"]["holdout"]
    in_train, in_test = splits["train"][0], splits["test"][0]
    shutil.copy(raw / "images" / f"{in_test}.png", raw / "images" / f"{in_train}.png")
    result = run("folder", raw, tmp_path / "root")
    manifest = json.loads((result.root / "manifest.json").read_text())
    assert result.duplicates == 1 and manifest["duplicates"] == [sorted([in_train, in_test])]
    assert in_train not in manifest["splits"]["holdout"]["train"] and in_test in manifest["splits"]["holdout"]["test"]
    assert manifest["removed_duplicates"]["holdout"] == [{"key": in_train, "split": "train", "duplicate_in": "test"}]
    assert in_train not in build_dataset(data_config("folder", root=str(result.root)), "train").keys


def test_recompressed_duplicates_are_recognised_and_other_faces_are_not(tmp_path: Path) -> None:
    photos = []
    for index in range(12):
        image, _ = face(index, 200)
        for quality in (95, 80):
            path = tmp_path / f"{index}_{quality}.jpg"
            Image.fromarray(image).save(path, quality=quality)
            look = sample_module.difference_hash(Image.open(path))
            photos.append((path.stem, look, f"{index}{quality}"))
    assert group_by_look(photos) == sorted([f"{i}_80", f"{i}_95"] for i in range(12))


def test_flat_photos_are_duplicates_only_byte_by_byte() -> None:
    flat = "00" * 32
    assert group_by_look([("a", flat, "1"), ("b", flat, "2")]) == []
    assert group_by_look([("a", flat, "1"), ("b", flat, "1"), ("c", flat, "3")]) == [["a", "b"]]


def test_keep_apart_prefers_test_then_val() -> None:
    splits = {"train": ["a", "b", "c"], "val": ["d", "e"], "test": ["f"]}
    cleaned, removed = keep_apart(splits, [["a", "d"], ["e", "f"]])
    assert cleaned == {"train": ["b", "c"], "val": ["d"], "test": ["f"]}
    assert [r["key"] for r in removed] == ["e", "a"]
    same = {"train": ["a"], "val": ["b", "c"], "test": ["b", "c"]}
    assert keep_apart(same, [["b", "c"]]) == (same, [])


@pytest.mark.parametrize("name", ["celebamask_hq", "coco_stuff", "cityscapes", "deepfashion"])
def test_real_samples_prepare_and_train(tmp_path: Path, name: str) -> None:
    source = realdata(name)
    result = run(name, source, tmp_path / "root")
    cfg = data_config(name, root=str(result.root), load_scale=1.0)
    raw = build_dataset(data_config(name, root=str(source), load_scale=1.0), "train")
    ready = build_dataset(cfg, "train")
    assert ready.keys == raw.keys
    assert np.array_equal(ready[0].image, raw[0].image) and np.array_equal(ready[0].label, raw[0].label)
    assert data_fingerprint(cfg)["description"]["split_rule"] == result.default_split


def test_part_masks_win_over_merged_maps_beside_them(tmp_path: Path) -> None:
    """Merged maps in a raw folder are someone's own; the part masks are the data set."""
    raw = write_parts(tmp_path / "raw", [0, 1])
    write_g_mask(raw, [0, 1])
    run("celebamask_hq", raw, tmp_path / "root")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "root" / "labels" / "0.png")), face(0)[1])
