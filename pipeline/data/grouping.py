"""Which samples belong together, such as the frames of one video: by a pattern of their names, or by a table."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from pipeline.data.tables import read_table
from pipeline.errors import UserError

PATTERN, TABLE = "a regular expression with one pair of brackets, such as '^(.+)_[0-9]+$'", "a .csv file (name,group)"


def groups_of(rule: str, keys: Iterable[str], option: str) -> dict[str, str]:
    """The group of every key by `rule`: what the brackets of a pattern match in it, or what a CSV file says of it.

    `option` is what the rule was given as, for messages. UserError: a rule that is neither, a key it says nothing of.
    """
    table = _table(Path(rule), option) if rule.endswith(".csv") else None
    pattern = None if table is not None else _pattern(rule, option)
    found: dict[str, str] = {}
    for key in keys:
        group = table.get(key) if table is not None else None
        if pattern is not None and (match := pattern.search(key)) is not None:
            group = match[1]
        if group is None:
            raise UserError(f"{option} {rule}: says nothing of the sample {key!r}; every sample needs a group")
        found[key] = group
    return found


def _pattern(rule: str, option: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(rule)
    except re.error as error:
        raise UserError(f"{option} {rule}: not a regular expression ({error}); give {PATTERN}, or {TABLE}") from error
    if pattern.groups != 1:
        raise UserError(f"{option} {rule}: has {pattern.groups} pairs of brackets; give {PATTERN}, or {TABLE}")
    return pattern


def _table(path: Path, option: str) -> dict[str, str]:
    rows = read_table(path, ("name", "group"), f"{option} {path}")
    return {Path(row["name"]).stem if "." in row["name"] else row["name"]: row["group"] for row in rows}
