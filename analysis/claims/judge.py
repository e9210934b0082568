"""Judging claims: supported, contradicted or undecided, and how many seeds a decision would take.

A claim is judged on pairs of arms that differ in nothing but what it is about, over the seeds both have, by the
hierarchical interval over seeds and test images. A superiority claim "better by at least d" is supported when the
advantage is shown to exceed d, contradicted when it is shown to stay below d; each side at alpha / 2, Holm-corrected
over all comparisons of the file, so that with a probability of 1 - alpha at least no verdict of a file is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Literal

from analysis.claims.spec import Claim, Selector, matches
from analysis.comparisons import paired_matrix
from analysis.judging import why_unjudged
from analysis.run_diff import config_of
from analysis.statistics.intervals import Interval, hierarchical_interval, seeds_to_decide
from analysis.statistics.tests import holm
from analysis.study import Study
from analysis.tables.gather import Gathered, Gatherer
from analysis.tables.layout import ColumnPlan
from pipeline.errors import UserError, nearest
from pipeline.records.metric_specs import SPECS, find_spec
from pipeline.schema.run import config_keys

Verdict = Literal["supported", "contradicted", "undecided", "not testable"]
NAMED = ("arm", "label")  # facts that say what an arm is called, not what it is
DATA = "data.digest"  # fact that tells data sets apart: where they lie is no part of a config
VERDICTS: tuple[Verdict, ...] = ("supported", "contradicted", "undecided", "not testable")


@dataclass(frozen=True)
class Evidence:
    """One comparison: two arms on one metric, as differences that are positive when the claim points the right way."""

    claim: str
    metric: str
    unit: str
    better: str  # arm
    worse: str
    seeds: tuple[int, ...]
    margin: float  # what the advantage has to exceed; for equivalence the half width
    percent: float  # the same as a share of the worse arm's value, taken off `interval` beforehand
    interval: Interval | None  # of the advantage, over that share of the worse arm's value; None below two seeds
    p_support: float | None = None  # Holm-corrected
    p_contradict: float | None = None
    verdict: Verdict = "undecided"
    reason: str = ""
    seeds_needed: int | None = None

    @property
    def advantage(self) -> float | None:
        """The mean advantage; with `percent`, what is left of it beyond that share."""
        return self.interval.estimate if self.interval is not None else None


@dataclass(frozen=True)
class Judgement:
    """A claim with its verdict and the comparisons it rests on."""

    claim: Claim
    verdict: Verdict
    reason: str
    evidence: tuple[Evidence, ...]


def judge(study: Study, claims: Iterable[Claim], *, alpha: float = 0.05, power: float = 0.8) -> list[Judgement]:
    """Judge every claim on a study's finished runs, in the order given.

    Raises UserError for a metric or a config key that no study can have: a claim that asks for it would pass unjudged.
    """
    claims = tuple(claims)
    facts = _facts(study)
    for claim in claims:
        _refuse_misspelled(study, claim, facts)
    gatherer = Gatherer(study)
    collected: list[tuple[Claim, list[Evidence], str]] = []
    for claim in claims:
        evidence, obstacle = _evidence(study, gatherer, claim, facts)
        collected.append((claim, evidence, obstacle))
    decided = _decide([item for _, evidence, _ in collected for item in evidence], collected, alpha, power)
    return [
        _judgement(claim, [decided[id(item)] for item in evidence], obstacle) for claim, evidence, obstacle in collected
    ]


def _refuse_misspelled(study: Study, claim: Claim, facts: Mapping[str, Mapping[str, Any]]) -> None:
    recorded = set(study.frame["metric"])
    for name in claim.metrics:
        if not any(letter in name for letter in "*?[") and name not in recorded and find_spec(name) is None:
            raise UserError(f"claim {claim.id}: unknown metric {name!r}{nearest(name, sorted({*recorded, *SPECS}))}")
    known = {key for of_arm in facts.values() for key in of_arm}
    asked = [key for key in (*claim.better, *claim.worse) if key not in known and not key.startswith("factor:")]
    if asked:  # of a family that this study has not, perhaps
        known |= config_keys()
    for key in asked:
        if key not in known:
            raise UserError(f"claim {claim.id}: no config has a key {key!r}{nearest(key, sorted(known))}")


def _facts(study: Study) -> dict[str, dict[str, Any]]:
    """What each arm is: flat config without the seed, factor levels, name and label.

    Rules and imported arms take part.
    """
    facts: dict[str, dict[str, Any]] = {}
    for arm in study.manifest.arms:
        names = {"arm": arm.name, "label": arm.label, **{f"factor:{key}": level for key, level in arm.levels.items()}}
        facts[arm.name] = {**_config(study, arm.name), **names}
    return facts


def _config(study: Study, arm: str) -> dict[str, Any]:
    for cell in study.manifest.cells:
        record = study.store.record(cell.run_id)
        if cell.arm == arm and record.exists:
            try:
                config = {key: value for key, value in config_of(record).items() if key != "seed"}
                return {**config, DATA: record.identity["data"]}
            except (UserError, KeyError):
                continue  # a damaged record; another seed of the arm says the same
    return {}


def _evidence(
    study: Study, gatherer: Gatherer, claim: Claim, facts: Mapping[str, Mapping[str, Any]]
) -> tuple[list[Evidence], str]:
    """The claim's comparisons, or the reason why there are none."""
    pairs, obstacle = comparable_pairs(claim, facts, study.reference.name if study.reference else None)
    if not pairs:
        return [], obstacle
    metrics = _metrics(study, claim)
    if not metrics:
        return [], _unrecorded(study, claim)
    found = [_compare(study, gatherer, claim, metric, pair) for metric in metrics for pair in pairs]
    evidence = [item for item in found if not isinstance(item, str)]
    obstacles = [item for item in found if isinstance(item, str)]
    return evidence, "; ".join(dict.fromkeys(obstacles))


