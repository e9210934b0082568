"""The claims file: each claim says which arm is better than which other, by which metric, by how much.

Arms are named by what they *are* (keys of the resolved config), so that one file serves every study.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.errors import UserError, nearest

SHIPPED = Path(__file__).parent.parent / "conf" / "claims.yaml"
Scalar = str | int | float | bool | None
Selector = dict[str, Scalar | list[Scalar]]
_ORDER: tuple[tuple[str, Callable[[Any, Any], bool]], ...] = (
    (">=", operator.ge),
    ("<=", operator.le),
    (">", operator.gt),
    ("<", operator.lt),
)


class Claim(BaseModel):
    """One claim. A selector maps keys to a value, a list of values, or a text such as ">0" or "!=off"."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    id: str = Field(min_length=1, pattern=r"^[\w.-]+$")
    says: str
    source: str = ""
    metric: str | list[str]  # names or patterns; every one that was recorded must bear the claim out
    kind: Literal["superiority", "equivalence"] = "superiority"
    better: Selector  # keys of the resolved config, or arm, label, factor:NAME
    worse: Selector
    may_differ: list[str] = []  # patterns of further keys in which the two arms may differ
    at_least: float = 0.0  # superiority: advantage, in the metric's unit
    at_least_percent: float = 0.0  # superiority: advantage in percent of the worse arm's value
    within: float | None = Field(default=None, gt=0)  # equivalence: largest difference that does not matter

    @model_validator(mode="after")
    def _margins_fit(self) -> Claim:
        if (self.kind == "equivalence") != (self.within is not None):
            raise ValueError("within is needed for kind equivalence, and for it alone")
        if self.kind == "equivalence" and (self.at_least or self.at_least_percent):
            raise ValueError("at_least belongs to kind superiority")
        if self.at_least and self.at_least_percent:
            raise ValueError("give at_least or at_least_percent, not both")
        return self

    @property
    def metrics(self) -> list[str]:
        return [self.metric] if isinstance(self.metric, str) else list(self.metric)

    def allows(self, key: str) -> bool:
        """Whether the two arms may differ in this config key."""
        return key in self.better or key in self.worse or any(fnmatchcase(key, pattern) for pattern in self.may_differ)


def matches(selector: Selector, facts: Mapping[str, Any]) -> bool:
    """Whether an arm's facts (flat config and names) satisfy every entry; a key that the arm lacks never matches."""
    return all(key in facts and _fits(wanted, facts[key]) for key, wanted in selector.items())


def _fits(wanted: Scalar | list[Scalar], value: Any) -> bool:
    if isinstance(wanted, list):
        return any(_fits(item, value) for item in wanted)
    if isinstance(wanted, str):
        if wanted.startswith("!="):
            return str(value) != wanted[2:].strip()
        for sign, compare in _ORDER:
            if wanted.startswith(sign):
                number = isinstance(value, int | float) and not isinstance(value, bool)
                return number and compare(value, float(wanted[len(sign) :]))
        return isinstance(value, str) and value == wanted
    if isinstance(wanted, bool) or isinstance(value, bool) or wanted is None:
        return value is wanted
    return bool(value == wanted)


def load_claims(path: Path | None = None) -> list[Claim]:
    """Read a claims file (None: the shipped one, the paper's claims). Raises UserError naming file, claim and key."""
    path = path or SHIPPED
    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UserError(f"cannot read claims {path}: {(error.strerror or str(error)).lower()}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict) or list(document) != ["claims"] or not isinstance(document["claims"], list):
        raise UserError(f"{path}: needs one key, claims, with a list of claims")
    claims = [_parse(item, f"{path}: claim {index + 1}") for index, item in enumerate(document["claims"])]
    names = [claim.id for claim in claims]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{path}: claim ids occur twice: {', '.join(twice)}")
    return claims


def _parse(item: Any, origin: str) -> Claim:
    named = f"{origin} ({item['id']})" if isinstance(item, dict) and isinstance(item.get("id"), str) else origin
    try:
        claim = Claim.model_validate(item)
    except ValidationError as error:
        detail = error.errors()[0]
        key = ".".join(map(str, detail["loc"]))
        if detail["type"] == "extra_forbidden":
            raise UserError(f"{named}: unknown key {key}{nearest(key, list(Claim.model_fields))}") from error
        raise UserError(f"{named}: {key + ': ' if key else ''}{detail['msg'].removeprefix('Value error, ')}") from error
    for selector in (claim.better, claim.worse):
        for wanted in selector.values():
            _check_number(wanted, named)
    return claim


def _check_number(wanted: Scalar | list[Scalar], origin: str) -> None:
    for item in wanted if isinstance(wanted, list) else [wanted]:
        if isinstance(item, str) and item[:1] in "<>" and item:
            try:
                float(item.lstrip("<>="))
            except ValueError as error:
                raise UserError(f"{origin}: {item!r} compares with something that is no number") from error
