"""The study manifest: the locked plan of a study, as its driver writes it and its tables read it.

`OUT/<study>/plan.json` holds the newest revision, `OUT/<study>/revisions/<n>.json` every one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import UserError, nearest
from pipeline.records import atomic


@dataclass(frozen=True)
class StudyMetric:
    """A metric the study is about."""

    name: str
    role: Literal["primary", "secondary"]
    direction: Literal["max", "min", "none"]


@dataclass(frozen=True)
class Arm:
    """One row of the study's table: a label and the levels of its factors."""

    name: str  # stable key, e.g. "attention_loss=0"
    label: str  # what tables print
    levels: dict[str, str]  # factor -> level
    overrides: tuple[str, ...]  # Hydra overrides that make the arm out of the base
    reference: bool = False  # the arm that all others are compared with


@dataclass(frozen=True)
class Cell:
    """One run of the study: an arm at a seed."""

    arm: str
    seed: int
    run_id: str
    overrides: tuple[str, ...]  # the whole list, base and seed included
    images_seen: int  # training budget in images


@dataclass(frozen=True)
class StudyManifest:
    """A study's plan: what is compared, by which metrics, in which runs."""

    name: str
    question: str
    revision: int
    protocol: str  # name of the protocol whose rows the study's tables use
    split: str
    metrics: tuple[StudyMetric, ...]
    arms: tuple[Arm, ...]
    cells: tuple[Cell, ...]
    seeds: tuple[int, ...]
    design: str
    budget: str  # "equal" or the declared reason for unequal budgets

    @property
    def digest(self) -> str:
        """sha256 of the plan without its revision number: equal plans have equal digests."""
        body = {key: value for key, value in dataclasses.asdict(self).items() if key != "revision"}
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()

    def matching(self, only: Sequence[str]) -> set[str]:
        """Names of the arms that words like `data=faces`, a level or an arm's name, choose together.

        Levels of one factor are alternatives, and so are arms; different factors must all match. All arms without words.
        Raises UserError for a word that is neither, and where no arm is left.
        """
        levels = {f"{name}={value}" for arm in self.arms for name, value in arm.levels.items()}
        names = {arm.name for arm in self.arms}
        wanted: dict[str, set[str]] = {}  # factor ("" for arms by name) -> names of the arms that match
        for item in only:
            if item not in levels and item not in names:
                raise UserError(f"--only {item}: no such level or arm{nearest(item, sorted(levels | names))}")
            factor, _, level = item.partition("=")
            by_level = item not in names  # where one factor is varied at a time, an arm is called like its level
            found = {arm.name for arm in self.arms if arm.levels.get(factor) == level} if by_level else {item}
            wanted.setdefault(factor if by_level else "", set()).update(found)
        chosen = names.intersection(*wanted.values())
        if not chosen:
            raise UserError(f"--only {' '.join(only)}: no arm matches all of them")
        return chosen

    def as_json(self) -> dict[str, Any]:
        """What `plan.json` holds."""
        return {"schema": 1, "digest": self.digest, **dataclasses.asdict(self)}

    def save(self, folder: Path) -> None:
        value = self.as_json()
        atomic.write_json(folder / "revisions" / f"{self.revision}.json", value)
        atomic.write_json(folder / "plan.json", value)

    @classmethod
    def load(cls, folder: Path) -> StudyManifest:
        """Read the newest revision; raises UserError when the folder holds no plan, or one of another version or damaged."""
        path = folder / "plan.json"
        if not path.exists():
            near = nearest(folder.name, sorted(plan.parent.name for plan in folder.parent.glob("*/plan.json")))
            raise UserError(f"no study in {folder} (run it first: python -m ablations run {folder.name}){near}")
        value = atomic.read_json(path)
        try:
            return cls.from_json(value)
        except (KeyError, TypeError, AttributeError) as error:
            said = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise UserError(f"{path} is not a study plan of this version: {said}") from error

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> StudyManifest:
        body = {key: item for key, item in value.items() if key not in ("schema", "digest")}
        body["metrics"] = tuple(StudyMetric(**item) for item in body["metrics"])
        body["arms"] = tuple(Arm(**{**item, "overrides": tuple(item["overrides"])}) for item in body["arms"])
        body["cells"] = tuple(Cell(**{**item, "overrides": tuple(item["overrides"])}) for item in body["cells"])
        body["seeds"] = tuple(body["seeds"])
        return cls(**body)
