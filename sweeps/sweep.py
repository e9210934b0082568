"""The sweep file: what is searched, for which objective, how, and how long. Shipped ones lie in `sweeps/conf/sweep/`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from pipeline.cli import OUT
from pipeline.config import assigned, compose, expand_best, identify, last_wins
from pipeline.errors import UserError
from pipeline.records.metric_specs import direction_of, find_spec, refuse_unknown_metrics
from pipeline.schema.base import OVERRIDES, Section
from pipeline.schema.families import family_of, family_spec
from pipeline.schema.files import NamedFiles
from pipeline.schema.measures import advice, cannot_start, why_not
from pipeline.schema.run import RunConfig
from pipeline.schema.yaml12 import Document
from pipeline.weights import missing_for
from sweeps.space import Number, Parameter, Space, check_space, extremes, overrides

CONF = Path(__file__).parent / "conf"
Count = Annotated[int, Field(ge=1)]
REPORTED = ("psnr", "ssim", "attention_miou")  # numbers of a validation during training
# first part of a config key -> why no space may hold it
_NOT_SEARCHED = {
    "seed": "the best would be the luckiest seed, not the best setting; all trials have the sweep's own (seed: ... in its file)",
    "protocol": "it changes how trials are measured and not what is trained, so their values would not compare; all trials have "
    "the sweep's own (protocol: ... in its file, and protocol.KEY=VALUE in its base)",
}
PARAMETER = "a parameter, like {kind: float, low: 1e-4, high: 1e-2} or {kind: categorical, choices: [a, b]}"


def _objectives(value: Any) -> Any:
    """Names of metrics as `{name: direction}`; a direction that is said must be the metric's own, where it has one."""
    names = [value] if isinstance(value, str) else value
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        undirected = [name for name in names if find_spec(name) is not None and direction_of(name, "") == "none"]
        if undirected:
            raise ValueError(
                f"{undirected[0]} is neither good nor bad by itself; write {{{undirected[0]}: min}} or max"
            )
        return {name: direction_of(name, "max") for name in names}
    for name, said in value.items() if isinstance(value, dict) else ():
        own = direction_of(name, "none")
        if own != "none" and said in ("max", "min", "none") and said != own:
            raise ValueError(f"{name}: {said} contradicts the metric's own direction, {own}")
    return value


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
    base: tuple[str, ...] = Field(strict=False, description=OVERRIDES)
    space: dict[str, Annotated[Parameter, Field(description=PARAMETER)]] = Field(
        description="a mapping of config keys to parameters, like {train.lr: {kind: float, low: 1e-4, high: 1e-2}}"
    )
    objectives: Annotated[dict[str, Literal["max", "min"]], BeforeValidator(_objectives)] = Field(
        description="a list of metrics, like [psnr], or a mapping, like {psnr: max, flops_per_image: min}"
    )
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


SWEEPS = NamedFiles(
    "sweep",
    CONF / "sweep",
    Sweep,
    defaults=CONF / "defaults.yaml",
    sections=("sampler", "pruner"),
    text=(("name",),),
)


def shipped() -> list[str]:
    """Names of the sweeps in `sweeps/conf/sweep`."""
    return SWEEPS.names()


def load_sweep(name: str, extra: tuple[str, ...] = (), out: Path = OUT) -> Sweep:
    """A sweep by name, or by the path of its file, with `extra` overrides added to its base; `out` as in `expand_best`."""
    document = SWEEPS.read(name)
    base = document.values.get("base", [])
    if not isinstance(base, list) or not all(isinstance(item, str) for item in base):
        return SWEEPS.parse(document)  # says what is wrong with it
    # what a file says today must not change what the sweep is tomorrow
    values = {**document.values, "base": list(expand_best([*base, *extra], out))}
    return SWEEPS.parse(dataclasses.replace(document, values=values))


def with_extra(sweep: Sweep, extra: tuple[str, ...], out: Path) -> Sweep:
    """A sweep with overrides added to its base."""
    return sweep.model_copy(update={"base": (*sweep.base, *expand_best(extra, out))}) if extra else sweep


def parse_sweep(values: dict[str, Any], where: str) -> Sweep:
    """Validate plain values, with `sweeps/conf/defaults.yaml` filled in."""
    return SWEEPS.parse(Document(values, where))


