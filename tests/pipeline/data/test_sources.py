"""Layouts, pairing, split rules and the fingerprint of data sets on disk."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.data import build_dataset, data_fingerprint
from pipeline.data.adapters import guess_data_set
from pipeline.data.listing import SampleFiles
from pipeline.data.loader import batches
from pipeline.data.sources import open_source
from pipeline.data.splits import holdout, natural_key
from pipeline.data.types import SPLITS
from pipeline.errors import UserError
from tests.pipeline.data.samples import data_config, face, realdata, write_folder, write_g_mask, write_merged


def files(key: str) -> SampleFiles:
    return SampleFiles(key, Path(f"{key}.jpg"), Path(f"{key}.png"), None)


def save_pair(photos: Path, labels: Path, name: str, ids: np.ndarray, label_name: str | None = None) -> None:
    photos.mkdir(parents=True, exist_ok=True)
    labels.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*ids.shape, 3), 90, dtype=np.uint8)).save(photos / f"{name}.png")
    Image.fromarray(ids.astype(np.uint8)).save(labels / f"{label_name or name}.png")


# ------------------------------------------------------------------------------------------------------ split rules


@given(st.integers(2, 60))
def test_holdout_leaks_nothing(count: int) -> None:
    splits = holdout(tuple(files(str(k)) for k in range(count)))
    train, val, test = ({r.key for r in splits[s]} for s in SPLITS)
    assert train and val and test
    assert not train & (val | test)
    assert len(train | val | test) == count
    held = max(1, round(0.2 * count))
    assert len(val | test) == held
    assert (val == test) if held == 1 else not val & test


def test_holdout_is_stable_when_images_are_added() -> None:
    few, more = (holdout(tuple(files(str(k)) for k in range(n))) for n in (50, 51))
    moved = {r.key for r in few["train"]} ^ {r.key for r in more["train"]} - {"50"}
    assert len(moved) <= 2


def test_natural_order() -> None:
    assert sorted(["10", "2", "a10", "a9"], key=natural_key) == ["2", "10", "a9", "a10"]


def test_published_face_splits(tmp_path: Path) -> None:
    root = write_merged(tmp_path, [3, 27_999, 28_000, 29_999], size=16)
    splits = open_source(data_config("celebamask_hq", root=str(root), split="celebamask_28000_2000")).splits
    assert [r.key for r in splits["train"]] == ["3", "27999"]
    assert [r.key for r in splits["test"]] == ["28000", "29999"] == [r.key for r in splits["val"]]
    official = data_config("celebamask_hq", root=str(root), split="celebamask_official")
    with pytest.raises(UserError, match=r"CelebA-HQ-to-CelebA-mapping\.txt is missing"):
        open_source(official)
    lines = ["idx orig_idx orig_file", "3 162770 a", "27999 162771 b", "28000 182637 c", "29999 182638 d"]
    (root / "CelebA-HQ-to-CelebA-mapping.txt").write_text("\n".join(lines))
    splits = open_source(official).splits
    assert [[r.key for r in splits[s]] for s in SPLITS] == [["3"], ["27999", "28000"], ["29999"]]


def test_lone_image_is_shared_and_says_so(tmp_path: Path) -> None:
    root = str(write_folder(tmp_path / "one", 1))
    source = open_source(data_config("folder", root=root))
    assert source.split_rule == "share" and source.splits["train"] == source.splits["test"]
    with pytest.raises(UserError, match="the val split has no images .*data.split=share"):
        open_source(data_config("folder", root=root, split="holdout"))


def test_counts_limit_and_empty_split(tmp_path: Path) -> None:
    root = str(write_folder(tmp_path / "set", 10))
    assert len(build_dataset(data_config("folder", root=root, train_images=3), "train")) == 3
    with pytest.raises(UserError, match="val split"):
        build_dataset(data_config("folder", root=root, val_images=0), "val")
    with pytest.raises(UserError, match="data.train_images=0"):
        build_dataset(data_config(train_images=0), "train")


# --------------------------------------------------------------------------------------------------------- layouts


def test_missing_root(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="data.root is not set"):
        build_dataset(data_config("coco_stuff"), "train")
    with pytest.raises(UserError, match=r"data\.root=.*nowhere: no such folder"):
        build_dataset(data_config("coco_stuff", root=str(tmp_path / "nowhere")), "train")
    with pytest.raises(UserError, match=r"not a layout of coco_stuff; expected train_img/.*found nothing"):
        build_dataset(data_config("coco_stuff", root=str(tmp_path)), "train")


def test_unpaired_files_are_named(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", 4)
    (root / "labels" / "face2.png").unlink()
    with pytest.raises(UserError, match=r"1 photo without label map in .*labels: face2\.png"):
        build_dataset(data_config("folder", root=str(root)), "train")
    (root / "images" / "face2.png").unlink()
    (root / "images" / "face1.png").unlink()
    with pytest.raises(UserError, match=r"1 label map without photo in .*images: face1\.png"):
        build_dataset(data_config("folder", root=str(root)), "train")


def test_two_photos_of_one_name(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", 2)
    shutil.copy(root / "images" / "face1.png", root / "images" / "face1.jpg")
    with pytest.raises(UserError, match="both are 'face1'"):
        build_dataset(data_config("folder", root=str(root)), "train")


def test_link_loop_is_refused(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", 2)
    (root / "images" / "again").symlink_to(root / "images")
    with pytest.raises(UserError, match=r"again: a link that leads back"):
        build_dataset(data_config("folder", root=str(root)), "train")


def test_label_out_of_range_names_file_and_ids(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", 2)
    Image.fromarray(np.full((48, 48), 77, dtype=np.uint8)).save(root / "labels" / "face0.png")
    dataset = build_dataset(data_config("folder", root=str(root), split="share"), "train")
    with pytest.raises(UserError, match=r"face0\.png: label ids 77 are not ids of folder \(allowed: 0\.\.18\)"):
        dataset[0]
    with pytest.raises(UserError, match=r"face0\.png"):
        list(batches(dataset, batch_size=2, seed=0, epoch=0, augment=None, workers=2))


def test_other_label_order_is_detected_and_converted(tmp_path: Path) -> None:
    ours, other = write_merged(tmp_path / "ours", [0, 1, 2]), write_g_mask(tmp_path / "other", [0, 1, 2])
    with pytest.raises(
        UserError, match="label order celebamask_hq_g_mask .* set data.label_space=celebamask_hq_g_mask"
    ):
        build_dataset(data_config("celebamask_hq", root=str(other)), "train")
    with pytest.raises(UserError, match=r"are in label order celebamask_hq .*read as celebamask_hq_g_mask"):
        build_dataset(data_config("celebamask_hq", root=str(ours), label_space="celebamask_hq_g_mask"), "train")
    a = build_dataset(data_config("celebamask_hq", root=str(ours)), "train")
    b = build_dataset(data_config("celebamask_hq", root=str(other), label_space="celebamask_hq_g_mask"), "train")
    assert a.label_space.classes == b.label_space.classes
    assert np.array_equal(a[0].label, b[0].label)


def test_ade20k_layout_and_full_release(tmp_path: Path) -> None:
    ids = np.asarray([[0, 1], [150, 3]])
    for part in ("training", "validation"):
        for k in range(2):
            save_pair(tmp_path / "images" / part, tmp_path / "annotations" / part, f"ADE_{part}_{k}", ids)
    cfg = data_config("ade20k", root=str(tmp_path), load_scale=1.0)
    source = open_source(cfg)
    assert source.split_rule == "folders" and source.splits["val"] == source.splits["test"]
    label = build_dataset(cfg, "val")[0].label
    assert [int(label[y, x]) for y, x in ((0, 0), (0, 31), (31, 0), (31, 31))] == [150, 0, 149, 2]
    (tmp_path / "images" / "training" / "ADE_train_00000001_seg.png").write_bytes(b"")
    with pytest.raises(UserError, match="full ADE20K release"):
        open_source(cfg)


def test_cityscapes_official_tree_in_both_spaces(tmp_path: Path) -> None:
    ids = np.asarray([[7, 26], [0, 33]])
    for part, city in (("train", "aachen"), ("val", "munster")):
        for k in range(2):
            name = f"{city}_{k:06d}_000019"
            photos, labels = tmp_path / "leftImg8bit" / part / city, tmp_path / "gtFine" / part / city
            save_pair(photos, labels, f"{name}_leftImg8bit", ids, f"{name}_gtFine_labelIds")
            Image.fromarray((ids * 1000).astype(np.uint16)).save(labels / f"{name}_gtFine_instanceIds.png")
            Image.fromarray(ids.astype(np.uint8)).save(labels / f"{name}_gtFine_color.png")  # not a label map
    for space, expected in (("cityscapes_35", [7, 26, 0, 33]), ("cityscapes_19", [0, 13, 19, 18])):
        cfg = data_config("cityscapes", root=str(tmp_path), label_space=space, aspect=1.0, instances=True)
        sample = build_dataset(cfg, "val")[0]
        assert [int(sample.label[y, x]) for y, x in ((0, 0), (0, 31), (31, 0), (31, 31))] == expected
        assert sample.instance is not None and sample.instance[0, 31] == 26_000
    assert sample.key == "munster_000000_000019"


def test_wrong_label_space_for_the_data_set(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="coco_stuff can be read in coco_stuff"):
        build_dataset(data_config("coco_stuff", root=str(tmp_path), label_space="ade20k"), "train")


@pytest.mark.parametrize("name", ["celebamask_hq", "coco_stuff", "cityscapes", "deepfashion"])
def test_guessing(name: str) -> None:
    assert guess_data_set(realdata(name)) == name


# ----------------------------------------------------------------------------------------------------- fingerprint


def test_fingerprint_is_content_not_place(tmp_path: Path) -> None:
    first = write_folder(tmp_path / "a", 4)
    second = tmp_path / "elsewhere" / "b"
    shutil.copytree(first, second)  # other times, other place
    digest = data_fingerprint(data_config("folder", root=str(first)))["digest"]
    assert data_fingerprint(data_config("folder", root=str(second)))["digest"] == digest
    image, _ = face(40, 48)
    Image.fromarray(image).save(second / "images" / "face2.png")
    assert data_fingerprint(data_config("folder", root=str(second)))["digest"] != digest
    assert data_fingerprint(data_config("folder", root=str(first), resize="stretch"))["digest"] != digest
    assert data_fingerprint(data_config("folder", root=str(first), split="share"))["digest"] != digest


def test_fingerprint_without_a_writable_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = str(write_folder(tmp_path / "a", 3))
    digest = data_fingerprint(data_config("folder", root=root))["digest"]
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert data_fingerprint(data_config("folder", root=root))["digest"] == digest


# ----------------------------------------------------------------------------------------------------- real photos


@pytest.mark.parametrize(
    ("name", "width", "classes"),
    [("celebamask_hq", 32, 19), ("coco_stuff", 32, 183), ("cityscapes", 64, 35), ("deepfashion", 32, 8)],
)
def test_real_samples_feed(name: str, width: int, classes: int) -> None:
    cfg = data_config(name, root=str(realdata(name)), instances=True)
    for split in SPLITS:
        dataset = build_dataset(cfg, split)
        batch = next(batches(dataset, batch_size=2, seed=0, epoch=0, augment=cfg.augment))
        assert batch.image.shape == (2, 3, 32, width) and batch.mask.shape == (2, classes, 32, width)
        assert batch.image.std() > 0.1
        assert batch.instance is not None and len(batch.instance.unique()) > 3
    assert open_source(cfg).split_rule == ("share" if name == "deepfashion" else "holdout")


def test_real_face_sides() -> None:
    """The real label maps and ours agree on which side is left."""
    sample = build_dataset(data_config("celebamask_hq", root=str(realdata("celebamask_hq")), size=128), "val")[0]
    left, right = (np.nonzero(sample.label == k)[1].mean() for k in (4, 5))
    assert left > right
