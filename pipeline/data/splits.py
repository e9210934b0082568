"""Which sample is in which split: named rules, each a pure function of what is on disk.

`auto` resolves to the split a root brings with it (prepared split file, or train/val folders), to the published one
where all of CelebAMask-HQ is there, else to `holdout` (a lone image is shared by all splits). The rule that was applied
is part of the data fingerprint.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from pipeline.data.grouping import PATTERN, TABLE, groups_of
from pipeline.data.listing import Listing, SampleFiles
from pipeline.data.types import SPLITS, Split
from pipeline.errors import UserError
from pipeline.schema.data import DataConfig

Division = dict[Split, tuple[SampleFiles, ...]]
HOLDOUT_FRACTION = 0.2
_CELEBA_TRAIN_END, _CELEBA_VAL_END = 162_771, 182_638  # original CelebA indices, its own partition
_SEAN_TRAIN_END = 28_000


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key by which 2 comes before 10."""
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part)


def divide(cfg: DataConfig, listing: Listing, root: Path) -> tuple[str, Division]:
    """(rule applied, samples by split), limited to the config's counts. UserError where a split would be empty."""
    rule = _resolve(cfg, listing)
    if rule in listing.named_splits and cfg.group is None:
        return rule, _limited(cfg, rule, listing.named_splits[rule])
    everything = tuple(sorted((r for part in listing.parts.values() for r in part), key=lambda r: natural_key(r.key)))
    if not everything:
        raise UserError(f"{root}: no samples found ({listing.name})")
    if rule == "folders":
        splits = _folders(listing, root)
    elif rule == "holdout":
        splits = holdout(everything)
    elif rule == "group":
        if cfg.group is None:
            raise UserError(
                f"data.split=group: {root} was not prepared with groups; set data.group to {PATTERN}, or {TABLE}"
            )
        splits = grouped(everything, groups_of(cfg.group, [r.key for r in everything], "data.group"))
    elif rule == "share":
        splits = dict.fromkeys(SPLITS, everything)
    elif rule == "celebamask_28000_2000":
        splits = celebamask_28000_2000(everything)
    else:
        splits = celebamask_official(everything, root)
    return rule, _limited(cfg, rule, splits)


def _limited(cfg: DataConfig, rule: str, splits: Division) -> Division:
    """The splits cut to the config's counts; UserError where one is then empty."""
    limited: Division = {split: splits[split][: cfg.count_limit(split)] for split in SPLITS}
    for split in SPLITS:
        if not limited[split]:
            hint = "; data.split=share uses every image in every split (for trials only)" if rule == "holdout" else ""
            raise UserError(
                f"data={cfg.name}: the {split} split has no images (rule {rule}, "
                f"{len({r.key for s in SPLITS for r in splits[s]})} images found, "
                f"data.{split}_images={cfg.count_limit(split)}){hint}"
            )
    return limited


def _resolve(cfg: DataConfig, listing: Listing) -> str:
    if cfg.split != "auto":
        return cfg.split
    if cfg.group is not None:
        return "group"
    if listing.default_split is not None:
        return listing.default_split
    if "train" in listing.parts and ("val" in listing.parts or "test" in listing.parts):
        return "folders"
    if cfg.name == "celebamask_hq":
        numbers = {int(r.key) for part in listing.parts.values() for r in part if r.key.isdigit()}
        if len(numbers) == 30_000:
            return "celebamask_28000_2000"
    return "holdout" if sum(len(part) for part in listing.parts.values()) > 1 else "share"


def _folders(listing: Listing, root: Path) -> Division:
    """The root's own parts; of `val` and `test`, a missing one is the other (ADE20K and others have no public test labels)."""
    parts = listing.parts
    if "train" not in parts or not ("val" in parts or "test" in parts):
        raise UserError(f"{root}: split by folders needs train and val (or test); found {', '.join(parts)}")
    val = parts["val"] if "val" in parts else parts["test"]
    test = parts["test"] if "test" in parts else parts["val"]
    order = lambda listed: tuple(sorted(listed, key=lambda r: natural_key(r.key)))  # noqa: E731
    return {"train": order(parts["train"]), "val": order(val), "test": order(test)}


