"""Procedural faces: pure functions of (seed, index), exact labels, one light, and edits that change what they say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.config import compose
from pipeline.data import build_dataset, data_fingerprint
from pipeline.data.class_names import CELEBAMASK_HQ
from pipeline.data.procfaces import label_map, layout_of, light_of, render, render_label, styles_of
from pipeline.errors import UserError
from tests.pipeline.data.samples import data_config

ID = {name: k for k, name in enumerate(CELEBAMASK_HQ)}


def test_pure_function_of_seed_and_index() -> None:
    assert layout_of(5, 7) == layout_of(5, 7)
    assert styles_of(5, 7) == styles_of(5, 7)
    assert light_of(5, 7) == light_of(5, 7)
    assert layout_of(5, 7) != layout_of(5, 8)
    assert styles_of(5, 7) != styles_of(6, 7)


def test_labels_do_not_drift() -> None:
    """Golden counts: when they change, RENDERER_VERSION must be raised, as cached and recorded data are then others.

    Two pixels a class of tolerance: the last bit of a sine differs between processors, and may move an edge.
    """
    counts = sum(np.bincount(label_map(layout_of(0, i), 24, 24).reshape(-1), minlength=19) for i in range(40))
    expected = [13069, 3352, 151, 56, 90, 81, 86, 102, 52, 46, 42, 66, 87, 3021, 314, 13, 22, 1051, 1339]
    assert np.abs(counts - np.asarray(expected)).max() <= 2


def test_pictures_do_not_drift() -> None:
    """As above for the pictures, by region means, which the last bit of a sine cannot move."""
    pictures = [
        render(layout_of(0, i), styles_of(0, i), light_of(0, i), 24, 24).reshape(-1, 3).mean(0) for i in range(4)
    ]
    expected = [[122.9, 129.67, 133.31], [98.23, 82.39, 57.98], [140.94, 131.42, 136.04], [134.94, 136.81, 134.95]]
    assert np.abs(np.stack(pictures) - np.asarray(expected)).max() < 0.5


def test_every_class_occurs_and_rare_ones_are_rare() -> None:
    images = np.zeros(19)
    for index in range(300):
        images += np.bincount(label_map(layout_of(1, index), 48, 48).reshape(-1), minlength=19) > 0
    share = dict(zip(CELEBAMASK_HQ, images / 300, strict=True))
    assert min(share.values()) > 0
    assert all(share[name] == 1 for name in ("background", "skin", "nose"))
    assert all(0.02 < share[name] < 0.4 for name in ("eye_g", "hat", "ear_r", "neck_l"))
    assert all(share[name] > 0.9 for name in ("l_brow", "r_brow", "hair", "u_lip", "l_lip", "neck", "cloth"))


def test_left_is_the_subjects_left() -> None:
    """As in CelebAMask-HQ: l_ parts lie on the right of the image."""
    for index in range(60):
        label = label_map(layout_of(2, index), 64, 64)
        for part in ("eye", "brow", "ear"):
            left, right = (np.nonzero(label == ID[f"{side}_{part}"])[1] for side in "lr")
            if left.size and right.size:
                assert left.mean() > right.mean(), (index, part)


def test_any_resolution_shows_the_same_layout() -> None:
    for index in range(5):
        small, large = (label_map(layout_of(0, index), size, size) for size in (32, 160))
        assert (small == large[2::5, 2::5]).mean() > 0.97


def test_non_square_pictures() -> None:
    picture = render(layout_of(0, 0), styles_of(0, 0), light_of(0, 0), 32, 64)
    assert picture.shape == (32, 64, 3)
    middle = label_map(layout_of(0, 0), 32, 64)[:, 16:48]
    assert np.array_equal(middle, label_map(layout_of(0, 0), 32, 32))


@pytest.mark.parametrize("names", [("hair",), ("cloth",), ("skin", "nose")])
def test_style_edit_changes_only_its_regions(names: tuple[str, ...]) -> None:
    """The ground truth of a style edit: other classes keep every pixel (light is one for the whole picture)."""
    layout, light = layout_of(0, 3), light_of(0, 3)
    ours, edited = styles_of(0, 3), styles_of(0, 3).exchanged(styles_of(0, 11), names)
    label = label_map(layout, 48, 48)
    before, after = (render(layout, styles, light, 48, 48).astype(int) for styles in (ours, edited))
    inside = np.isin(label, [ID[name] for name in names])
    assert np.array_equal(before[~inside], after[~inside])
    assert np.abs(before - after)[inside].mean() > 5


def test_light_reaches_every_class() -> None:
    """Warmth and direction show on all classes at once: what global consistency is measured by."""
    layout, styles, light = layout_of(0, 100), styles_of(0, 100), light_of(0, 100)
    label = label_map(layout, 64, 64)
    warm, cold = (render(layout, styles, replace(light, warmth=w), 64, 64).astype(float) for w in (1.0, -1.0))
    shift = (warm[..., 0] - warm[..., 2]) - (cold[..., 0] - cold[..., 2])
    for k in np.unique(label):
        assert shift[label == k].mean() > 4, CELEBAMASK_HQ[k]
    left, right = (render(layout, styles, replace(light, azimuth=a), 64, 64).astype(float) for a in (np.pi, 0.0))
    for k in (ID["background"], ID["skin"], ID["hair"]):
        columns = np.nonzero(label == k)[1]
        difference = (right - left).mean(2)[label == k]
        assert difference[columns >= 40].mean() > difference[columns < 24].mean() + 5, CELEBAMASK_HQ[k]


def test_any_label_map_renders() -> None:
    """Edited and noisy maps too: single classes, one pixel of a class, random ids."""
    styles, light = styles_of(0, 0), light_of(0, 0)
    for k in range(19):
        assert render_label(np.full((16, 16), k), styles, light).shape == (16, 16, 3)
    noise = np.random.default_rng(0).integers(0, 19, (32, 32))
    assert render_label(noise, styles, light).std() > 10


def test_dataset_splits_are_disjoint_and_independent_of_sizes() -> None:
    small = build_dataset(data_config(train_images=3, val_images=2, test_images=2), "train")
    large = build_dataset(data_config(train_images=30, val_images=9, test_images=1), "train")
    val = build_dataset(data_config(train_images=3, val_images=2, test_images=2), "val")
    assert np.array_equal(small[2].image, large[2].image)
    assert not np.array_equal(small[0].label, val[0].label)
    assert len({*small.keys, *val.keys}) == 5
    with pytest.raises(IndexError):
        small[3]


def test_fingerprint_follows_the_data_alone() -> None:
    base = data_fingerprint(data_config())["digest"]
    assert data_fingerprint(data_config(cache="memory", workers=3))["digest"] == base
    assert data_fingerprint(data_config(data_seed=1))["digest"] != base
    assert data_fingerprint(data_config(size=40))["digest"] != base


def test_a_folder_given_to_procedural_faces_is_refused() -> None:
    """Or a run would silently be of other pictures than its user's."""
    with pytest.raises(UserError, match="procfaces reads no folder; for your photos say data=folder too"):
        compose(["data.root=photos"])
