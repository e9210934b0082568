"""The study file: what is asked, which arms answer it, with which seeds and metrics.

Files lie in `ablations/conf/study/`; what they leave out stands in `ablations/conf/defaults.yaml`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from pipeline.errors import UserError, nearest
from pipeline.records.atomic import read_json, write_text
from pipeline.records.manifest import StudyMetric
from pipeline.records.metric_specs import find_spec
from pipeline.records.rows import Direction
from pipeline.schema.base import OVERRIDES, Section
from pipeline.schema.files import NamedFiles, find_folder, is_file_name
from pipeline.schema.yaml12 import Document

CONF = Path(__file__).parent / "conf"
KEPT = "study.json"  # in a study's folder: what its file said when it was last run
Design = Literal["one_at_a_time", "factorial", "leave_one_out", "cumulative", "list"]
# Folders of an output folder that are no study's.
TAKEN = ("runs", "cache", "sweeps", "slurm")


def _names(value: Any) -> Any:
    """One name or a list of them, as a list."""
    return value if isinstance(value, list | tuple) else [value]


def _condition(value: Any) -> Any:
    return {key: _names(item) for key, item in value.items()} if isinstance(value, dict) else value


def _level(value: Any) -> Any:
    """A level may be written as its list of overrides alone; what other code has made has none."""
    if isinstance(value, dict) and value.get("external") is not None:
        return {"overrides": [], **value}
    return {"overrides": value} if isinstance(value, list) else value


def _direction(name: str) -> Direction:
    """The metric's own; names that no row can have are refused when the study is planned."""
    spec = find_spec(name)
    return "none" if spec is None else spec.direction


def _metrics(value: Any) -> Any:
    """Names of metrics; the older `{name: direction}` too, where it says of each what the metric itself says."""
    if not isinstance(value, dict):
        return _names(value)
    for name, said in value.items():
        if find_spec(name) is not None and said != _direction(name):
            what = f"{said} contradicts" if isinstance(said, str) else "what is said of it is not"
            raise ValueError(f"{name}: {what} the metric's own direction, {_direction(name)}; write the name alone")
    return list(value)


Overrides = Annotated[tuple[str, ...], Field(strict=False, description=OVERRIDES)]
Names = Annotated[tuple[str, ...], Field(strict=False, description="a name, or a list of names, like [a, b]")]
Condition = Annotated[
    dict[str, Names], BeforeValidator(_condition), Field(description="a mapping, like {factor: level}")
]
LEVEL = "a list of overrides, like [model=sean], or a mapping, like {label: SEAN, overrides: [model=sean]}"
MetricNames = Annotated[
    tuple[str, ...], BeforeValidator(_metrics), Field(strict=False, description="a list of metrics, like [psnr, ssim]")
]


class Level(Section):
    """One setting of a factor, or one arm of a list."""

    overrides: Overrides
    label: str | None = None  # None: made from the names; a text of the file, not a setting with a home elsewhere
    when: Condition = Field(default={})  # the level exists only where these factors have one of these levels
    external: str | None = (
        None  # of an arm by name: pictures that other code has made, by the name they were imported under
    )

    @model_validator(mode="after")
    def _made_here_or_elsewhere(self) -> Level:
        if self.external is not None and self.overrides:
            raise ValueError(f"external {self.external!r} takes no overrides: other code has made its pictures")
        return self


Levels = dict[str, Annotated[Level, BeforeValidator(_level), Field(description=LEVEL)]]


class Factor(Section):
    """What is varied."""

    reference: str
    levels: Levels = Field(
        description="a mapping of names to lists of overrides, like {with: [], without: [loss.attention.weight=0]}"
    )
    # the factor is varied only where these factors have one of these levels; elsewhere it does not enter
    when: Condition = Field(default={})

    @model_validator(mode="after")
    def _reference_is_a_level(self) -> Factor:
        if self.reference not in self.levels:
            raise ValueError(f"reference {self.reference!r} is not a level; there are: {', '.join(self.levels)}")
        if len(self.levels) < 2:
            raise ValueError("a factor needs at least two levels")
        return self


class Metrics(Section):
    """Names; exactly one is primary. Which way is better is the metric's own."""

    primary: MetricNames
    secondary: MetricNames

    @model_validator(mode="after")
    def _one_primary(self) -> Metrics:
        if len(self.primary) != 1:
            raise ValueError("exactly one metric is primary")
        names = (*self.primary, *self.secondary)
        twice = [name for index, name in enumerate(names) if name in names[:index]]
        if twice:
            raise ValueError(f"{twice[0]} stands twice")
        return self

    def rows(self) -> tuple[StudyMetric, ...]:
        """The primary metric first, then the others in the order of the file."""
        first = [StudyMetric(name, "primary", _direction(name)) for name in self.primary]
        return (*first, *(StudyMetric(name, "secondary", _direction(name)) for name in self.secondary))


class Budget(Section):
    """Whether all trained arms see the same number of images, and if not, why."""

    rule: Literal["equal", "declared"]
    reason: str

    @model_validator(mode="after")
    def _reason_given(self) -> Budget:
        if (self.rule == "declared") != bool(self.reason.strip()):
            raise ValueError("rule declared needs a reason, rule equal takes none")
        return self


