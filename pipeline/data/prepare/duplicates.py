"""Duplicate photos: found by what they look like, and kept out of different splits.

CelebAMask-HQ has at least 13 pairs of the same photo; one of a pair in train and the other in test is a leak.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.data.prepare.sample import PreparedSample

_MIN_SET_BITS, _MAX_SET_BITS = 16, 240  # fewer or more bits of 256: a flat picture, of which the hash says nothing
_STRICTEST_FIRST = ("test", "val", "train")


def duplicate_groups(samples: Sequence[PreparedSample]) -> list[list[str]]:
    """Groups (two or more, sorted) of keys whose photos are the same picture: equal bytes, or equal difference hash."""
    return group_by_look([(s.key, s.look, s.photo_sha256) for s in samples])


def group_by_look(photos: Sequence[tuple[str, str, str]]) -> list[list[str]]:
    """As `duplicate_groups`, from (key, difference hash, sha256 of the file)."""
    groups: dict[str, list[str]] = {}
    for key, look, digest in sorted(photos):
        bits = int(look, 16).bit_count()
        name = look if _MIN_SET_BITS <= bits <= _MAX_SET_BITS else digest
        groups.setdefault(name, []).append(key)
    return [keys for keys in groups.values() if len(keys) > 1]


def keep_apart(
    splits: Mapping[str, Sequence[str]], groups: Sequence[Sequence[str]]
) -> tuple[dict[str, list[str]], list[dict[str, str]]]:
    """(splits, removals): a photo whose duplicate is in a stricter split (test before val before train) is taken out.

    Splits that are the same list on purpose (val is test where a data set has two parts) are left alike.
    """
    place = {key: number for number, keys in enumerate(groups) for key in keys}
    cleaned = {name: list(keys) for name, keys in splits.items()}
    removed: list[dict[str, str]] = []
    held: dict[int, str] = {}
    for name in _STRICTEST_FIRST:
        stricter = dict(held)
        kept = []
        for key in splits.get(name, ()):
            group = place.get(key)
            if group is not None and group in stricter and key not in splits[stricter[group]]:
                removed.append({"key": key, "split": name, "duplicate_in": stricter[group]})
                continue
            if group is not None:
                held.setdefault(group, name)
            kept.append(key)
        cleaned[name] = kept
    return cleaned, removed
