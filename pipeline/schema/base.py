"""The one base of every config section: frozen, strict, without defaults.

Defaults live in `pipeline/conf/*.yaml` alone; a section that leaves out a field, or adds one, is an error. The one exception are
fields that came `later`: what a run without them did is written beside the field, so that old records load and keep their ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

ABSENT = "(absent)"
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


def differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(key, value there, value here) of what differs between two flat mappings, as text, sorted; ABSENT where a key is not."""
    found = []
    for key in sorted(set(first) | set(second)):
        before, after = (repr(side[key]) if key in side else ABSENT for side in (first, second))
        if before != after:
            found.append((key, before, after))
    return found


def is_later(field: FieldInfo) -> bool:
    """Whether a section's field came `later`."""
    return isinstance(field.json_schema_extra, dict) and LATER in field.json_schema_extra


class Section(BaseModel):
    """A frozen config section. `1`, `1.0` and `true` are told apart (strict), unknown keys are refused."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)

    def identity_values(self) -> dict[str, Any]:
        """The section as plain values without `later` fields at the value from before they came (nuisance keys included)."""
        values = self.model_dump(mode="json")
        for name, field in type(self).model_fields.items():
            inner = getattr(self, name)
            if is_later(field) and inner == field.default:
                del values[name]
            elif isinstance(inner, Section):
                values[name] = inner.identity_values()
        return values

    @classmethod
    def completed(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """`identity_values` (or those of an older record) with the `later` fields that they leave out."""
        found = dict(values)
        for name, field in cls.model_fields.items():
            kind = _section_in(field.annotation)
            if is_later(field) and name not in found:
                found[name] = (
                    field.default.model_dump(mode="json") if isinstance(field.default, Section) else field.default
                )
            if kind is not None and isinstance(found.get(name), Mapping):
                found[name] = kind.completed(found[name])
        return found


def _section_in(annotation: Any) -> type[Section] | None:
    """The section that a field holds, or may hold."""
    kinds = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
    return next((kind for kind in kinds if issubclass(kind, Section)), None)


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

    @property
    def only_pictures(self) -> bool:
        """Whether other code made its pictures, and there is no network to ask for anything else."""
        return False
