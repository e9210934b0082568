"""Table specifications: small YAML files that say what stands in a table.

The shipped ones lie in `analysis/conf/tables/`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.schema.files import NamedFiles, check
from pipeline.schema.yaml12 import Document

METRICS = "a list of metrics, like [psnr, ssim] or [study]"
ARMS = "a list of arms, like [reference, model=spade]"
Share = Annotated[float, Field(gt=0, lt=1)]


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
    arms: list[str] = Field(description=ARMS)


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
    metrics: list[str | ColumnSpec] = Field(default=["study"], description=METRICS)
    cost: list[str] = Field(default=[], description=METRICS)  # cost metrics, appended as columns
    arms: list[str] | None = Field(default=None, description=ARMS)  # None: all arms of the plan
    groups: list[GroupSpec] = []
    group_by: str | None = None  # a factor: rows grouped by its level
    pivot: str | None = None  # a factor: its levels become groups of columns, e.g. data
    reference: str | None = None  # None: the plan's reference arm
    baselines: Literal["bottom", "top", "hide"] = "bottom"
    # rows of imported numbers; a list: and of these groups of shipped ones
    published: bool | list[str] = Field(
        default=True, description="true, false, or a list of groups, like [label_map_only]"
    )
    mark_best: bool = True
    show: ShowSpec = ShowSpec()
    level: Share = 0.95
    alpha: Share = 0.05
    test: Literal["auto", "t", "permutation", "wilcoxon"] = "auto"
    family: Literal["table", "metric"] = "table"  # comparisons that Holm's correction counts as one family

    def with_published(self, groups: Sequence[str]) -> TableSpec:
        """The same with these groups of shipped numbers added; unchanged without any."""
        if not groups:
            return self
        named = self.published if isinstance(self.published, list) else []
        return self.model_copy(update={"published": [*named, *groups]})


SPECS = NamedFiles(
    "table",
    Path(__file__).parent.parent / "conf" / "tables",
    TableSpec,
    text=(("title",), ("arms",), ("groups", "*"), ("group_by",), ("pivot",), ("reference",), ("metrics", "*", "label")),
)


def shipped_specs() -> list[str]:
    """Names of the shipped specifications."""
    return SPECS.names()


def load_spec(name: str) -> tuple[str, TableSpec]:
    """A shipped specification by name, or one from a YAML file. Returns (name, spec).

    Raises UserError naming file, line and key.
    """
    return SPECS.path(name).stem, SPECS.load(name)


def parse_spec(value: Any, origin: str) -> TableSpec:
    """Validate a specification; raises UserError naming `origin`, the key and what is wrong."""
    return check(TableSpec, value, Document(value, origin))
