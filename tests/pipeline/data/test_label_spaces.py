"""Label spaces: what ids mean, which are refused, and that mirroring twice changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.data.class_names import CELEBAMASK_HQ_G_MASK
from pipeline.data.label_spaces import SPACES, label_space, make_space
from pipeline.errors import UserError


@pytest.mark.parametrize(
    ("name", "count", "unknown"),
    [("celebamask_hq", 19, None), ("coco_stuff", 183, 182), ("ade20k", 151, 150), ("cityscapes_35", 35, 0),
     ("cityscapes_19", 20, 19), ("deepfashion", 8, None)],
)  # fmt: skip
def test_sizes(name: str, count: int, unknown: int | None) -> None:
    space = label_space(name)
    assert (space.num_classes, space.unknown) == (count, unknown)
    assert len(set(space.classes)) == count
    assert len(space.palette) == len(space.mirror_permutation) == count


def test_published_ids() -> None:
    """A few ids of each published list, from the data sets' own documents."""
    faces = label_space("celebamask_hq")
    assert [faces.index(n) for n in ("skin", "nose", "l_eye", "mouth", "hair", "neck", "cloth")] == [
        1,
        2,
        4,
        10,
        13,
        17,
        18,
    ]
    coco = label_space("coco_stuff")
    assert [coco.index(n) for n in ("person", "toothbrush", "banner", "sky-other", "wood")] == [0, 89, 91, 156, 181]
    ade = label_space("ade20k")
    assert [ade.raw_to_class.index(ade.index(n)) for n in ("wall", "building", "sky", "person", "flag")] == [
        1,
        2,
        3,
        13,
        150,
    ]
    city = label_space("cityscapes_35")
    assert [city.index(n) for n in ("road", "sky", "car", "bicycle")] == [7, 23, 26, 33]
    assert [label_space("cityscapes_19").index(n) for n in ("road", "sky", "car", "bicycle")] == [0, 10, 13, 18]


@pytest.mark.parametrize("name", SPACES)
def test_groups_and_raw_values_name_existing_classes(name: str) -> None:
    space = label_space(name)
    for group in space.groups:
        assert all(0 <= k < space.num_classes for k in space.members(group))
    assert set(space.raw_to_class) - {-1} <= set(range(space.num_classes))


@pytest.mark.parametrize("name", SPACES)
@given(data=st.data())
def test_flip_twice_is_identity(name: str, data: st.DataObject) -> None:
    space = label_space(name)
    label = data.draw(hnp.arrays(np.uint8, (3, 5), elements=st.integers(0, space.num_classes - 1)))
    assert np.array_equal(space.mirror(space.mirror(label)), label)


def test_flip_exchanges_sides_only() -> None:
    space = label_space("celebamask_hq")
    swapped = {(a, b) for a, b in enumerate(space.mirror_permutation) if a != b}
    names = {(space.classes[a], space.classes[b]) for a, b in swapped}
    assert names == {(f"{s}_{p}", f"{'r' if s == 'l' else 'l'}_{p}") for s in "lr" for p in ("eye", "brow", "ear")}
    row = np.asarray([[4, 0, 12, 5]], dtype=np.uint8)  # l_eye, background, lower lip, r_eye
    assert space.mirror(row).tolist() == [[4, 12, 0, 5]]


def test_ade20k_table_over_all_bytes() -> None:
    """0 is unknown and 1..150 are the classes; every other byte is refused (and nothing wraps around)."""
    space = label_space("ade20k")
    for value in range(256):
        raw = np.full((1, 2), value, dtype=np.int32)
        if value <= 150:
            assert space.decode(raw, "x.png").tolist() == [[150 if value == 0 else value - 1] * 2]
        else:
            with pytest.raises(UserError, match=rf"x\.png: label ids {value} are not ids of ade20k"):
                space.decode(raw, "x.png")


def test_coco_unknown_is_255() -> None:
    space = label_space("coco_stuff")
    assert space.decode(np.asarray([[0, 181, 255]]), "x").tolist() == [[0, 181, 182]]
    with pytest.raises(UserError, match=r"182, 254 .*allowed: 0\.\.181, 255"):
        space.decode(np.asarray([[182, 254]]), "x")


def test_negative_and_huge_values_are_refused() -> None:
    with pytest.raises(UserError, match="-1, 70000"):
        label_space("celebamask_hq").decode(np.asarray([[-1, 70000]]), "x")


def test_other_label_order_is_converted_by_name() -> None:
    ours, other = label_space("celebamask_hq"), label_space("celebamask_hq_g_mask")
    assert other.classes == ours.classes
    raw = np.arange(19)[None]
    assert [ours.classes[k] for k in other.decode(raw, "x")[0]] == list(CELEBAMASK_HQ_G_MASK)
    assert ours.classes[int(other.decode(np.asarray([[17]]), "x")[0, 0])] == "hair"


def test_unknown_names_get_suggestions() -> None:
    with pytest.raises(UserError, match="did you mean celebamask_hq"):
        label_space("celebamask")
    with pytest.raises(UserError, match="did you mean hair"):
        label_space("celebamask_hq").members("hairs")


def test_made_space_exchanges_left_and_right() -> None:
    space = make_space("folder", ("sky", "left_hand", "right_hand", "left_foot"))
    assert space.mirror_permutation == (0, 2, 1, 3)
    assert make_space("folder", ("l_lip", "r_eye", "u_lip", "l_eye")).mirror_permutation == (0, 3, 2, 1)
    with pytest.raises(UserError, match="unique"):
        make_space("folder", ("a", "a"))
