"""The one base of every config section: frozen, strict, without defaults.

Defaults live in `pipeline/conf/*.yaml` alone; a section that leaves out a field, or adds one, is an error. The one exception are
fields that came `later`: what a run without them did is written beside the field, so that old records load and keep their ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

OVERRIDES = "a list of overrides, like [model=sean, train.iterations=100]"  # what a field of overrides wants
LATER = "later"  # marks a field in `json_schema_extra`


def later(value: Any, **constraints: Any) -> Any:
    """A field that came after runs were recorded; `value` is what those runs did without it.

    At that value the field does not enter the run identity, and a config without the field reads as if it stood there. The rows
    of `pipeline/conf` name it all the same: they are what a user sees and overrides. `constraints` as pydantic's `Field`.
    """
    return Field(default=value, json_schema_extra={LATER: True}, **constraints)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` -> `{"a.b": 1}`; empty sections stay as they are."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            result.update(flat(value, f"{prefix}{key}."))
        else:
            result[f"{prefix}{key}"] = value
    return result


class Section(BaseModel):
    """A frozen config section. `1`, `1.0` and `true` are told apart (strict), unknown keys are refused."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)

    def identity_values(self) -> dict[str, Any]:
        """The section as plain values without `later` fields at the value from before they came (nuisance keys included)."""
        values = self.model_dump(mode="json")
        for name, field in type(self).model_fields.items():
            inner = getattr(self, name)
            extra = field.json_schema_extra
            if isinstance(extra, dict) and LATER in extra and inner == field.default:
                del values[name]
            elif isinstance(inner, Section):
                values[name] = inner.identity_values()
        return values


class ModelSection(Section):
    """A family's section: also says what plans must know of the network before it is built, as its capabilities will."""

    @property
    def has_attention(self) -> bool:
        """Whether the network yields attention maps."""
        return False

    @property
    def samples(self) -> bool:
        """Whether styles can be drawn from noise."""
        return False
