"""Duplicate photos: found by what they look like, and kept out of different splits.

CelebAMask-HQ has at least 13 pairs of the same photo; one of a pair in train and the other in test is a leak.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from pipeline.data.prepare.sample import PreparedSample

_MIN_SET_BITS, _MAX_SET_BITS = 32, 224  # fewer or more bits of 256: a flat picture, of which the hash says nothing
_SAME_PICTURE_BITS = 12  # of 256: about what another JPEG quality changes; different faces differ in 34 to 200
_STRICTEST_FIRST = ("test", "val", "train")


def duplicate_groups(samples: Sequence[PreparedSample]) -> list[list[str]]:
    """Groups (two or more, sorted) of keys whose photos are the same picture: equal bytes, or a look that is all but equal."""
    return group_by_look([(s.key, s.look, s.photo_sha256) for s in samples])


def group_by_look(photos: Sequence[tuple[str, str, str]]) -> list[list[str]]:
    """As `duplicate_groups`, from (key, difference hash, sha256 of the file)."""
    ordered = sorted(photos)
    parent = list(range(len(ordered)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i, j in _candidates(ordered):
        parent[max(root(i), root(j))] = min(root(i), root(j))
    groups: dict[int, list[str]] = {}
    for i, (key, _, _) in enumerate(ordered):
        groups.setdefault(root(i), []).append(key)
    return [keys for keys in groups.values() if len(keys) > 1]


def _candidates(photos: Sequence[tuple[str, str, str]]) -> Iterator[tuple[int, int]]:
    """Pairs of places that are the same picture: equal files, or hashes that differ in few bits."""
    by_file: dict[str, int] = {}
    for j, (_, _, digest) in enumerate(photos):
        if digest in by_file:
            yield by_file[digest], j
        by_file.setdefault(digest, j)
    words = np.frombuffer(bytes.fromhex("".join(look for _, look, _ in photos)), dtype=np.uint64).reshape(
        len(photos), -1
    )
    set_bits = np.bitwise_count(words).sum(axis=1, dtype=np.int64)
    telling = np.flatnonzero((set_bits >= _MIN_SET_BITS) & (set_bits <= _MAX_SET_BITS))
    kept = words[telling]
    first = np.ascontiguousarray(kept[:, 0])  # a quarter of the bits sorts out nearly all
    for place, i in enumerate(telling):
        maybe = place + 1 + np.flatnonzero(np.bitwise_count(first[place + 1 :] ^ first[place]) <= _SAME_PICTURE_BITS)
        if maybe.size:
            distance = np.bitwise_count(kept[maybe] ^ kept[place]).sum(axis=1)
            yield from ((int(i), int(telling[k])) for k in maybe[distance <= _SAME_PICTURE_BITS])


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
