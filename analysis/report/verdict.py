"""What the records say about a study's question, in sentences that claim no more than the data support."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from analysis.comparisons import Comparison
from analysis.figures.study_data import Estimate, MetricInfo, StudyData, seeds_in_words
from analysis.figures.style import number

Tone = Literal["better", "worse", "same", "untested", "note"]
ALPHA = 0.05


@dataclass(frozen=True)
class Finding:
    """One sentence of the verdict, with the arm it is about ("" for none)."""

    tone: Tone
    arm: str
    text: str


@dataclass(frozen=True)
class Verdict:
    """`lead` in one or two sentences, then findings arm by arm, then how they were decided."""

    lead: str
    findings: tuple[Finding, ...]
    rule: str


def decide(item: Comparison, *, over_seeds: bool) -> Tone:
    """Better or worse only when the data say so: corrected p below 0.05, or, in a study of one seed, an interval without zero.

    `over_seeds`: some arm of the study has a test over seeds. One without is then untested: its interval is over images alone
    and would be held to a lower standard than the others.
    """
    if item.direction == "none":
        return "note"
    if item.p_holm is None and over_seeds:
        return "untested"
    by_interval = item.interval is not None and item.interval.excludes(0.0)
    if not (by_interval if item.p_holm is None else item.p_holm < ALPHA):
        return "same"
    return "better" if item.advantage > 0 else "worse"


def write_verdict(data: StudyData) -> Verdict:
    """Judge the primary metric: who is best, every arm against the reference, and who fails to beat a trivial baseline."""
    metric = data.primary
    if metric is None:
        return Verdict("The study declares no primary metric, so there is nothing to judge it by.", (), "")
    found = data.estimates[metric.name]
    if not found:
        return Verdict(f"No finished run has a value of {metric.label}: nothing can be concluded yet.", (), "")
    if metric.name in data.unjudged:
        return Verdict(f"{metric.label} decides nothing: {data.unjudged[metric.name]}.", (), "")
    tones = _tones(data, metric)
    findings = [_against_reference(data, metric, item, tone) for item, tone in tones]
    findings += _against_trivial(data, metric)
    missing = [data.labels[arm] for arm in data.arms if arm not in found]
    if missing:
        findings.append(Finding("note", "", f"Without a value of {metric.label}: {', '.join(missing)}."))
    return Verdict(_lead(data, metric, [tone for _, tone in tones]), tuple(findings), _rule(tones) if tones else "")


def _tones(data: StudyData, metric: MetricInfo) -> list[tuple[Comparison, Tone]]:
    """Every learned arm against the reference, all by the same rule."""
    items = [item for arm, item in data.comparisons[metric.name].items() if arm not in data.trivial]
    over_seeds = any(item.p_holm is not None for item in items)
    return [(item, decide(item, over_seeds=over_seeds)) for item in items]


def _lead(data: StudyData, metric: MetricInfo, tones: list[Tone]) -> str:
    found = {arm: item for arm, item in data.estimates[metric.name].items() if arm not in data.trivial}
    if not found:
        return f"Only trivial baselines have a value of {metric.label}: no learned arm can be judged."
    if len(found) == 1 or metric.direction == "none":
        values = "; ".join(f"{data.labels[arm]} {_of_seeds(item, metric)}" for arm, item in found.items())
        return f"{metric.label}: {values}."
    sign = -1 if metric.direction == "min" else 1
    best = max(found, key=lambda arm: sign * found[arm].mean)
    among = " of the learned arms" if data.trivial else ""
    lead = f"{data.labels[best]} has the best {metric.label}{among}: {_of_seeds(found[best], metric)}."
    if data.reference is None:
        return lead
    counts = [
        f"{tones.count(tone)} {words}"
        for tone, words in (
            ("better", "clearly better"),
            ("worse", "clearly worse"),
            ("same", "not distinguishable from it"),
            ("untested", "undecided (n = 1)"),
        )
        if tone in tones
    ]
    if not counts:
        return lead
    return f"{lead} Against {data.labels[data.reference]}, of {len(tones)} other arms: {', '.join(counts)}."


def _against_reference(data: StudyData, metric: MetricInfo, item: Comparison, tone: Tone) -> Finding:
    arm, reference = data.labels[item.arm], data.labels[item.reference]
    words = {
        "better": f"{arm} is better than {reference}",
        "worse": f"{arm} is worse than {reference}",
        "same": f"{arm} cannot be told apart from {reference}",
        "untested": f"{arm} against {reference} is undecided (n = 1)",
        "note": f"{arm} differs from {reference}",
    }[tone]
    unit = f" {metric.unit}" if metric.unit else ""
    text = f"{words}: {number(item.difference, 3, sign=True)}{unit}"
    if item.interval is not None:
        low, high = number(item.interval.lower, 3, sign=True), number(item.interval.upper, 3, sign=True)
        over = " over test images" if len(item.seeds) == 1 else ""
        text += f", 95 % interval{over} {low} to {high}"
    if item.p_holm is not None:
        text += f", p = {number(item.p_holm, 2)}"
    return Finding(tone, item.arm, f"{text}, {seeds_in_words([len(item.seeds)])}.")


def _against_trivial(data: StudyData, metric: MetricInfo) -> list[Finding]:
    """What does not beat a baseline that learns nothing is said plainly."""
    if metric.direction == "none":
        return []
    sign = -1 if metric.direction == "min" else 1
    found = data.estimates[metric.name]
    findings = []
    for trivial in data.arms:
        if trivial not in data.trivial or trivial not in found:
            continue
        level = found[trivial].mean
        losers = [arm for arm in found if arm not in data.trivial and sign * found[arm].mean <= sign * level]
        learned = [arm for arm in found if arm not in data.trivial]
        if not learned:
            continue
        counts = seeds_in_words([found[arm].seeds for arm in losers or learned])
        beaten = f"the trivial {data.labels[trivial]} ({_value(level, metric)}), {counts}"
        if losers and losers == learned and len(learned) > 1:
            findings.append(Finding("worse", "", f"None of the {len(learned)} learned arms beats {beaten}."))
        elif losers:
            verb = "does" if len(losers) == 1 else "do"
            text = f"{', '.join(data.labels[arm] for arm in losers)} {verb} not beat {beaten}."
            findings.append(Finding("worse", losers[0] if len(losers) == 1 else "", text))
        else:
            findings.append(Finding("note", trivial, f"Every learned arm beats {beaten}."))
    return findings


def _rule(tones: list[tuple[Comparison, Tone]]) -> str:
    """How the findings were decided, in words."""
    if all(item.p_holm is None for item, _ in tones):
        return (
            "With one seed, an arm counts as better or worse when the 95 % interval over test images leaves out zero. That "
            "says nothing about training noise: another seed may turn it round."
        )
    untested = any(tone == "untested" for _, tone in tones)
    return (
        f"An arm counts as better or worse when its paired test over seeds gives p < {ALPHA} after Holm's correction over "
        "the arms; everything else is called undecided, however large the difference looks."
        + (" One seed shared with the reference (n = 1) allows no such test." if untested else "")
    )


def _of_seeds(item: Estimate, metric: MetricInfo) -> str:
    return f"{_value(item.mean, metric)} ({seeds_in_words([item.seeds])})"


def _value(value: float, metric: MetricInfo) -> str:
    return f"{number(value)}{f' {metric.unit}' if metric.unit else ''}"
