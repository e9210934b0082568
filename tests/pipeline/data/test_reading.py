"""Reading files as they come: odd photos are read right, broken ones are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data.reading import check_alignment, photo_traits, read_ids, read_mask, read_photo
from pipeline.errors import UserError

PICTURE = np.random.default_rng(0).integers(0, 256, (8, 12, 3)).astype(np.uint8)


def test_grey_cmyk_palette_and_alpha_photos_become_rgb(tmp_path: Path) -> None:
    rgb = Image.fromarray(PICTURE)
    for mode, name in (("L", "a.jpg"), ("CMYK", "b.jpg"), ("P", "c.png"), ("RGBA", "d.png"), ("1", "e.png")):
        rgb.convert(mode).save(tmp_path / name)
        photo = read_photo(tmp_path / name)
        assert photo.mode == "RGB" and photo.size == (12, 8)
        assert not photo_traits(tmp_path / name).plain
    rgb.convert("RGBA").save(tmp_path / "exact.png")
    assert np.array_equal(np.asarray(read_photo(tmp_path / "exact.png")), PICTURE)


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise by 90 degrees to look at it
    Image.fromarray(PICTURE).save(tmp_path / "turned.png", exif=exif)
    photo = np.asarray(read_photo(tmp_path / "turned.png"))
    assert np.array_equal(photo, np.rot90(PICTURE, -1))
    assert photo_traits(tmp_path / "turned.png").rotated


def test_truncated_photo_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    Image.fromarray(np.tile(PICTURE, (20, 20, 1))).save(path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(UserError, match=r"cut\.jpg: photo cannot be read, the file is damaged or incomplete"):
        read_photo(path)


def test_truncated_label_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 19, (64, 64)).astype(np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(UserError, match=r"cut\.png: label map cannot be read"):
        read_ids(path)


def test_text_named_jpg_and_missing_file(tmp_path: Path) -> None:
    (tmp_path / "page.jpg").write_text("<html>not found</html>")
    with pytest.raises(UserError, match=r"page\.jpg: photo cannot be read: its content is no image"):
        read_photo(tmp_path / "page.jpg")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    with pytest.raises(UserError, match=r"gone\.jpg: photo is missing"):
        read_photo(tmp_path / "gone.jpg")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    with pytest.raises(UserError, match=r"loop\.jpg: photo cannot be read"):
        read_photo(tmp_path / "loop.jpg")


def test_photo_of_sixteen_bits_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), dtype=np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(UserError, match=r"deep\.png: photo has pixel mode I;16"):
        read_photo(tmp_path / "deep.png")


def test_label_modes(tmp_path: Path) -> None:
    ids = np.asarray([[0, 3], [255, 7]], dtype=np.uint8)
    palette = Image.fromarray(ids, mode=None).convert("L")
    coloured = Image.new("P", (2, 2))
    coloured.putdata(list(map(int, ids.reshape(-1))))
    coloured.putpalette([k // 3 for k in range(768)])
    palette.save(tmp_path / "l.png")
    coloured.save(tmp_path / "p.png")
    Image.fromarray(ids.astype(np.uint16) * 257).save(tmp_path / "i16.png")
    assert read_ids(tmp_path / "l.png").tolist() == ids.tolist()
    assert read_ids(tmp_path / "p.png").tolist() == ids.tolist()  # the indices, not the colours
    assert read_ids(tmp_path / "i16.png").tolist() == (ids.astype(int) * 257).tolist()
    Image.fromarray(PICTURE).save(tmp_path / "rgb.png")
    with pytest.raises(UserError, match=r"rgb\.png: label map has pixel mode RGB \(colours\)"):
        read_ids(tmp_path / "rgb.png")


def test_masks_in_any_mode(tmp_path: Path) -> None:
    inside = np.asarray([[True, False], [False, True]])
    for mode in ("L", "RGB", "1", "P"):
        Image.fromarray(inside.astype(np.uint8) * 255).convert(mode).save(tmp_path / f"{mode}.png")
        assert np.array_equal(read_mask(tmp_path / f"{mode}.png"), inside)


def test_alignment() -> None:
    photo, label = Path("a.jpg"), Path("a.png")
    check_alignment(photo, (1024, 1024), label, (512, 512))
    check_alignment(photo, (640, 427), label, (427, 640))
    with pytest.raises(UserError, match=r"a\.jpg is 640x480 but its label map a\.png is 480x640"):
        check_alignment(photo, (640, 480), label, (640, 480))
