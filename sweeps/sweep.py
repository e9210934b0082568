"""The sweep file: what is searched, for which objective, how, and how long. Shipped ones lie in `sweeps/conf/sweep/`."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from pipeline.config import compose, expand_best, last_wins
from pipeline.errors import UserError, nearest
from pipeline.records.metric_specs import refuse_unknown_metrics, spec_of
from pipeline.schema.base import Section
from sweeps.space import Number, Parameter, Space, check_space, extremes, overrides

CONF = Path(__file__).parent / "conf"
Count = Annotated[int, Field(ge=1)]
REPORTED = ("psnr", "ssim", "attention_miou")  # numbers of a validation during training


class Sampler(Section):
    """Who proposes."""

    kind: Literal["tpe", "cmaes", "nsga2", "qmc", "random"]
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    startup: Annotated[int, Field(ge=1)]
    population: Annotated[int, Field(ge=2)]


class Pruner(Section):
    """Who stops the hopeless."""

    kind: Literal["none", "median", "asha", "hyperband"]
    min_iterations: Count
    reduction: Annotated[int, Field(ge=2)]
    startup: Annotated[int, Field(ge=0)]


class Sweep(Section):
    """A sweep as its file says it."""

    name: str
    question: str
    base: Annotated[tuple[str, ...], Field(strict=False)]
    space: dict[str, Parameter]
    objectives: dict[str, Literal["max", "min"]]
    protocol: str
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    trials: Count
    retries: Annotated[int, Field(ge=0)]
    constraints: dict[str, float]
    sampler: Sampler
    pruner: Pruner

    @model_validator(mode="after")
    def _consistent(self) -> Sweep:
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", self.name):
            raise ValueError(f"name {self.name!r}: letters, digits, _ . and - only (it names a folder)")
        if not self.space or not self.objectives:
            raise ValueError("a sweep needs a space and at least one objective")
        check_space(self.space)
        if len(self.objectives) > 1 and self.pruner.kind != "none":
            raise ValueError("pruning compares one number; with several objectives use pruner kind none")
        if len(self.objectives) > 1 and self.sampler.kind == "cmaes":
            raise ValueError("cmaes searches for one objective; use nsga2 or tpe for several")
        if self.sampler.kind == "cmaes" and any(
            item.kind == "categorical" or item.when for item in self.space.values()
        ):
            raise ValueError("cmaes takes float and int parameters without conditions alone")
        return self

    @property
    def digest(self) -> str:
        """sha256 of what makes two trials comparable: space, objectives, base, protocol, run seed."""
        body = self.model_dump(mode="json", include={"space", "objectives", "base", "protocol", "seed", "constraints"})
        body["space"] = list(body["space"].items())  # the order matters: conditions look back
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()

    @property
    def directions(self) -> list[str]:
        return ["maximize" if direction == "max" else "minimize" for direction in self.objectives.values()]


def shipped() -> list[str]:
    """Names of the sweeps in `sweeps/conf/sweep`."""
    return sorted(path.stem for path in (CONF / "sweep").glob("*.yaml"))


def load_sweep(name: str, extra: tuple[str, ...] = ()) -> Sweep:
    """A sweep by name, or by the path of its file, with `extra` overrides added to its base."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else CONF / "sweep" / f"{name}.yaml"
    if not path.is_file():
        if path.parent == CONF / "sweep":
            raise UserError(f"unknown sweep {name!r}{nearest(name, shipped())}; there are: {', '.join(shipped())}")
        raise UserError(f"sweep file {path} is missing")
    try:
        values = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise UserError(f"sweep file {path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"sweep file {path} must be a mapping")
    base = expand_best(
        [*values.get("base", []), *extra]
    )  # what a file says today must not change what the sweep is tomorrow
    return parse_sweep({**values, "base": list(base)}, str(path))


def parse_sweep(values: dict[str, Any], where: str) -> Sweep:
    """Validate plain values, with `sweeps/conf/defaults.yaml` filled in."""
    defaults = yaml.safe_load((CONF / "defaults.yaml").read_text())
    merged = {**defaults, **values}
    for section in ("sampler", "pruner"):
        if isinstance(values.get(section), dict):
            merged[section] = {**defaults[section], **values[section]}
    try:
        return Sweep.model_validate(merged)
    except ValidationError as error:
        raise UserError(
            f"{where}: {'; '.join(_explain(item) for item in error.errors(include_url=False)[:3])}"
        ) from error


def check(sweep: Sweep) -> None:
    """Refuse what would fail in every trial, or in all that choose one value.

    Unknown keys, values and metrics, metrics that the protocol does not measure, a protocol that looks at the test split.
    """
    refuse_unknown_metrics((*sweep.objectives, *sweep.constraints), f"sweep {sweep.name}")
    objective = next(iter(sweep.objectives))
    if sweep.pruner.kind != "none" and objective not in REPORTED:
        raise UserError(
            f"sweep {sweep.name}: {objective} is not among what validations report ({', '.join(REPORTED)}), so a pruner could not "
            "compare trials; use pruner kind none"
        )
    try:
        config = compose(all_overrides(sweep, ()))
    except UserError as error:
        raise UserError(f"sweep {sweep.name}, base: {error}") from error
    if config.protocol.split != "val":
        raise UserError(
            f"sweep {sweep.name}: protocol {sweep.protocol} looks at split {config.protocol.split}; tuning sees the validation "
            "split alone (protocol quick)"
        )
    for name in (*sweep.objectives, *sweep.constraints):
        if spec_of(name).kind == "cost" and "cost" not in config.protocol.groups:
            groups = ",".join((*config.protocol.groups, "cost"))
            raise UserError(
                f"sweep {sweep.name}: protocol {sweep.protocol} does not measure {name}; add protocol.groups=[{groups}] to base"
            )
    for key, parameter in sweep.space.items():
        for value in extremes(parameter):
            chosen = overrides({**_let_in(key, sweep.space), key: value})
            try:
                compose(all_overrides(sweep, chosen))
            except UserError as error:
                raise UserError(f"sweep {sweep.name}, {' '.join(chosen)}: {error}") from error


def _let_in(key: str, space: Space) -> dict[str, Number]:
    """Values of the parents, and of theirs, under which a conditional parameter enters."""
    values: dict[str, Number] = {}
    for parent, allowed in space[key].when.items():
        values |= {**_let_in(parent, space), parent: allowed[0]}
    return values


def all_overrides(sweep: Sweep, chosen: tuple[str, ...]) -> tuple[str, ...]:
    """Base, protocol, seed and the trial's choice."""
    return last_wins((*sweep.base, f"protocol={sweep.protocol}", f"seed={sweep.seed}", *chosen))


def _explain(item: Any) -> str:
    path = ".".join(str(part) for part in item["loc"])
    if item["type"] == "missing":
        return f"{path} is missing"
    if item["type"] == "extra_forbidden":
        return f"unknown key {path}{nearest(str(item['loc'][-1]), list(Sweep.model_fields))}"
    message = str(item["msg"]).removeprefix("Value error, ")
    return f"{path}: {message}" if path else message