def comparable_pairs(
    claim: Claim, facts: Mapping[str, Mapping[str, Any]], reference: str | None
) -> tuple[list[tuple[str, str]], str]:
    """(better, worse) arms that differ in what the claim is about alone; without any, the reason.

    `facts`: of each arm, its flat config beside its name, label and factor levels; `reference`: the study's reference arm.
    """
    better, worse = (_candidates(selector, facts, reference) for selector in (claim.better, claim.worse))
    if not better or not worse:
        side = "better" if not better else "worse"
        return [], f"no arm of the study is the {side} one ({_words(claim.better if not better else claim.worse)})"
    pairs, confounded = [], []
    for first in better:
        for second in worse:
            other = _confounds(claim, facts[first], facts[second])
            if other:
                confounded.append(f"{first} and {second} differ also in {', '.join(other[:4])}")
            elif first != second:
                pairs.append((first, second))
    return pairs, "" if pairs else "; ".join(confounded) or "the two selectors name the same arm"


def _candidates(selector: Selector, facts: Mapping[str, Mapping[str, Any]], reference: str | None) -> list[str]:
    """Arms that fit; where the study's reference arm is among them, it alone, and alone its like on each other data set."""
    fitting = [arm for arm, of_arm in facts.items() if matches(selector, of_arm)]
    if reference is None or reference not in fitting:
        return fitting
    like = {arm for arm in fitting if _config_but_data(facts[arm]) == _config_but_data(facts[reference])}
    covered = [facts[arm].get(DATA) for arm in like]
    return [arm for arm in fitting if arm in like or facts[arm].get(DATA) not in covered]


def _config_but_data(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in facts.items() if not key.startswith(("data.", "factor:")) and key not in NAMED}


