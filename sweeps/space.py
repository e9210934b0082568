"""Search spaces: parameters over config keys, and the overrides that a trial's choice amounts to."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial
from pydantic import BeforeValidator, Field, model_validator

from pipeline.schema.base import Section

Number = int | float | str


def choice_text(value: Any) -> str:
    """A categorical choice as the text that stands behind `key=`: text as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _texts(value: Any) -> Any:
    return tuple(choice_text(item) for item in value) if isinstance(value, list) else value


def _condition(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: _texts(item if isinstance(item, list) else [item]) for key, item in value.items()}


class Parameter(Section):
    """One config key that is searched. float and int take low and high; categorical takes choices."""

    kind: Literal["float", "int", "categorical"]
    low: float | None = None
    high: float | None = None
    log: bool = False
    step: Annotated[float, Field(gt=0)] | None = None
    choices: Annotated[tuple[str, ...] | None, BeforeValidator(_texts)] = None
    when: Annotated[dict[str, tuple[str, ...]], BeforeValidator(_condition)] = Field(
        default={}
    )  # categorical parent: choices

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Parameter:
        if self.kind == "categorical":
            if self.choices is None or len(set(self.choices)) != len(self.choices) or len(self.choices) < 2:
                raise ValueError("categorical takes at least two different choices")
            if self.low is not None or self.high is not None or self.log or self.step is not None:
                raise ValueError("categorical takes choices alone")
            return self
        if self.choices is not None or self.low is None or self.high is None:
            raise ValueError(f"{self.kind} takes low and high, and no choices")
        if not self.low < self.high:
            raise ValueError(f"low {self.low} is not below high {self.high}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log needs low above 0 and takes no step")
        if self.kind == "int" and any(
            value is not None and value != int(value) for value in (self.low, self.high, self.step)
        ):
            raise ValueError("int takes whole numbers")
        return self

    def distribution(self) -> BaseDistribution:
        """Optuna's name for it."""
        if self.choices is not None:
            return CategoricalDistribution(self.choices)
        assert self.low is not None and self.high is not None, "validated"
        if self.kind == "int":
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def suggest(self, trial: Trial, key: str) -> Number:
        """Ask the trial's sampler; a value the trial already has is given back."""
        if self.choices is not None:
            return str(trial.suggest_categorical(key, self.choices))
        assert self.low is not None and self.high is not None, "validated"
        if self.kind == "int":
            return trial.suggest_int(key, int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return trial.suggest_float(key, self.low, self.high, log=self.log, step=self.step)


Space = dict[str, Parameter]  # config key -> parameter, parents before children


def check_space(space: Space) -> None:
    """Raise ValueError unless every condition names an earlier categorical parameter and its choices."""
    seen: Space = {}
    for key, parameter in space.items():
        for parent, allowed in parameter.when.items():
            choices = seen[parent].choices if parent in seen else None
            if choices is None:
                raise ValueError(f"{key}: condition on {parent!r}, which is no categorical parameter before it")
            unknown = [choice for choice in allowed if choice not in choices]
            if unknown:
                raise ValueError(f"{key}: condition on {parent}={unknown[0]}, which is not among its choices")
        seen[key] = parameter


def suggest(trial: Trial, space: Space) -> dict[str, Number]:
    """Values of the parameters that enter, in the order of the space."""
    values: dict[str, Number] = {}
    for key, parameter in space.items():
        if enters(parameter, values):
            values[key] = parameter.suggest(trial, key)
    return values


def extremes(parameter: Parameter) -> tuple[Number, ...]:
    """Every choice, or the ends of the range: the lowest and the highest value that its steps reach."""
    if parameter.choices is not None:
        return parameter.choices
    distribution = parameter.distribution()
    return (distribution.low, distribution.high)


def enters(parameter: Parameter, values: dict[str, Number]) -> bool:
    """Whether a conditional parameter takes part, given the values before it."""
    return all(values.get(parent) in allowed for parent, allowed in parameter.when.items())


def overrides(values: dict[str, Number]) -> tuple[str, ...]:
    """Hydra overrides; floats keep all their digits."""
    return tuple(f"{key}={value if isinstance(value, str) else repr(value)}" for key, value in values.items())
