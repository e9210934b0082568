"""The study file: what is asked, which arms answer it, with which seeds and metrics.

Files lie in `ablations/conf/study/`; what they leave out stands in `ablations/conf/defaults.yaml`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from pipeline.errors import UserError, nearest
from pipeline.records.manifest import StudyMetric
from pipeline.schema.base import Section

CONF = Path(__file__).parent / "conf"
Design = Literal["one_at_a_time", "factorial", "leave_one_out", "cumulative", "list"]
Direction = Literal["max", "min", "none"]


def _as_strings(value: Any) -> Any:
    """YAML reads the level names 0.1, 2 and true as numbers and booleans; names are text."""
    if isinstance(value, dict):
        return {
            key if isinstance(key, str) else yaml.safe_dump(key).split("\n")[0]: item for key, item in value.items()
        }
    return value


def _name(value: Any) -> Any:
    return value if isinstance(value, str) or value is None else yaml.safe_dump(value).split("\n")[0]


def _names(value: Any) -> Any:
    """One level name or a list of them, as a list."""
    return [_name(item) for item in value] if isinstance(value, list) else [_name(value)]


def _condition(value: Any) -> Any:
    return {key: _names(item) for key, item in value.items()} if isinstance(value, dict) else value


def _level(value: Any) -> Any:
    """A level may be written as its list of overrides alone."""
    return {"overrides": value} if isinstance(value, list) else value


Name = Annotated[str, BeforeValidator(_name)]
Names = Annotated[tuple[Name, ...], Field(strict=False)]
Overrides = Annotated[tuple[str, ...], Field(strict=False)]
Condition = Annotated[dict[str, Names], BeforeValidator(_condition)]


class Level(Section):
    """One setting of a factor, or one arm of a list."""

    overrides: Overrides
    label: str | None = None  # None: made from the names; a text of the file, not a setting with a home elsewhere
    when: Condition = Field(default={})  # the level exists only where these factors have one of these levels


class Factor(Section):
    """What is varied."""

    reference: Name
    levels: Annotated[dict[str, Annotated[Level, BeforeValidator(_level)]], BeforeValidator(_as_strings)]
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
    """Names and directions; exactly one is primary."""

    primary: dict[str, Direction]
    secondary: dict[str, Direction]

    @model_validator(mode="after")
    def _one_primary(self) -> Metrics:
        if len(self.primary) != 1:
            raise ValueError("exactly one metric is primary")
        if set(self.primary) & set(self.secondary):
            raise ValueError(f"{next(iter(self.primary))} is both primary and secondary")
        return self

    def rows(self) -> tuple[StudyMetric, ...]:
        """The primary metric first, then the others in the order of the file."""
        first = [StudyMetric(name, "primary", direction) for name, direction in self.primary.items()]
        return (*first, *(StudyMetric(name, "secondary", direction) for name, direction in self.secondary.items()))


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
    reference: Name | None
    factors: dict[str, Factor]
    arms: Annotated[dict[str, Annotated[Level, BeforeValidator(_level)]], BeforeValidator(_as_strings)]
    fraction: dict[str, Names]
    exclusions: Annotated[tuple[Condition, ...], Field(strict=False)]
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**31)], ...], Field(strict=False, min_length=1)]
    protocol: str
    split: Literal["train", "val", "test"]
    metrics: Metrics
    budget: Budget

    @model_validator(mode="after")
    def _design_fits(self) -> Study:
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", self.name):
            raise ValueError(f"name {self.name!r}: letters, digits, _ . and - only (it names a folder)")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds {list(self.seeds)} has duplicates: a seed run twice is one run, not two")
        if self.design == "list":
            if not self.arms or self.factors:
                raise ValueError("design list takes arms and no factors")
            if self.reference not in self.arms:
                raise ValueError(f"reference {self.reference!r} is not an arm; there are: {', '.join(self.arms)}")
        elif not self.factors or self.arms or self.reference is not None:
            raise ValueError(
                f"design {self.design} takes factors (each with its reference), and no arms or reference arm"
            )
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


def shipped() -> list[str]:
    """Names of the studies in `ablations/conf/study`."""
    return sorted(path.stem for path in (CONF / "study").glob("*.yaml"))


def load_study(name: str) -> Study:
    """A study by its name, or by the path of its file; raises UserError, one line, for what is wrong in it."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else CONF / "study" / f"{name}.yaml"
    if not path.is_file():
        if path.parent == CONF / "study":
            raise UserError(f"unknown study {name!r}{nearest(name, shipped())}; there are: {', '.join(shipped())}")
        raise UserError(f"study file {path} is missing")
    try:
        values = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise UserError(f"study file {path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"study file {path} must be a mapping")
    return parse_study(values, str(path))


def parse_study(values: dict[str, Any], where: str) -> Study:
    """Validate a study's plain values, with `ablations/conf/defaults.yaml` filled in."""
    defaults = yaml.safe_load((CONF / "defaults.yaml").read_text())
    merged = {**defaults, **values}
    for section in ("metrics", "budget"):
        if isinstance(values.get(section), dict):
            merged[section] = {**defaults[section], **values[section]}
    try:
        return Study.model_validate(merged)
    except ValidationError as error:
        raise UserError(
            f"{where}: {'; '.join(_explain(item) for item in error.errors(include_url=False)[:3])}"
        ) from error


def _explain(item: Any) -> str:
    path = ".".join(str(part) for part in item["loc"])
    if item["type"] == "missing":
        return f"{path} is missing"
    if item["type"] == "extra_forbidden":
        return f"unknown key {path}{nearest(str(item['loc'][-1]), list(Study.model_fields))}"
    message = str(item["msg"]).removeprefix("Value error, ")
    return f"{path}: {message}" if path else message