def holdout(listed: tuple[SampleFiles, ...]) -> Division:
    """A fifth (at least one image) is held out, chosen by the sha256 of the key, so that adding images moves few others.

    Half of what is held out is `val`, half `test`; a single held-out image is both. A set of one image has nothing
    to hold out.
    """
    ranked = sorted(listed, key=lambda r: hashlib.sha256(r.key.encode()).hexdigest())
    held = 0 if len(ranked) < 2 else max(1, round(HOLDOUT_FRACTION * len(ranked)))
    half = (held + 1) // 2
    chosen: dict[Split, list[SampleFiles]] = {
        "val": ranked[:half],
        "test": ranked[half:held] or ranked[:half],
        "train": ranked[held:],
    }
    return {split: tuple(sorted(chosen[split], key=lambda r: natural_key(r.key))) for split in SPLITS}


def grouped(listed: tuple[SampleFiles, ...], groups: Mapping[str, str]) -> Division:
    """As `holdout`, by whole groups: those of one group (by key) are in one split.

    A tenth each for `val` and `test`, of groups in the order of the sha256 of their names that do not make it twice a tenth; the
    smallest group where none is that small. Of two groups one is both `val` and `test`; UserError where there is only one.
    """
    sizes = Counter(groups[files.key] for files in listed)
    if len(sizes) < 2:
        raise UserError(f"split=group: all {len(listed)} samples are of one group ({next(iter(sizes), 'none')!r})")
    ranked = sorted(sizes, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    wanted = HOLDOUT_FRACTION / 2 * len(listed)
    held: dict[Split, set[str]] = {"val": set(), "test": set()}
    for split, chosen in held.items():
        left = [name for name in ranked if name not in held["val"] | held["test"]]
        count = 0
        kept = 2 if split == "val" and len(left) > 2 else 1  # of training, and of test
        for name in left[: len(left) - kept]:
            if count < wanted and count + sizes[name] <= 2 * wanted:
                chosen.add(name)
                count += sizes[name]
        if not chosen and len(left) > 1:
            chosen.add(min(left, key=lambda name: sizes[name]))
        if not chosen:
            held[split] = held["val"]
    of_train = set(ranked) - held["val"] - held["test"]
    names = {"train": of_train, **held}
    return {
        split: tuple(sorted((r for r in listed if groups[r.key] in names[split]), key=lambda r: natural_key(r.key)))
        for split in SPLITS
    }


def _by_number(listed: tuple[SampleFiles, ...], split_of) -> Division:  # type: ignore[no-untyped-def]
    chosen: dict[Split, list[SampleFiles]] = {"train": [], "val": [], "test": []}
    for files in listed:
        if not files.key.isdigit():
            raise UserError(
                f"{files.photo}: a CelebAMask-HQ split needs names that are image numbers (0.jpg .. 29999.jpg)"
            )
        chosen[split_of(int(files.key))].append(files)
    return {split: tuple(chosen[split]) for split in SPLITS}


def celebamask_28000_2000(listed: tuple[SampleFiles, ...]) -> Division:
    """SEAN's and (CA)2-SIS's split: images 0..27999 train, the rest test; `val` is test, as they keep no third part."""
    splits = _by_number(listed, lambda i: "train" if i < _SEAN_TRAIN_END else "test")
    splits["val"] = splits["test"]
    return splits


def celebamask_official(listed: tuple[SampleFiles, ...], root: Path) -> Division:
    """CelebA's own partition (24,183 / 2,993 / 2,824), through `CelebA-HQ-to-CelebA-mapping.txt` (columns idx, orig_idx, ...)."""
    table = root / "CelebA-HQ-to-CelebA-mapping.txt"
    if not table.is_file():
        raise UserError(f"{table} is missing: the official split needs the mapping file that comes with CelebAMask-HQ")
    original: dict[int, int] = {}
    for number, line in enumerate(table.read_text(encoding="utf-8").splitlines(), start=1):
        words = line.split()
        if len(words) < 2 or not words[0].isdigit():
            continue
        if not words[1].isdigit():
            raise UserError(f"{table}, line {number}: orig_idx {words[1]!r} is not a number")
        original[int(words[0])] = int(words[1])
    missing = [r.key for r in listed if r.key.isdigit() and int(r.key) not in original]
    if missing:
        raise UserError(
            f"{table}: no line for image {missing[0]}" + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
        )

    def split_of(index: int) -> Split:
        number = original[index]
        return "train" if number < _CELEBA_TRAIN_END else "val" if number < _CELEBA_VAL_END else "test"

    return _by_number(listed, split_of)
