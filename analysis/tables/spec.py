"""Table specifications: small YAML files that say what stands in a table.

The shipped ones lie in `analysis/conf/tables/`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import UserError, nearest

SHIPPED = Path(__file__).parent.parent / "conf" / "tables"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class ColumnSpec(_Part):
    """Which metric rows make a column. `metric` may be a pattern (`edit_*`), which gives one column a match."""

    metric: str = Field(min_length=1)
    label: str | None = None  # None: from conf/labels.yaml
    group: str = ""  # heading above the column
    protocol: str = "study"  # "study": that of the plan; "*": any; else a name
    split: str = "study"  # likewise
    fingerprint: str = ""  # start of a fingerprint, where runs hold several versions of the metric
    decimals: int | None = Field(default=None, ge=0, le=8)  # None: by the spread
    cost: bool = False  # a cost: no protocol, never ranked


class GroupSpec(_Part):
    """Rows that stand together under a heading."""

    label: str
    arms: list[str]


class ShowSpec(_Part):
    """What a cell shows beside the mean."""

    std: bool = True  # ± standard deviation over seeds
    interval: bool = False  # interval of the difference to the reference
    delta: bool = False  # difference to the reference
    stars: bool = False  # significance of the difference, Holm-corrected
    gain: bool = False  # a column with the gain over the untrained network, where that was recorded
    ties: bool = True  # mark what cannot be told from the best


class TableSpec(_Part):
    """A table. Metric names: "study" stands for the metrics of the study's plan."""

    title: str = ""
    metrics: list[str | ColumnSpec] = ["study"]
    cost: list[str] = []  # cost metrics, appended as columns
    arms: list[str] | None = None  # None: all arms of the plan
    groups: list[GroupSpec] = []
    group_by: str | None = None  # a factor: rows grouped by its level
    pivot: str | None = None  # a factor: its levels become groups of columns, e.g. data
    reference: str | None = None  # None: the plan's reference arm
    baselines: Literal["bottom", "top", "hide"] = "bottom"
    published: bool = True  # rows of imported numbers
    mark_best: bool = True
    show: ShowSpec = ShowSpec()
    level: float = Field(default=0.95, gt=0, lt=1)
    alpha: float = Field(default=0.05, gt=0, lt=1)
    test: Literal["auto", "t", "permutation", "wilcoxon"] = "auto"
    family: Literal["table", "metric"] = "table"  # comparisons that Holm's correction counts as one family


def shipped_specs() -> list[str]:
    """Names of the shipped specifications."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def load_spec(name: str) -> tuple[str, TableSpec]:
    """A shipped specification by name, or one from a YAML file. Returns (name, spec).

    Raises UserError naming file and key.
    """
    path = SHIPPED / f"{name}.yaml" if name in shipped_specs() else Path(name)
    if path.suffix not in (".yaml", ".yml"):
        names = shipped_specs()
        raise UserError(f"unknown table {name!r}{nearest(name, names)}; there are: {', '.join(names)}, or a .yaml file")
    try:
        value = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UserError(f"cannot read table specification {path}: {(error.strerror or str(error)).lower()}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    return path.stem, parse_spec(value if value is not None else {}, str(path))


def parse_spec(value: Any, origin: str) -> TableSpec:
    """Validate a specification; raises UserError naming `origin`, the key and what is wrong."""
    try:
        return TableSpec.model_validate(value)
    except ValidationError as error:
        raise UserError(f"{origin}: {_first(error)}") from error


def _first(error: ValidationError) -> str:
    details = [item for item in error.errors() if item["type"] != "string_type"] or error.errors()
    detail = details[0]
    key = ".".join(str(part) for part in detail["loc"] if part not in ("ColumnSpec", "str")) or "the file"
    if detail["type"] == "extra_forbidden":
        known = list(TableSpec.model_fields) + list(ShowSpec.model_fields) + list(ColumnSpec.model_fields)
        return f"unknown key {key}{nearest(key.split('.')[-1], known)}"
    return f"{key}: {detail['msg'].lower()} (got {detail['input']!r})"
