"""Which classes a data set really has: absent ones, rare ones, and those that a split lacks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from pipeline.data.types import SPLITS

RARE_IMAGES = 5  # fewer than so many images and numbers of a class rest on single pictures


def lacking(classes_of: Mapping[str, Collection[str]], splits: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """{split: classes that occur elsewhere and not in it}, from each sample's classes by key; only splits that lack any."""
    found = {split: {name for key in keys for name in classes_of.get(key, ())} for split, keys in splits.items()}
    every = sorted(set().union(*found.values())) if found else []
    absent = {split: [name for name in every if name not in found[split]] for split in SPLITS if split in found}
    return {split: names for split, names in absent.items() if names}


def rare(images: Mapping[str, int], classes: Sequence[str]) -> list[str]:
    """ "hat (2 images)", ... of the classes that occur in fewer than `RARE_IMAGES` images, in the order of the classes."""
    few = [name for name in classes if 0 < images.get(name, 0) < RARE_IMAGES]
    return [f"{name} ({images[name]} image{'s' if images[name] > 1 else ''})" for name in few]


def said(absent: Mapping[str, Sequence[str]]) -> str:
    """ "test: hat, scarf; val: hat", for people."""
    return "; ".join(f"{split}: {shortened(names)}" for split, names in absent.items())


def shortened(names: Sequence[str], shown: int = 8) -> str:
    """The first names, and that there are more."""
    return ", ".join(names[:shown]) + (", ..." if len(names) > shown else "")
