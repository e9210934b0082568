"""Designs: from factors and levels to the arms of a study.

`one_at_a_time` changes one factor of the reference at a time; `factorial` crosses all (or a declared fraction);
`leave_one_out` takes one component away at a time; `cumulative` starts with no component changed and changes one more each
step; `list` names its arms. Arms named beside factors (a baseline, another family) stand below those of the design, have no levels,
and enter neither its analysis of variance nor its interactions.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

from ablations.study import Level, Study
from pipeline.errors import UserError
from pipeline.records.manifest import Arm

REFERENCE = "reference"
Levels = dict[str, str]  # factor -> level; a factor that does not enter is absent


def arms_of(study: Study) -> tuple[Arm, ...]:
    """The arms in table order, the reference first.

    Raises UserError when conditions or exclusions leave none, or leave a level out that nobody excluded.
    """
    if study.design == "list":
        return _listed(study)
    reference = _entering(study, {name: factor.reference for name, factor in study.factors.items()})
    seen: dict[tuple[tuple[str, str], ...], Levels] = {}
    reached: set[tuple[str, str]] = set()  # levels that the design comes to, those that an exclusion names too
    for levels in _DESIGNS[study.design](study):
        levels = _entering(study, levels)
        if not _exists(study, levels):
            continue
        reached.update(levels.items())
        if not _excluded(study, levels):
            seen.setdefault(tuple(levels.items()), levels)
    if tuple(reference.items()) not in seen:
        raise UserError(
            f"study {study.name}: the reference arm {_text(reference)} is excluded or its conditions do not hold"
        )
    _refuse_unreached(study, reached)
    if len(seen) < 2:
        raise UserError(f"study {study.name}: exclusions and conditions leave only the reference arm")
    ordered = sorted(seen.values(), key=lambda levels: levels != reference)  # stable: the reference first
    arms = tuple(_arm(study, levels, reference) for levels in ordered)
    for arm in arms:
        if arm.name in study.arms:
            raise UserError(
                f"study {study.name}: an arm beside the design is named {arm.name!r}, as one of the design is"
            )
    return (*arms, *_listed(study))


def _refuse_unreached(study: Study, reached: set[tuple[str, str]]) -> None:
    """A level that the file writes and no arm has would be missing without a word: only an exclusion says so itself."""
    levels = [(name, level) for name, factor in study.factors.items() for level in factor.levels]
    lost = [f"{name}={level}" for name, level in levels if (name, level) not in reached]
    if lost:
        keeping = "fraction or conditions (when) keep" if study.fraction else "conditions (when) keep"
        raise UserError(
            f"study {study.name}: no arm has {', '.join(lost)}: {keeping} that out of every arm of design {study.design}; take it "
            "away, change them or the design, or write it as an arm beside the design (arms)"
        )


def _one_at_a_time(study: Study) -> Iterator[Levels]:
    reference = {name: factor.reference for name, factor in study.factors.items()}
    yield reference
    for name, factor in study.factors.items():
        for level in factor.levels:
            yield {**reference, name: level}


def _factorial(study: Study) -> Iterator[Levels]:
    names = list(study.factors)
    order = {name: list(factor.levels) for name, factor in study.factors.items()}
    for combination in itertools.product(*order.values()):
        levels = dict(zip(names, combination, strict=True))
        index = {name: order[name].index(level) for name, level in levels.items()}
        if all(
            index[target] == sum(index[source] for source in sources) % len(order[target])
            for target, sources in study.fraction.items()
        ):
            yield levels


def _cumulative(study: Study) -> Iterator[Levels]:
    levels = {name: factor.reference for name, factor in study.factors.items()}
    yield dict(levels)
    for name, factor in study.factors.items():
        levels[name] = next(level for level in factor.levels if level != factor.reference)
        yield dict(levels)


_DESIGNS: dict[str, Callable[[Study], Iterator[Levels]]] = {
    "one_at_a_time": _one_at_a_time,
    "leave_one_out": _one_at_a_time,  # the same walk; the study file grants that each factor is with / without
    "factorial": _factorial,
    "cumulative": _cumulative,
}


def _listed(study: Study) -> tuple[Arm, ...]:
    arms = [
        Arm(name, level.label or name, {}, level.overrides, reference=name == study.reference)
        for name, level in study.arms.items()
    ]
    return tuple(sorted(arms, key=lambda arm: not arm.reference))


def _holds(condition: dict[str, tuple[str, ...]], levels: Levels) -> bool:
    return all(levels.get(factor) in allowed for factor, allowed in condition.items())


def _entering(study: Study, levels: Levels) -> Levels:
    """Drop the factors whose condition does not hold: combinations that differ in them alone are one arm.

    What is dropped meets no condition either, so others may have to follow.
    """
    kept = {name: level for name, level in levels.items() if _holds(study.factors[name].when, levels)}
    return kept if kept == levels else _entering(study, kept)


def _exists(study: Study, levels: Levels) -> bool:
    return all(_holds(study.factors[name].levels[level].when, levels) for name, level in levels.items())


def _excluded(study: Study, levels: Levels) -> bool:
    return any(_holds(exclusion, levels) for exclusion in study.exclusions)


def _arm(study: Study, levels: Levels, reference: Levels) -> Arm:
    overrides = tuple(
        override for name, level in levels.items() for override in study.factors[name].levels[level].overrides
    )
    if levels == reference:
        return Arm(REFERENCE, study.label, levels, overrides, reference=True)
    if study.design == "factorial":
        return Arm(_text(levels), ", ".join(_label(study, *item) for item in levels.items()), levels, overrides)
    changed = {name: level for name, level in levels.items() if reference.get(name) != level}
    if study.design == "cumulative":
        last = list(changed)[-1]
        return Arm(f"+{_text({last: levels[last]})}", f"+ {_label(study, last, levels[last])}", levels, overrides)
    label = ", ".join(_label(study, *item) for item in changed.items())
    return Arm(_text(changed), label, levels, overrides)


def _label(study: Study, name: str, level: str) -> str:
    content: Level = study.factors[name].levels[level]
    return content.label or f"{name} = {level}"


def _text(levels: Levels) -> str:
    return ",".join(f"{name}={level}" for name, level in levels.items())