def _confounds(claim: Claim, first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Config keys in which two arms differ although the claim is not about them."""
    keys = sorted(set(first) | set(second))
    return [
        key
        for key in keys
        if key not in NAMED
        and not key.startswith("factor:")
        and first.get(key) != second.get(key)
        and not claim.allows(key)
    ]


def _metrics(study: Study, claim: Claim) -> list[str]:
    home = study.frame[
        (study.frame["protocol"] == study.manifest.protocol)
        & (study.frame["split"] == study.manifest.split)
        & (study.frame["status"] == "ok")
    ]
    names = sorted(set(home["metric"]))
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in claim.metrics)]


def _unrecorded(study: Study, claim: Claim) -> str:
    """Why none of the claim's metrics has a value: never evaluated, or the reason that the records give."""
    rows = study.frame[study.frame["status"].isin(["unavailable", "not_applicable", "invalid"])]
    reasons = [
        f"{metric} is {status.replace('_', ' ')}: {reason}"
        for metric, status, reason in rows[["metric", "status", "reason"]]
        .drop_duplicates()
        .itertuples(index=False, name=None)
        if any(fnmatchcase(metric, pattern) for pattern in claim.metrics)
    ]
    return reasons[0] if reasons else f"{', '.join(claim.metrics)}: not recorded in this study"


def _compare(study: Study, gatherer: Gatherer, claim: Claim, metric: str, pair: tuple[str, str]) -> Evidence | str:
    """One comparison, or why it cannot be made."""
    planned = next((item.direction for item in study.metrics if item.name == metric), "")
    column = ColumnPlan(
        metric, metric, metric, "metric", "", "", study.manifest.protocol, study.manifest.split, planned, "", None
    )
    fingerprint = gatherer.settle_fingerprint(pair, column)
    first, second = (gatherer.gather(arm, column, fingerprint) for arm in pair)
    seeds = tuple(sorted(set(first.values) & set(second.values)))
    if not seeds:
        return f"{metric}: {_without(pair, (first, second))}"
    unjudged = why_unjudged(study, metric, pair)
    if unjudged:
        return f"{metric}: {unjudged}"
    direction = planned if planned in ("max", "min") else next(iter(first.directions), "none")
    if direction not in ("max", "min"):
        return f"{metric} has no direction: nothing can be better"
    sign = -1.0 if direction == "min" else 1.0
    # "better by p percent" is linear too: the worse arm's value is scaled before the difference is taken
    scale = 1.0 + sign * claim.at_least_percent / 100.0
    values = {pair[0]: first.values, pair[1]: second.values}
    matrix = sign * paired_matrix(study, metric, pair[0], pair[1], seeds, values, fingerprint, scale=scale)
    margin = claim.within if claim.within is not None else claim.at_least
    unit = next(iter(first.units), "")
    interval = hierarchical_interval(matrix) if len(seeds) > 1 else None
    return Evidence(claim.id, metric, unit, *pair, seeds, margin, claim.at_least_percent, interval)


def _without(pair: tuple[str, str], gathered: tuple[Gathered, Gathered]) -> str:
    for arm, item in zip(pair, gathered, strict=True):
        if not item.values:
            reason = next((text for _, text in item.defects.values()), "no run")
            return f"{arm} has no value ({reason})"
    return f"{pair[0]} and {pair[1]} share no seed"


def _decide(
    evidence: list[Evidence], collected: list[tuple[Claim, list[Evidence], str]], alpha: float, power: float
) -> dict[int, Evidence]:
    """Verdicts of all comparisons, by id of the undecided evidence: p-values are corrected over the whole file."""
    claims = {claim.id: claim for claim, _, _ in collected}
    testable = [item for item in evidence if item.interval is not None]
    raw = [p_values(item.interval, claims[item.claim], item.margin) for item in testable if item.interval is not None]
    support, contradict = (holm([pair[side] for pair in raw]) for side in (0, 1))
    decided = {id(item): replace(item, reason="one seed: training noise is unknown") for item in evidence}
    for item, p_support, p_contradict in zip(testable, support, contradict, strict=True):
        assert item.interval is not None, "filtered above"
        verdict: Verdict = "undecided"
        if p_support < alpha / 2:
            verdict = "supported"
        elif p_contradict < alpha / 2:
            verdict = "contradicted"
        level = alpha / 2 / len(testable)  # the strictest step of Holm's: a planner's
        needed = (
            _needed(item.interval, claims[item.claim], item.margin, level, power) if verdict == "undecided" else None
        )
        decided[id(item)] = replace(
            item, p_support=p_support, p_contradict=p_contradict, verdict=verdict, seeds_needed=needed
        )
    return decided


def p_values(interval: Interval, claim: Claim, margin: float) -> tuple[float, float]:
    """One-sided p-values against the claim's truth and for its falsehood: (for support, for contradiction)."""
    return interval.p_beyond(margin) if claim.kind == "superiority" else interval.p_within(margin)


def _needed(interval: Interval, claim: Claim, margin: float, beyond: float, power: float) -> int | None:
    """Seeds that would decide the claim at level `beyond`, were the observed advantage the true one; None: no number would."""
    if claim.kind == "superiority":
        return seeds_to_decide(interval, abs(interval.estimate - margin), beyond=beyond, power=power)
    distance = margin - abs(interval.estimate)
    if distance > 0:  # shown from both sides: each is missed half as often
        return seeds_to_decide(interval, distance, beyond=beyond, power=(1 + power) / 2)
    return seeds_to_decide(interval, -distance, beyond=beyond / 2, power=power)


def _judgement(claim: Claim, evidence: list[Evidence], obstacle: str) -> Judgement:
    """All comparisons must support a claim; one that contradicts it is enough against it."""
    if not evidence:
        return Judgement(claim, "not testable", obstacle, ())
    verdicts = {item.verdict for item in evidence}
    if "contradicted" in verdicts:
        return Judgement(claim, "contradicted", "", tuple(evidence))
    if verdicts == {"supported"} and not obstacle:
        return Judgement(claim, "supported", "", tuple(evidence))
    return Judgement(claim, "undecided", obstacle, tuple(evidence))


def _words(selector: Selector) -> str:
    return ", ".join(
        f"{key} {value}" if str(value)[:1] in "<>!" else f"{key} = {value}" for key, value in selector.items()
    )
