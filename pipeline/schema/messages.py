"""What is wrong with a user's values, in the user's words: key, value, what is allowed; never Python's or pydantic's terms.

A field says what it wants in its `description` where the type alone would not ("a list of overrides, like [...]").
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from pipeline.errors import nearest

MOST = 3  # mistakes told at once
SHOWN = 60  # characters of a value

# error type of pydantic -> what the key wants, from the error's context
_WANTS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    **dict.fromkeys(("string_type", "string_sub_type", "string_unicode"), lambda _: "text"),
    **dict.fromkeys(("int_type", "int_from_float", "int_parsing", "int_parsing_size"), lambda _: "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), lambda _: "a number"),
    "finite_number": lambda _: "a finite number",
    **dict.fromkeys(("bool_type", "bool_parsing"), lambda _: "true or false"),
    **dict.fromkeys(("list_type", "tuple_type"), lambda _: "a list, like [a, b]"),
    **dict.fromkeys(
        ("dict_type", "model_type", "model_attributes_type", "mapping_type", "dataclass_type"),
        lambda _: "a mapping, like {key: value}",
    ),
    "none_required": lambda _: "null",
    **dict.fromkeys(("literal_error", "enum"), lambda about: _listed(str(about.get("expected", "")))),
    "greater_than": lambda about: f"more than {about['gt']:.10g}",
    "greater_than_equal": lambda about: f"at least {about['ge']:.10g}",
    "less_than": lambda about: f"less than {about['lt']:.10g}",
    "less_than_equal": lambda about: f"at most {about['le']:.10g}",
    "multiple_of": lambda about: f"a multiple of {about['multiple_of']:.10g}",
    "too_short": lambda about: f"a list of {about['min_length']} or more",
    "too_long": lambda about: f"a list of {about['max_length']} or fewer",
    "string_too_short": lambda about: f"text of at least {about['min_length']} characters",
    "string_too_long": lambda about: f"text of at most {about['max_length']} characters",
    "string_pattern_mismatch": lambda about: f"text of the form {about['pattern']}",
}
# what says that a whole value has the wrong kind or form: there the field's own description is better
# fmt: off
_KINDS = frozenset(
    {"list_type", "tuple_type", "dict_type", "model_type", "model_attributes_type", "string_type", "mapping_type",
     "string_pattern_mismatch"}
)
# fmt: on

Place = tuple[str | int, ...]


def explain(
    error: ValidationError,
    model: type[BaseModel],
    values: Any,
    line: Callable[[Place], int | None] = lambda place: None,
) -> str:
    """The first mistakes that `error` found in `values` as one line; `line` says where in the file a value stands."""
    told: dict[Place, list[str]] = {}
    wants: dict[Place, list[str]] = {}
    shown: dict[Place, Any] = {}
    for item in error.errors(include_url=False):
        place = _place(item, values)
        kind, about = item["type"], item.get("ctx", {})
        if kind == "missing":
            told.setdefault(place, []).append(f"{_path(place)} is missing")
        elif kind == "extra_forbidden":
            section = _section(model, values, place[:-1])
            known = list(section.model_fields) if section is not None else []
            told.setdefault(place, []).append(f"unknown key {_path(place)}{nearest(str(place[-1]), known)}")
        elif kind in _WANTS:  # a union reports once for each of its members
            described = _description(model, values, place) if kind in _KINDS else ""
            wants.setdefault(place, []).append(described or _WANTS[kind](about) + _quoted(kind, item["input"]))
            shown[place] = item["input"]
        else:
            message = str(item["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
            told.setdefault(place, []).append(f"{_path(place)}: {message}" if place else message)
    for place, each in wants.items():
        deeper = any(len(other) > len(place) and other[: len(place)] == place for other in (*wants, *told))
        if place not in told and not deeper:  # a list whose entry is wrong may be no word of the union either
            told[place] = [f"{_named(place, shown[place])} must be {', or '.join(dict.fromkeys(each))}"]
    numbered = sorted(((line(place) or 0, texts) for place, texts in told.items()), key=lambda item: item[0])
    return "; ".join(
        f"line {number}: {text}" if number else text
        for number, texts in numbered[:MOST]
        for text in dict.fromkeys(texts)
    )


def _named(place: Place, value: Any) -> str:
    path = _path(place) or "the file"
    if isinstance(value, dict | list | tuple):
        return f"{path} is a {'mapping' if isinstance(value, dict) else 'list'}; it"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return f"{path} = {text if len(text) <= SHOWN else text[: SHOWN - 1] + '…'}: it"


def _quoted(kind: str, value: Any) -> str:
    """How to write a number or truth value that is meant as text."""
    return f' (quoted: "{json.dumps(value)}")' if kind == "string_type" and isinstance(value, int | float) else ""


def _path(place: Place) -> str:
    return ".".join(str(step) for step in place)


def _place(item: Any, values: Any) -> Place:
    """The error's keys as they stand in the values: pydantic also names members of unions and shorthand made long."""
    steps: list[str | int] = []
    here = values
    location = item["loc"]
    for index, step in enumerate(location):
        if (isinstance(here, dict) and step in here) or (
            isinstance(here, list | tuple) and isinstance(step, int) and step < len(here)
        ):
            here = here[step]
        elif not (index == len(location) - 1 and item["type"] == "missing"):
            continue
        steps.append(step)
    return tuple(steps)


def _listed(expected: str) -> str:
    """pydantic's "'a', 'b' or 'c'" without quotes."""
    return expected.replace("'", "")


def _description(model: type[BaseModel], values: Any, place: Place) -> str:
    """What the value at `place` is said to want, "" where nothing says it."""
    kind = _annotation(model, values, place)
    notes = typing.get_args(kind)[1:] if typing.get_origin(kind) is typing.Annotated else ()
    said = next((item.description for item in notes if isinstance(item, FieldInfo) and item.description), "")
    return said or ""


def _section(model: type[BaseModel], values: Any, place: Place) -> type[BaseModel] | None:
    """The section whose keys stand at `place`, None where none does."""
    members = _members(_annotation(model, values, place))
    return next((kind for kind in members if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _annotation(model: type[BaseModel], values: Any, place: Place) -> Any:
    """The type of what stands at `place`, with its field's notes."""
    kind: Any = model
    for step in place:
        values = values[step]
        kind = _inside(kind, step, values)
    return kind


def _inside(annotation: Any, step: str | int, value: Any) -> Any:
    """The type of what stands under `step` in something of type `annotation`; None where nothing can."""
    for kind in _members(annotation):
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            field = kind.model_fields.get(str(step))
            if field is not None:
                chooser = next((item.of for item in field.metadata if isinstance(item, SectionOf)), None)
                return typing.Annotated[chooser(value) if chooser is not None else field.annotation, field]
        elif origin is dict and isinstance(step, str):
            return arguments[1]
        elif origin in (list, tuple) and isinstance(step, int):
            return arguments[0]
    return None


def _members(annotation: Any) -> list[Any]:
    """The annotation without its notes, as the members of its union."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _members(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [member for part in typing.get_args(annotation) for member in _members(part)]
    return [annotation]


class SectionOf:
    """Marks a field whose section is chosen by its value; `of(value)` is that section, None where the value names none."""

    def __init__(self, of: Callable[[Any], type[BaseModel] | None]) -> None:
        self.of = of
