"""Adapter of CelebAMask-HQ with merged label maps, and the detection of the two label orders that circulate.

Both orders use ids 0..18, so no range check tells them apart; the places of the parts do: in SEAN's and (CA)2-SIS's
order id 2 is the nose (below the eyes), in the other it is the left brow (above them), and the eyes are 4 and 5 in
both.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.data.adapters.pairing import Complaint, complain, pair
from pipeline.data.adapters.photos import unknown_layout
from pipeline.data.label_spaces import LabelSpace
from pipeline.data.listing import Listing, SampleFiles
from pipeline.data.reading import read_ids
from pipeline.errors import UserError

LabelOrder = Literal["celebamask_hq", "celebamask_hq_g_mask", "undecided"]
PHOTOS, MERGED, PARTS = "CelebA-HQ-img", "merged_labels", "CelebAMask-HQ-mask-anno"
PREPARED_ONLY = "celebamask_13"  # the space that no merged maps are in, only prepared ones
_LOOKED_AT = 7  # label maps read to find the order


def find(root: Path, space: LabelSpace) -> Listing:
    """`CelebA-HQ-img` + `merged_labels`, or SEAN's `{train,test}/{images,labels}`. Part masks must be merged first."""
    if space.name == PREPARED_ONLY:
        raise UserError(
            f"data.label_space={PREPARED_ONLY}: its classes are painted from part masks in an order of their own; run `python -m "
            f"pipeline data prepare celebamask_hq --from {root} --to ROOT --label-space {PREPARED_ONLY}` and use data.root=ROOT"
        )
    if (root / PHOTOS).is_dir() and (root / MERGED).is_dir():
        parts = {"all": pair(root / PHOTOS, root / MERGED)}
        name = f"{PHOTOS} + {MERGED}"
    elif (root / "train" / "images").is_dir() and (root / "train" / "labels").is_dir():
        parts = {
            part: pair(root / part / "images", root / part / "labels")
            for part in ("train", "val", "test")
            if (root / part / "images").is_dir() and (root / part / "labels").is_dir()
        }
        name = "train/images + train/labels"
    elif (root / PHOTOS).is_dir() and (root / PARTS).is_dir():
        raise UserError(
            f"{root}: the part masks of {PARTS} are not merged yet; run `python -m pipeline data prepare celebamask_hq "
            f"--from {root} --to ROOT` and use data.root=ROOT"
        )
    else:
        raise unknown_layout(
            root, "celebamask_hq", f"{PHOTOS}/ + {MERGED}/ (or {PHOTOS}/ + {PARTS}/ for `data prepare`)"
        )
    check_order([files for listed in parts.values() for files in listed], space)
    return Listing(name, parts, space)


def check_order(listed: Sequence[SampleFiles], space: LabelSpace) -> None:
    """UserError where the label maps are clearly in the other order than the one `space` reads."""
    step = max(1, len(listed) // _LOOKED_AT)
    looked = listed[::step][:_LOOKED_AT]
    order = label_order([ids for files in looked if (ids := _ids_or_none(files.label)) is not None])
    # the nose's id tells in which order a space reads
    reads: LabelOrder = "celebamask_hq" if space.raw_to_class[2] == space.index("nose") else "celebamask_hq_g_mask"
    if order not in ("undecided", reads):
        message = (
            f"{looked[0].label} (and others beside it) are in label order {order} "
            f"(told by where ids 2, 4, 5 and 17 lie), read as {reads}; "
            f"set data.label_space={order}, which converts by name"
        )
        complain(Complaint("label_order", message, tuple(files.label for files in looked)))


def _ids_or_none(path: Path) -> NDArray[np.int32] | None:
    """Ids of a label map; None where it does not read, which is reported when the sample itself is read."""
    try:
        return read_ids(path)
    except UserError:
        return None


def label_order(maps: Sequence[NDArray[np.integer]]) -> LabelOrder:
    """Which order label maps of faces are in, by two clues a map; "undecided" without a clear majority."""
    votes = 0
    for ids in maps:
        eyes, two = _height_of(ids, (4, 5)), _height_of(ids, (2,))
        if eyes is not None and two is not None:
            votes += 1 if two > eyes else -1  # nose below the eyes, or brow above
        skin, seventeen = _height_of(ids, (1,)), _height_of(ids, (17,))
        if skin is not None and seventeen is not None:
            votes += 1 if seventeen > skin else -1  # neck below the face, or hair above
    return "undecided" if abs(votes) < 2 else "celebamask_hq" if votes > 0 else "celebamask_hq_g_mask"


def _height_of(ids: NDArray[np.integer], wanted: tuple[int, ...]) -> float | None:
    """Mean row of the pixels with the wanted ids, 0 top .. 1 bottom; None where there are none."""
    rows = np.flatnonzero(np.isin(ids, wanted)) // ids.shape[1]
    return float(rows.mean() / ids.shape[0]) if rows.size else None
