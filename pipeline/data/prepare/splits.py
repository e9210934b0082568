"""The splits a prepared root brings: every published one its images fill, by name, and which of them is the default."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.data.grouping import groups_of
from pipeline.data.listing import SampleFiles
from pipeline.data.prepare.sample import PreparedSample
from pipeline.data.splits import (
    Division,
    celebamask_28000_2000,
    celebamask_official,
    grouped,
    holdout,
    natural_key,
)
from pipeline.data.types import SPLITS

Rules = dict[str, dict[str, list[str]]]


def prepared_splits(
    name: str, samples: Sequence[PreparedSample], root: Path, group: str | None = None
) -> tuple[str, Rules]:
    """(name of the default rule, {rule: {split: keys in natural order}}).

    With a rule of groups (`grouping.groups_of`): `group`. Data sets with parts of their own: `folders`. CelebAMask-HQ: both
    published splits where the images fill them. Otherwise `holdout`, and for a lone image `share`.
    """
    parts = {sample.part for sample in samples}
    rules: Rules = {}
    listed = tuple(SampleFiles(s.key, root / s.photo, root / s.label, None) for s in samples)
    if group is not None:
        _add(rules, "group", grouped(listed, groups_of(group, [s.key for s in samples], "--group")))
    if "train" in parts and parts & {"val", "test"}:
        by_part = {part: _ordered([s.key for s in samples if s.part == part]) for part in parts}
        val, test = by_part.get("val") or by_part["test"], by_part.get("test") or by_part["val"]
        rules["folders"] = {"train": by_part["train"], "val": val, "test": test}
    if name == "celebamask_hq" and all(s.key.isdigit() for s in samples):
        _add(rules, "celebamask_28000_2000", celebamask_28000_2000(listed))
        if (root / "CelebA-HQ-to-CelebA-mapping.txt").is_file():
            _add(rules, "celebamask_official", celebamask_official(listed, root))
    if not rules:
        if len(samples) > 1:
            _add(rules, "holdout", holdout(listed))
        else:
            rules["share"] = {split: [s.key for s in samples] for split in SPLITS}
    return next(iter(rules)), rules


def _ordered(keys: list[str]) -> list[str]:
    return sorted(keys, key=natural_key)


def _add(rules: Rules, name: str, division: Division) -> None:
    """Add a rule, unless it leaves a split without images."""
    if all(division[split] for split in SPLITS):
        rules[name] = {split: _ordered([files.key for files in division[split]]) for split in SPLITS}