def check(sweep: Sweep) -> None:
    """Refuse what would fail in every trial, or in all that choose one value.

    Unknown keys, values and metrics, metrics that the protocol does not measure, a protocol that looks at the test split; and a
    space that holds the seed or the protocol, whose best would be luck, or a milder measurement.
    """
    refuse_unknown_metrics((*sweep.objectives, *sweep.constraints), f"sweep {sweep.name}")
    objective = next(iter(sweep.objectives))
    if sweep.pruner.kind != "none" and objective not in REPORTED:
        raise UserError(
            f"sweep {sweep.name}: {objective} is not among what validations report ({', '.join(REPORTED)}), so a pruner could not "
            "compare trials; use pruner kind none"
        )
    if key := assigned(sweep.base, ("seed", "protocol")):  # its own come last and would win
        raise UserError(
            f"sweep {sweep.name}, base: {key} is the sweep's own field, not an override; write {key}: ... into the sweep's "
            "file, or a copy of it"
        )
    for key in sweep.space:
        if reason := _NOT_SEARCHED.get(section_of(key)):
            raise UserError(f"sweep {sweep.name}, space: {key} is not for searching: {reason}")
    try:
        config = compose(all_overrides(sweep, ()))
    except UserError as error:
        raise UserError(f"sweep {sweep.name}, base: {error}") from error
    if config.protocol.split != "val":
        raise UserError(
            f"sweep {sweep.name}: protocol {sweep.protocol} looks at split {config.protocol.split}; tuning sees the validation "
            "split alone (protocol quick)"
        )
    _refuse_shared_split(sweep, config)
    configs = [config]
    for key, parameter in sweep.space.items():
        for value in extremes(parameter):
            chosen = overrides({**_let_in(key, sweep.space), key: value})
            try:
                configs.append(compose(all_overrides(sweep, chosen)))
                if problem := cannot_start(configs[-1]):
                    raise UserError(problem)
            except UserError as error:
                raise UserError(f"sweep {sweep.name}, {' '.join(chosen)}: {error}") from error
    for name in (*sweep.objectives, *sweep.constraints):
        reasons = [why_not(name, item, "val") for item in configs]
        if all(reasons):
            raise UserError(
                f"sweep {sweep.name}: no trial would have a value of {name}: {reasons[0]}{advice([name], configs, 'val')}"
            )


def _refuse_shared_split(sweep: Sweep, config: RunConfig) -> None:
    """Data sets with one part beside their training part measure on it whatever the split is called."""
    splits = identify(config).data["description"].get("splits")
    if splits is not None and splits["val"]["sha256"] == splits["test"]["sha256"]:
        raise UserError(
            f"sweep {sweep.name}: validation and test photos of {config.data.root} are the same ones, so tuning would see the "
            "test set; give it a test part of its own, or set data.split=holdout"
        )


def seen_by(sweep: Sweep) -> dict[str, str]:
    """Digests of what the names in a sweep stand for now: the data of its base, and what its protocol measures.

    Trials whose names are the same and whose data are not compare nothing.
    """
    config = compose(all_overrides(sweep, ()))
    inverts = family_spec(family_of(config.model)).inverts
    return {"data": identify(config).data["digest"], "protocol": config.protocol.digest_for(inverts=inverts)}


def unavailable(sweep: Sweep) -> list[str]:
    """What to know before starting: objectives and constraints that want weight files which are not there."""
    folder = compose(all_overrides(sweep, ())).protocol.weights_dir
    missing = {name: missing_for(name, folder) for name in (*sweep.objectives, *sweep.constraints)}
    return [f"{name} will be unavailable: {reason}" for name, reason in missing.items() if reason]


def _let_in(key: str, space: Space) -> dict[str, Number]:
    """Values of the parents, and of theirs, under which a conditional parameter enters."""
    values: dict[str, Number] = {}
    for parent, allowed in space[key].when.items():
        values |= {**_let_in(parent, space), parent: allowed[0]}
    return values


def section_of(override: str) -> str:
    """The first part of the key that an override, or a key by itself, names: `protocol` of `++protocol.images=7`."""
    return re.split(r"[.@=]", override.strip().lstrip("+~"))[0]


def all_overrides(sweep: Sweep, chosen: tuple[str, ...]) -> tuple[str, ...]:
    """Base, protocol, seed and the trial's choice."""
    return last_wins((*sweep.base, f"protocol={sweep.protocol}", f"seed={sweep.seed}", *chosen))
