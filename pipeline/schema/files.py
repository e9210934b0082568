"""Files a user writes: studies, sweeps, table specifications, claims, protocols. One way to name, read and refuse them.

A shipped file goes by its name, any other by its path. What a file leaves out is filled in from the kind's file of defaults.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from pipeline.errors import UserError, nearest
from pipeline.schema.messages import explain
from pipeline.schema.yaml12 import Document, Place, read_yaml

S = TypeVar("S", bound=BaseModel)
SUFFIXES = (".yaml", ".yml")


def is_file_name(word: str) -> bool:
    """Whether a word on a command line is the path of a YAML file, not a name."""
    return word.endswith(SUFFIXES)


@dataclass(frozen=True)
class NamedFiles(Generic[S]):
    """The files of one kind."""

    what: str  # in messages: "study"
    folder: Path  # the shipped ones
    model: type[S]
    defaults: Path | None = None  # what a file may leave out
    sections: tuple[str, ...] = ()  # keys whose mappings are filled in key by key
    text: tuple[Place, ...] = ()  # places of names: text as written (see `yaml12.parse_yaml`)

    def names(self) -> list[str]:
        """Names of the shipped files."""
        return sorted(path.stem for path in self.folder.glob("*.yaml"))

    def path(self, name: str) -> Path:
        """The file of a name or path; raises UserError, with the nearest names, for a name that is not shipped."""
        if is_file_name(name):
            return Path(name)
        known = self.names()
        if name not in known:
            raise UserError(
                f"unknown {self.what} {name!r}{nearest(name, known)}; there are: {', '.join(known)}, or a .yaml file"
            )
        return self.folder / f"{name}.yaml"

    def read(self, name: str) -> Document:
        """What the file says, unchecked but for being a mapping; an empty file is an empty one."""
        document = read_yaml(self.path(name), f"{self.what} file", self.text)
        if document.values is None:
            return Document({}, document.where)
        _mapping(document)
        return document

    def load(self, name: str) -> S:
        """The checked content of a file; raises UserError, one line with file, line, key and what is allowed."""
        return self.parse(self.read(name))

    def parse(self, document: Document) -> S:
        """Check plain values, with what they leave out filled in."""
        return check(self.model, self.filled(_mapping(document)), document)

    def filled(self, values: dict[str, Any]) -> dict[str, Any]:
        """Plain values with the kind's defaults where they say nothing."""
        if self.defaults is None:
            return values
        defaults: dict[str, Any] = read_yaml(self.defaults, "defaults").values
        merged = {**defaults, **values}
        for section in self.sections:
            if isinstance(values.get(section), dict):
                merged[section] = {**defaults[section], **values[section]}
        return merged


def _mapping(document: Document) -> dict[str, Any]:
    """What the document says; raises UserError where that is no mapping."""
    if not isinstance(document.values, dict):
        raise UserError(f"{document.where} must be a mapping, key: value")
    return document.values


def check(model: type[S], values: Any, document: Document) -> S:
    """`values` as `model`; raises UserError naming the document, the line, the key and what is allowed."""
    try:
        return model.model_validate_json(
            json.dumps(values)
        )  # JSON's rules: its lists are tuples where those are wanted
    except ValidationError as error:
        raise UserError(f"{document.where}: {explain(error, model, values, document.line)}") from error


def find_folder(word: str, out: Path, *below: str) -> tuple[Path, str]:
    """(output folder, name) of what a user calls by its name, by its file, or by its folder `OUT/[below/]NAME`.

    `out` is the output folder where the word does not say another.
    """
    if is_file_name(word):
        return out, name_in(Path(word))
    folder = Path(word)
    parents: Sequence[Path] = folder.parents
    if len(folder.parts) > 1 + len(below) and folder.is_dir() and folder.parts[-1 - len(below) : -1] == below:
        return parents[len(below)], folder.name
    if not below and (folder / "plan.json").is_file() and not (out / word).exists():
        return folder.parent, folder.name  # a kept study in the folder one stands in
    return out, word


def name_in(path: Path) -> str:
    """The `name` that a file gives to what it describes."""
    document = read_yaml(path, "file", (("name",),))
    name = document.values.get("name") if isinstance(document.values, dict) else None
    if not isinstance(name, str) or not name:
        raise UserError(f"{document.where} gives no name (name: ...)")
    return name