class Study(Section):
    """A study as its file says it."""

    name: str
    question: str
    label: str
    base: Overrides
    design: Design
    reference: str | None
    factors: dict[str, Factor]
    arms: Levels = Field(description="a mapping of names to lists of overrides, like {spade: [model=spade]}")
    fraction: dict[str, Names]
    exclusions: tuple[Condition, ...] = Field(strict=False, description="a list of mappings, like [{factor: level}]")
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] = Field(
        strict=False, min_length=1, description="a list of whole numbers, like [0, 1, 2]"
    )
    protocol: str
    split: Literal["train", "val", "test"]
    metrics: Metrics = Field(description="a mapping, like {primary: [psnr], secondary: [ssim]}")
    budget: Budget = Field(description="a mapping, like {rule: equal}")

    @model_validator(mode="after")
    def _design_fits(self) -> Study:
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", self.name):
            raise ValueError(f"name {self.name!r}: letters, digits, _ . and - only (it names a folder)")
        if self.name in TAKEN:
            raise ValueError(f"name {self.name!r}: OUT/{self.name} is taken; give the study another name")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds {list(self.seeds)} has duplicates: a seed run twice is one run, not two")
        if self.design == "list":
            if not self.arms or self.factors:
                raise ValueError("design list takes arms and no factors")
            if self.reference not in self.arms:
                what = (
                    "design list needs a reference"
                    if self.reference is None
                    else f"reference {self.reference!r} is not an arm"
                )
                raise ValueError(f"{what}; there are: {', '.join(self.arms)}")
        elif not self.factors or self.reference is not None:
            raise ValueError(
                f"design {self.design} takes factors (each with its reference), and arms only beside them: no reference arm"
            )
        for factor, content in self.factors.items():
            if any(level.external is not None for level in content.levels.values()):
                raise ValueError(f"factor {factor}: external belongs to the arms, not to a factor")
        if self.fraction and self.design != "factorial":
            raise ValueError(f"fraction belongs to design factorial, not to {self.design}")
        if self.design in ("leave_one_out", "cumulative"):
            for factor, content in self.factors.items():
                if len(content.levels) != 2:
                    raise ValueError(f"factor {factor}: design {self.design} takes exactly two levels")
        self._names_exist()
        return self

    def _names_exist(self) -> None:
        """Every factor and level that a condition, an exclusion or a fraction mentions must exist."""
        conditions = [(f"exclusion {index + 1}", item) for index, item in enumerate(self.exclusions)]
        for name, factor in self.factors.items():
            conditions.append((f"factor {name}", factor.when))
            conditions += [(f"level {name}={level}", content.when) for level, content in factor.levels.items()]
        for where, condition in conditions:
            for factor_name, levels in condition.items():
                if factor_name not in self.factors:
                    raise ValueError(
                        f"{where}: unknown factor {factor_name!r}{nearest(factor_name, list(self.factors))}"
                    )
                known = list(self.factors[factor_name].levels)
                for level in levels:
                    if level not in known:
                        raise ValueError(f"{where}: factor {factor_name} has no level {level!r}{nearest(level, known)}")
        for target, sources in self.fraction.items():
            for name in (target, *sources):
                if name not in self.factors:
                    raise ValueError(f"fraction: unknown factor {name!r}{nearest(name, list(self.factors))}")


_WHEN = (("when",), ("levels", "*", "when"))
STUDIES = NamedFiles(
    "study",
    CONF / "study",
    Study,
    defaults=CONF / "defaults.yaml",
    sections=("metrics", "budget"),
    text=(
        ("name",),
        ("reference",),
        ("factors", "*", "reference"),
        *(("factors", "*", *place) for place in _WHEN),
        ("exclusions",),
        ("fraction",),
    ),
)


def shipped() -> list[str]:
    """Names of the studies in `ablations/conf/study`."""
    return STUDIES.names()


def load_study(name: str) -> Study:
    """A study by its name, or by the path of its file; raises UserError, one line, for what is wrong in it."""
    return STUDIES.load(name)


def find_study(word: str, out: Path) -> tuple[Path, Study]:
    """(output folder, study) of a word: a file, the name of a shipped study or of one that has run in `out`, or its folder."""
    folder, name = find_folder(word, out)
    if is_file_name(word) or name in STUDIES.names():
        return folder, STUDIES.load(word if is_file_name(word) else name)
    kept = folder / name / KEPT
    if kept.is_file():
        return folder, STUDIES.parse(Document(read_json(kept), str(kept)))
    known = [*STUDIES.names(), *(path.parent.name for path in sorted(folder.glob(f"*/{KEPT}")))]
    raise UserError(f"unknown study {word!r}{nearest(name, known)}; there are: {', '.join(known)}, or a .yaml file")


def keep_study(study: Study, folder: Path) -> None:
    """Keep what was asked beside the study's plan, so that its name is enough from then on."""
    # the order of factors and levels is that of the arms: `write_json` would sort them
    write_text(folder / KEPT, json.dumps(study.model_dump(mode="json"), indent=1, ensure_ascii=False))


def changed(study: Study, where: str, **values: Any) -> Study:
    """The study with other values of some fields, held to what its file is held to; raises UserError that begins with `where`."""
    return STUDIES.parse(Document({**study.model_dump(mode="json"), **values}, where))


def parse_study(values: dict[str, Any], where: str) -> Study:
    """Validate a study's plain values, with `ablations/conf/defaults.yaml` filled in."""
    return STUDIES.parse(Document(values, where))
