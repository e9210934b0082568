"""Adapter of Cityscapes: the official tree, or pix2pixHD's flat folders."""

from __future__ import annotations

from pathlib import Path

from pipeline.data.adapters.pairing import pair
from pipeline.data.adapters.photos import unknown_layout
from pipeline.data.label_spaces import LabelSpace
from pipeline.data.listing import Listing, SampleFiles

_ENDINGS = {
    "photo_ending": "_leftImg8bit",
    "label_ending": "_gtFine_labelIds",
    "instance_ending": "_gtFine_instanceIds",
}


def find(root: Path, space: LabelSpace) -> Listing:
    """`leftImg8bit/<part>/<city>` + `gtFine/<part>/<city>`, or `<part>_img` + `<part>_label` + `<part>_inst`.

    The official test part is left out: its public label files are empty.
    """
    official: dict[str, tuple[SampleFiles, ...]] = {
        part: pair(root / "leftImg8bit" / part, root / "gtFine" / part, root / "gtFine" / part, **_ENDINGS)
        for part in ("train", "val")
        if (root / "leftImg8bit" / part).is_dir() and (root / "gtFine" / part).is_dir()
    }
    if official:
        return Listing("leftImg8bit + gtFine", official, space)
    flat = {
        part: pair(root / f"{part}_img", root / f"{part}_label", root / f"{part}_inst", **_ENDINGS)
        for part in ("train", "val", "test")
        if (root / f"{part}_img").is_dir() and (root / f"{part}_label").is_dir()
    }
    if flat:
        return Listing("train_img + train_label", flat, space)
    raise unknown_layout(
        root, "cityscapes", "leftImg8bit/train/<city>/ + gtFine/train/<city>/, or train_img/ + train_label/"
    )
