"""The claims file: each claim says which arm is better than which other, by which metric, by how much.

Arms are named by what they *are* (keys of the resolved config), so that one file serves every study.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.errors import UserError
from pipeline.schema.messages import explain
from pipeline.schema.yaml12 import Document, read_yaml

SHIPPED = Path(__file__).parent.parent / "conf" / "claims.yaml"
Scalar = str | int | float | bool | None
Selector = dict[str, Scalar | list[Scalar]]
SELECTOR = "a mapping of config keys, like {model.family: ca2sis, loss.attention.weight: '>0'}"
# arms, labels and levels are names: text as written
NAMES = (
    ("claims", "*", "id"),
    *(("claims", "*", side, key) for side in ("better", "worse") for key in ("arm", "label", "factor:*")),
)
_ORDER: tuple[tuple[str, Callable[[Any, Any], bool]], ...] = (
    (">=", operator.ge),
    ("<=", operator.le),
    (">", operator.gt),
    ("<", operator.lt),
)


class Claim(BaseModel):
    """One claim. A selector maps keys to a value, a list of values, or a text such as ">0" or "!=off"."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    id: str = Field(min_length=1, pattern=r"^[\w.-]+$", description="a name of letters, digits, _ . and -")
    says: str
    source: str = ""
    metric: str | Annotated[list[str], Field(min_length=1)] = Field(
        description="a metric, or a list of them, like [psnr, ssim]"
    )  # names or patterns; every one that was recorded must bear the claim out
    kind: Literal["superiority", "equivalence"] = "superiority"
    better: Selector = Field(description=SELECTOR)  # keys of the resolved config, or arm, label, factor:NAME
    worse: Selector = Field(description=SELECTOR)
    may_differ: list[str] = Field(
        default=[], description="a list of patterns, like [loss.*]"
    )  # patterns of further keys in which the two arms may differ
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
        if wanted[:1] in ("<", ">"):
            compare, number = _bound(wanted)
            return isinstance(value, int | float) and not isinstance(value, bool) and compare(value, number)
        return isinstance(value, str) and value == wanted
    if isinstance(wanted, bool) or isinstance(value, bool) or wanted is None:
        return value is wanted
    return bool(value == wanted)


def _bound(wanted: str) -> tuple[Callable[[Any, Any], bool], float]:
    """A text such as ">=0.5" as comparison and number; ValueError where what follows the sign is none."""
    sign, compare = next((sign, compare) for sign, compare in _ORDER if wanted.startswith(sign))
    return compare, float(wanted[len(sign) :])


def load_claims(path: Path | None = None) -> list[Claim]:
    """Read a claims file (None: the shipped one, the paper's claims). Raises UserError naming file, claim and key."""
    document = read_yaml(path or SHIPPED, "claims file", NAMES)
    values = document.values
    if not isinstance(values, dict) or list(values) != ["claims"] or not isinstance(values["claims"], list):
        raise UserError(f"{document.where}: needs one key, claims, with a list of claims")
    claims = [_parse(index, item, document) for index, item in enumerate(values["claims"])]
    names = [claim.id for claim in claims]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{document.where}: claim ids occur twice: {', '.join(twice)}")
    return claims


def _parse(index: int, item: Any, document: Document) -> Claim:
    origin = f"{document.where}: claim {index + 1}"
    named = f"{origin} ({item['id']})" if isinstance(item, dict) and isinstance(item.get("id"), str) else origin
    try:
        claim = Claim.model_validate(item)
    except ValidationError as error:
        said = explain(error, Claim, item, lambda place: document.line(("claims", index, *place)))
        raise UserError(f"{named}: {said}") from error
    for selector in (claim.better, claim.worse):
        for wanted in selector.values():
            _check_number(wanted, named)
    return claim


def _check_number(wanted: Scalar | list[Scalar], origin: str) -> None:
    for item in wanted if isinstance(wanted, list) else [wanted]:
        if isinstance(item, str) and item[:1] in ("<", ">"):
            try:
                _bound(item)
            except ValueError as error:
                raise UserError(f"{origin}: {item!r} compares with something that is no number") from error
