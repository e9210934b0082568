"""Numbers that papers print, as shipped in `conf/published/*.csv`: each with whom it was copied from and who measured it.

They are shown beside a study's rows and never ranked with them: `conf/published/protocols.yaml` says why they cannot be.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import columns
from pipeline.errors import UserError, nearest
from pipeline.schema.yaml12 import read_yaml

FOLDER = Path(__file__).parent / "conf" / "published"
COLUMNS = ("system", "data", "metric", "value", "unit", "protocol", "copied_from", "measured_by", "source")
TITLES = {
    "label_map_only": "Published: label map only",
    "scam": "Published: SCAM's protocol",
    "sean": "Published: SEAN's protocol",
    "remeasured": "Re-measured by others",
    "ca2sis": "Published: (CA)²-SIS",
}


def published_groups() -> list[str]:
    """Names of the shipped groups."""
    return sorted(path.stem for path in FOLDER.glob("*.csv"))


def load_published(groups: Sequence[str], protocol: str, data: str) -> pd.DataFrame:
    """The numbers of the groups, columns `columns.IMPORTED`, for a table under `protocol` on `data` (a summary in words).

    Raises UserError for an unknown group, naming the nearest.
    """
    known = published_groups()
    for group in groups:
        if group not in known:
            raise UserError(f"published: unknown group {group!r}{nearest(group, known)}; there are: {', '.join(known)}")
    rows = [_row(line, group, protocol, data) for group in dict.fromkeys(groups) for line in _lines(group)]
    return columns.typed(pd.DataFrame(rows, columns=list(columns.IMPORTED)), columns.IMPORTED)


@functools.cache
def protocols() -> dict[str, dict[str, str]]:
    """What each protocol is and why its numbers stand apart, by name."""
    found: dict[str, dict[str, str]] = read_yaml(
        FOLDER / "protocols.yaml", "protocols of published numbers", ((),)
    ).values
    return found


def _lines(group: str) -> list[dict[str, str]]:
    with (FOLDER / f"{group}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _row(line: dict[str, str], group: str, protocol: str, data: str) -> dict[str, Any]:
    return {
        "label": f"{line['system']}, {line['data']}",
        "kind": "published",
        "metric": line["metric"],
        "value": float(line["value"]),
        "std": None,
        "n": None,
        "unit": line["unit"],
        "seed": None,
        "run": "",
        "data": line["data"],
        "protocol": line["protocol"],
        "split": "",
        "source": f"{line['source']}; copied from: {line['copied_from']}; measured by: {line['measured_by']}",
        "reference_id": group,
        "group": TITLES[group],
        "caveat": _caveat(protocols()[line["protocol"]], line["protocol"], protocol, data),
        "decimals": len(line["value"].partition(".")[2]),
    }


def _caveat(of: dict[str, str], name: str, protocol: str, data: str) -> str:
    """Why the number cannot be compared with the table's, or that it can."""
    if of.get("ours") == protocol and data.startswith(of.get("data", "\0")):
        return f"measured as protocol {protocol} does: {of['what']}"
    return f"not comparable with what was measured here ({of['why']}). Protocol {name}: {of['what']}"
