"""YAML as its specification 1.2 has it (core schema), read strictly: what every file that a user writes goes through.

PyYAML's own reading is YAML 1.1: `off` and `no` are booleans, `1:30` is 90, `2024-01-01` a date, `1e-4` text, and of two equal keys
the last one wins. Here plain scalars are what section 10.3.2 of YAML 1.2.2 says, a key that stands twice is refused with both its
lines, and names stay as they are written. ruamel.yaml was weighed: it reads `1_000` and `0b11` as numbers and dates as dates, so
its resolver would have to be replaced all the same, and PyYAML is there already (Hydra reads with it).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import UserError

Step = str | int
Place = tuple[Step, ...]  # keys and list positions from the top of a file down to a value

_TAG = "tag:yaml.org,2002:"
_NULL = re.compile(r"(?:~|null|Null|NULL|)\Z")
_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")
_INT = re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z")
_FLOAT = re.compile(
    r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
)
# YAML 1.1's merge of one mapping into another: not in 1.2, but nobody writes << for anything else
_MERGE = re.compile(r"<<\Z")


class _Composer(yaml.SafeLoader):
    """PyYAML's scanner and parser with the resolver of YAML 1.2; makes nodes, constructs nothing."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012 - PyYAML's way


for _kind, _pattern, _first in (
    ("null", _NULL, ["~", "n", "N", ""]),
    ("bool", _BOOL, list("tTfF")),
    ("int", _INT, list("-+0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
    ("merge", _MERGE, ["<"]),
):
    _Composer.add_implicit_resolver(_TAG + _kind, _pattern, _first)


@dataclass(frozen=True)
class Document:
    """What a YAML text says, and the line on which each of its values begins."""

    values: Any
    where: str  # the file, as messages name it
    lines: dict[Place, int] = field(default_factory=dict)

    def line(self, place: Place) -> int | None:
        """The line of a value, or of the nearest thing around it; None for values that come from no text."""
        for length in range(len(place), -1, -1):
            if place[:length] in self.lines:
                return self.lines[place[:length]]
        return None


def read_yaml(path: Path, what: str, names: Sequence[Place] = ()) -> Document:
    """The YAML file `path`; `what` it is goes into messages ("study file"), `names` as in `parse_yaml`.

    Raises UserError naming the file, and line and column of what is wrong in it.
    """
    where = f"{what} {path}"
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"{where} is missing") from error
    except OSError as error:
        raise UserError(f"cannot read {where}: {(error.strerror or str(error)).lower()}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not UTF-8 text") from error
    return parse_yaml(text, where, names)


def parse_yaml(text: str, where: str, names: Sequence[Place] = ()) -> Document:
    """What a YAML text says, as dicts with text keys, lists, text, int, float, bool and None.

    `names` are places, "*" standing for any step, at and below which plain scalars are names: text as written, also where they look
    like `0.10`, `on` or `true` (a `null` there is still nothing). Keys are always text as written.
    """
    try:
        node = yaml.compose(text, Loader=_Composer)
        if node is None:
            return Document(None, where, {(): 1})
        reader = _Reader(where, tuple(names))
        return Document(reader.value(node, ()), where, reader.lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        raise UserError(f"{where}{place}: not valid YAML: {_problem(error)}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise UserError(f"{where}: nested too deep") from error


def scalar(text: str) -> Any:
    """One plain scalar as a file would have it, for `KEY=VALUE` on a command line."""
    for kind, pattern in (("null", _NULL), ("bool", _BOOL), ("int", _INT), ("float", _FLOAT)):
        if pattern.match(text):
            return _construct(kind, text)
    return text


class _Reader:
    """Nodes to plain values, with their lines."""

    def __init__(self, where: str, names: tuple[Place, ...]) -> None:
        self.where = where
        self.names = names
        self.lines: dict[Place, int] = {}
        self._open: list[yaml.Node] = []

    def value(self, node: yaml.Node, place: Place) -> Any:
        self.lines[place] = node.start_mark.line + 1
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, place)
        if any(node is other for other in self._open):
            raise self._error(node, f"*alias of {_shown(place)} stands inside of what it stands for")
        self._open.append(node)
        try:
            if isinstance(node, yaml.SequenceNode):
                self._check_tag(node, "seq")
                return [self.value(item, (*place, index)) for index, item in enumerate(node.value)]
            assert isinstance(node, yaml.MappingNode), "YAML has three kinds of nodes"
            self._check_tag(node, "map")
            return self._mapping(node, place)
        finally:
            self._open.pop()

    def _scalar(self, node: yaml.ScalarNode, place: Place) -> Any:
        kind = node.tag.removeprefix(_TAG)
        if kind in ("str", "merge") or node.tag == "!":
            return node.value
        if kind not in ("null", "bool", "int", "float"):
            raise self._error(node, f"the tag {node.tag.replace(_TAG, '!!')} is not known here")
        if kind != "null" and node.style is None and self._is_name(place):
            return node.value
        try:
            return _construct(kind, node.value)
        except ValueError as error:
            raise self._error(node, f"{node.value[:40]!r} cannot be read as {kind}") from error

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        own: dict[str, yaml.Node] = {}
        value: dict[str, Any] = {}
        merged: list[yaml.Node] = []
        for key_node, item in node.value:
            key = self._key(key_node)
            if key in own:
                first, second = (mark.start_mark.line + 1 for mark in (own[key], key_node))
                inside = f" of {_shown(place)}" if place else ""
                raise UserError(f"{self.where}: key {key}{inside} stands twice, in lines {first} and {second}")
            own[key] = key_node
            if key_node.tag == _TAG + "merge":
                merged += item.value if isinstance(item, yaml.SequenceNode) else [item]
            else:
                value[key] = self.value(item, (*place, key))
        lines = dict(self.lines)
        taken: dict[str, Any] = {}
        for other in merged:  # what the mapping itself says wins over all, then the first of several
            if not isinstance(other, yaml.MappingNode):
                raise self._error(other, "<< takes a mapping, or a list of them")
            found = self.value(other, place)
            taken |= {name: item for name, item in found.items() if name not in taken and name not in value}
        self.lines = {**self.lines, **lines}  # lines of the mapping's own values stay
        return {**taken, **value}

    def _key(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise self._error(node, "a key must be one word or text, not a list or a mapping")
        if not node.value and node.style is None:
            raise self._error(node, "a key is empty")
        return str(node.value)

    def _is_name(self, place: Place) -> bool:
        return any(
            len(place) >= len(pattern)
            and all(fnmatchcase(str(step), str(want)) for step, want in zip(place, pattern, strict=False))
            for pattern in self.names
        )

    def _check_tag(self, node: yaml.Node, usual: str) -> None:
        if node.tag not in (_TAG + usual, "!"):
            raise self._error(node, f"the tag {node.tag.replace(_TAG, '!!')} is not known here")

    def _error(self, node: yaml.Node, problem: str) -> UserError:
        mark = node.start_mark
        return UserError(f"{self.where}, line {mark.line + 1}, column {mark.column + 1}: {problem}")


def _construct(kind: str, text: str) -> Any:
    """The value of a plain scalar of one of the kinds of YAML 1.2's core schema; ValueError when it is none."""
    if kind == "null" and _NULL.match(text):
        return None
    if kind == "bool" and _BOOL.match(text):
        return text.lower() == "true"
    if kind == "int" and _INT.match(text):
        return int(text[2:], {"0o": 8, "0x": 16}[text[:2]]) if text[:2] in ("0o", "0x") else int(text)
    if kind == "float" and _FLOAT.match(text):
        bare = text.lower()
        if bare.endswith((".inf", ".nan")):
            return math.copysign(math.inf, -1.0 if bare[0] == "-" else 1.0) if bare.endswith("inf") else math.nan
        return float(text)
    raise ValueError(text)


def _shown(place: Place) -> str:
    return ".".join(map(str, place)) or "the file"


def _problem(error: yaml.MarkedYAMLError) -> str:
    parts: Iterator[str] = (part for part in (error.problem, error.context) if part)
    return " ".join(", ".join(parts).split())
