"""Claims: the right verdict on studies whose truth is known, fair pairs only, and files that say what is wrong with them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.claims import Claim, Judgement, judge, load_claims
from analysis.claims.judge import p_values
from analysis.claims.spec import SHIPPED, matches
from analysis.commands.claims import describe
from analysis.frame import load_study
from analysis.statistics import hierarchical_interval
from pipeline.errors import UserError
from tests.analysis.synthetic import Metric, SyntheticArm, make_study

PSNR = Metric("psnr", "max", "dB", 20.0, 0.3, 1.0, 0.1, 0.3, role="primary")
PHOTOS = SHIPPED.with_name("claims_photos.yaml")
ERROR = Metric("error", "min", "", 1.0, 0.05, 0.2, 0.02, 0.05)
CLAIM = Claim(id="x", says="a beats b", metric="psnr", better={"arm": "a"}, worse={"arm": "b"}, may_differ=["model.*"])


def arms(effect: float, metric: str = "psnr") -> tuple[SyntheticArm, SyntheticArm]:
    return SyntheticArm("a", effects={metric: effect}), SyntheticArm("b")


def judged(out: Path, claim: Claim, **study: object) -> Judgement:
    make_study(out, metrics=(PSNR, ERROR), history=False, costs=False, **study)  # type: ignore[arg-type]
    return judge(load_study(out, "synthetic"), [claim])[0]


# -- verdicts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("effect", "verdict"), [(1.0, "supported"), (-1.0, "contradicted")])
def test_a_clear_effect_is_decided(tmp_path: Path, effect: float, verdict: str) -> None:
    found = judged(tmp_path, CLAIM, arms=arms(effect), seeds=(0, 1, 2, 3, 4))
    assert found.verdict == verdict
    evidence = found.evidence[0]
    assert evidence.advantage == pytest.approx(effect, abs=0.4)
    assert evidence.seeds == (0, 1, 2, 3, 4)


def test_lower_is_better_turns_the_sign(tmp_path: Path) -> None:
    claim = CLAIM.model_copy(update={"metric": "error"})
    found = judged(tmp_path, claim, arms=arms(-0.5, "error"), seeds=(0, 1, 2, 3))
    assert found.verdict == "supported"
    assert (found.evidence[0].advantage or 0) > 0


def test_a_verdict_follows_from_the_values_alone(tmp_path: Path) -> None:
    """Not from what the claim or the study is called: nothing is drawn."""
    make_study(tmp_path, metrics=(PSNR, ERROR), arms=arms(0.3), seeds=(0, 1, 2), history=False, costs=False)
    names = [CLAIM.model_copy(update={"id": name}) for name in "abcdef"]
    found = [judge(load_study(tmp_path, "synthetic"), [claim])[0].evidence[0] for claim in names]
    assert len({(item.p_support, item.interval) for item in found}) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": "psnrr"}, r"claim x: unknown metric 'psnrr' \(did you mean psnr "),
        (
            {"better": {"model.familly": "ca2sis"}},
            r"claim x: no config has a key 'model.familly' \(did you mean model.family",
        ),
    ],
)
def test_a_claim_that_no_study_could_test_is_refused(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        judged(tmp_path, CLAIM.model_copy(update=changes), arms=arms(0.3), seeds=(0, 1))


def test_a_key_of_a_family_that_the_study_has_not_is_no_mistake(tmp_path: Path) -> None:
    claim = CLAIM.model_copy(update={"better": {"model.attention.masking": "access"}})
    assert judged(tmp_path, claim, arms=arms(0.3), seeds=(0, 1)).verdict == "not testable"


def test_a_metric_asked_for_twice_is_one_comparison(tmp_path: Path) -> None:
    claim = CLAIM.model_copy(update={"metric": ["psnr", "psn*"]})
    assert len(judged(tmp_path, claim, arms=arms(0.3), seeds=(0, 1)).evidence) == 1


def test_a_plan_recorded_upside_down_turns_no_claim(tmp_path: Path) -> None:
    """A plan of before directions had one home could say that less PSNR is better."""
    upside_down = dataclasses.replace(PSNR, direction="min")
    make_study(tmp_path, metrics=(upside_down,), arms=arms(1.0), seeds=(0, 1, 2, 3, 4), history=False)
    found = judge(load_study(tmp_path, "synthetic"), [CLAIM])[0]
    assert found.verdict == "supported" and (found.evidence[0].advantage or 0) > 0


def test_a_margin_larger_than_the_effect_contradicts(tmp_path: Path) -> None:
    claim = CLAIM.model_copy(update={"at_least": 3.0})
    assert judged(tmp_path, claim, arms=arms(1.0), seeds=(0, 1, 2, 3, 4)).verdict == "contradicted"


def test_a_margin_in_percent_is_of_the_worse_arm(tmp_path: Path) -> None:
    # about 21 against 20: 5 percent more
    make_study(tmp_path, metrics=(PSNR,), arms=arms(1.0), seeds=(0, 1, 2, 3, 4), history=False)
    study = load_study(tmp_path, "synthetic")
    verdicts = [
        judge(study, [CLAIM.model_copy(update={"at_least_percent": percent})])[0].verdict for percent in (2.0, 9.0)
    ]
    assert verdicts == ["supported", "contradicted"]
    shown = describe(judge(study, [CLAIM.model_copy(update={"at_least_percent": 9.0})]))
    assert "advantage beyond 9 % of b -" in shown
    frame = study.frame[(study.frame.metric == "psnr") & (study.frame.status == "ok")]
    wide = frame.pivot(index="seed", columns="arm", values="value").astype(float)
    evidence = judge(study, [CLAIM.model_copy(update={"at_least_percent": 2.0})])[0].evidence[0]
    assert evidence.advantage == pytest.approx((wide["a"] - 1.02 * wide["b"]).mean())


def test_equivalence_needs_evidence_of_its_own(tmp_path: Path) -> None:
    claim = Claim(
        id="same", says="", metric="psnr", kind="equivalence", better={"arm": "a"}, worse={"arm": "b"},
        may_differ=["model.*"], within=1.0,
    )  # fmt: skip
    seeds = (0, 1, 2, 3, 4, 5)
    assert judged(tmp_path / "same", claim, arms=arms(0.0), seeds=seeds).verdict == "supported"
    assert judged(tmp_path / "other", claim, arms=arms(3.0), seeds=seeds).verdict == "contradicted"
    narrow = claim.model_copy(update={"within": 0.02})
    assert judged(tmp_path / "narrow", narrow, arms=arms(0.0), seeds=seeds).verdict == "undecided"


def test_one_seed_decides_nothing(tmp_path: Path) -> None:
    found = judged(tmp_path, CLAIM, arms=arms(5.0), seeds=(0,))
    assert found.verdict == "undecided"
    assert found.evidence[0].reason == "one seed: training noise is unknown"


def test_undecided_says_how_many_seeds_it_would_take(tmp_path: Path) -> None:
    claim = CLAIM.model_copy(update={"at_least": 0.25})
    found = judged(tmp_path / "seeds", claim, arms=arms(0.5), seeds=(0, 1, 2))
    assert found.verdict == "undecided" and "about 20 seeds would decide" in describe([found])
    found = judged(tmp_path / "images", claim, arms=arms(0.3), seeds=(0, 1, 2))  # 12 images have more noise than this
    assert found.verdict == "undecided" and "it takes more test images" in describe([found])


def test_a_claim_on_several_metrics_needs_all_of_them(tmp_path: Path) -> None:
    claim = CLAIM.model_copy(update={"metric": ["psnr", "error"]})
    both = SyntheticArm("a", effects={"psnr": 1.0, "error": -0.5})
    one = SyntheticArm("a", effects={"psnr": 1.0, "error": 0.5})
    seeds = (0, 1, 2, 3, 4)
    assert judged(tmp_path / "both", claim, arms=(both, SyntheticArm("b")), seeds=seeds).verdict == "supported"
    assert judged(tmp_path / "one", claim, arms=(one, SyntheticArm("b")), seeds=seeds).verdict == "contradicted"


@pytest.mark.parametrize(("effect", "wanted"), [(0.8, "supported"), (-0.8, "contradicted"), (0.0, "undecided")])
def test_verdicts_come_out_right_in_95_percent_of_studies(effect: float, wanted: str) -> None:
    """Simulated paired differences of 5 seeds on 16 images, 400 studies; for no effect the claim is true of nothing."""
    generator = np.random.default_rng(20)
    right = 0
    for _ in range(400):
        matrix = (
            effect
            + generator.normal(0, 0.15, size=(5, 1))
            + generator.normal(0, 0.4, size=(1, 16))
            + generator.normal(0, 0.3, size=(5, 16))
        )
        support, contradict = p_values(hierarchical_interval(matrix), CLAIM, 0.0)
        verdict = "supported" if support < 0.025 else "contradicted" if contradict < 0.025 else "undecided"
        right += verdict == wanted
    assert right / 400 >= 0.95


def test_whole_studies_come_out_right(tmp_path: Path) -> None:
    """The same through files and commands: three claims, true, false and empty, on repeated studies."""
    claims = [
        CLAIM.model_copy(update={"id": "true", "better": {"arm": "good"}, "worse": {"arm": "plain"}}),
        CLAIM.model_copy(update={"id": "false", "better": {"arm": "bad"}, "worse": {"arm": "plain"}}),
        CLAIM.model_copy(update={"id": "empty", "better": {"arm": "same"}, "worse": {"arm": "plain"}}),
    ]
    three = [
        SyntheticArm("good", effects={"psnr": 1.2}),
        SyntheticArm("bad", effects={"psnr": -1.2}),
        SyntheticArm("same"),
        SyntheticArm("plain", reference=True),
    ]
    right = 0
    for seed in range(8):
        out = tmp_path / str(seed)
        make_study(out, arms=three, metrics=(PSNR,), seeds=range(5), seed=seed, history=False, costs=False, images=16)
        verdicts = [item.verdict for item in judge(load_study(out, "synthetic"), claims)]
        right += sum(a == b for a, b in zip(verdicts, ("supported", "contradicted", "undecided"), strict=True))
    assert right >= 0.95 * 24


# -- which arms are compared -------------------------------------------------------------------------------------------


def test_arms_that_differ_in_more_than_the_claim_are_not_compared(tmp_path: Path) -> None:
    claim = CLAIM.model_copy(update={"may_differ": []})
    found = judged(tmp_path, claim, arms=arms(1.0))
    assert found.verdict == "not testable"
    assert found.reason == "a and b differ also in model.family"


def test_arms_are_found_by_their_config(tmp_path: Path) -> None:
    claim = CLAIM.model_copy(
        update={"better": {"model.family": "a"}, "worse": {"model.family": ["b", "c"]}, "may_differ": []}
    )
    found = judged(tmp_path, claim, arms=arms(1.0), seeds=(0, 1, 2, 3))
    assert found.verdict == "supported"
    assert (found.evidence[0].better, found.evidence[0].worse) == ("a", "b")


def test_the_reference_arm_stands_for_its_side(tmp_path: Path) -> None:
    claim = CLAIM.model_copy(update={"better": {"factor:weight": ["1", "10"]}, "worse": {"factor:weight": "0"}})
    three = [
        SyntheticArm("w1", levels={"weight": "1"}, reference=True),
        SyntheticArm("w10", levels={"weight": "10"}),
        SyntheticArm("w0", levels={"weight": "0"}),
    ]
    claim = claim.model_copy(update={"may_differ": ["model.*"]})
    found = judged(tmp_path, claim, arms=three)
    assert [(item.better, item.worse) for item in found.evidence] == [("w1", "w0")]


def two_data_sets() -> list[SyntheticArm]:
    return [
        SyntheticArm(
            f"{masking}-{data}",
            effects={"psnr": 1.0 if masking == "access" else 0.0},
            reference=(masking, data) == ("none", "faces"),
            levels={"masking": masking, "data": data},
            model={"masking": masking},
            provenance={"data": {"digest": data}},
        )
        for data in ("faces", "scenes")
        for masking in ("none", "access")
    ]


def test_where_data_sets_vary_each_has_its_own_comparison_and_none_goes_across(tmp_path: Path) -> None:
    claim = CLAIM.model_copy(update={"better": {"model.masking": "access"}, "worse": {"model.masking": "none"}})
    found = judged(tmp_path, claim, arms=two_data_sets(), seeds=(0, 1, 2, 3))
    assert [(item.better, item.worse) for item in found.evidence] == [
        ("access-faces", "none-faces"), ("access-scenes", "none-scenes"),
    ]  # fmt: skip
    assert found.verdict == "supported"
    across = claim.model_copy(update={"better": {"arm": "access-scenes"}, "worse": {"arm": "none-faces"}})
    found = judged(tmp_path / "across", across, arms=two_data_sets())
    assert found.verdict == "not testable"
    assert found.reason == "access-scenes and none-faces differ also in data.digest"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"better": {"model.family": "sean"}}, "no arm of the study is the better one (model.family = sean)"),
        ({"metric": "fid"}, "fid: not recorded in this study"),
    ],
)
def test_what_a_study_cannot_answer_is_said(tmp_path: Path, changes: dict, reason: str) -> None:
    found = judged(tmp_path, CLAIM.model_copy(update=changes), arms=arms(1.0))
    assert (found.verdict, found.reason) == ("not testable", reason)


def test_failed_runs_make_a_claim_untestable_with_their_reason(tmp_path: Path) -> None:
    broken = SyntheticArm("b", states={0: "failed", 1: "failed"})
    found = judged(tmp_path, CLAIM, arms=(SyntheticArm("a"), broken), seeds=(0, 1))
    assert found.verdict == "not testable"
    assert "b has no value (the run is failed: out of memory)" in found.reason


@given(st.floats(0, 10), st.sampled_from([">1", ">=1", "<1", "<=1"]))
def test_comparisons_in_selectors(value: float, text: str) -> None:
    expected = {">1": value > 1, ">=1": value >= 1, "<1": value < 1, "<=1": value <= 1}[text]
    assert matches({"w": text}, {"w": value}) == expected


def test_selectors_do_not_confuse_types() -> None:
    assert matches({"a": True}, {"a": True})
    assert not matches({"a": 1}, {"a": True})
    assert not matches({"a": "1"}, {"a": 1})
    assert not matches({"a": ">0"}, {"a": "many"})
    assert not matches({"missing": "!=x"}, {"a": 1})
    assert matches({"a": "!=off"}, {"a": "bce"})
    assert matches({"a": None}, {"a": None})


# -- files -------------------------------------------------------------------------------------------------------------


def test_the_shipped_claims_are_valid_and_their_config_keys_exist() -> None:
    from pipeline.config import compose
    from pipeline.schema.base import flat

    claims = [*load_claims(), *load_claims(PHOTOS)]
    assert len(claims) >= 10
    known = set(flat(compose(["preset=tiny", "data=procfaces"]).model_dump(mode="json")))
    for claim in claims:
        for key in (*claim.better, *claim.worse):
            assert key in known or key.startswith("factor:"), f"{claim.id}: {key}"


def test_shipped_claims_tables_and_labels_know_the_metrics_that_exist() -> None:
    import yaml

    from analysis.labels import CONF
    from analysis.tables import load_spec, shipped_specs
    from pipeline.records.metric_specs import SPECS, spec_of

    used = {metric for claim in [*load_claims(), *load_claims(PHOTOS)] for metric in claim.metrics}
    for name in shipped_specs():
        spec = load_spec(name)[1]
        used |= {item if isinstance(item, str) else item.metric for item in [*spec.metrics, *spec.cost]}
    for metric in used - {"study"}:
        spec_of(metric.rstrip("*").rstrip("_"))  # KeyError: no such metric
    labels = yaml.safe_load((CONF / "labels.yaml").read_text())
    assert set(SPECS) <= set(labels)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("claims: 3", "needs one key, claims"),
        ("- a", "needs one key, claims"),
        ("claims: [{id: a", "not valid YAML"),
        ("claims: [{id: a, says: s, metric: m, better: {a: 1}}]", r"claim 1 \(a\): .*worse is missing"),
        ("claims: [{id: a, says: s, metric: m, better: {a: 1}, worse: {}, marginn: 1}]", "unknown key marginn"),
        (
            "claims: [{id: a, says: s, metric: m, kind: equivalence, better: {}, worse: {}}]",
            "within is needed for kind equivalence",
        ),
        (
            "claims: [{id: a, says: s, metric: m, better: {w: '>x'}, worse: {}}]",
            "compares with something that is no number",
        ),
        (
            "claims: [{id: a, says: s, metric: m, better: {}, worse: {}}, {id: a, says: s, metric: m, better: {}, worse: {}}]",
            "claim ids occur twice: a",
        ),
    ],
)
def test_a_wrong_claims_file_is_named_with_the_place(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_claims(path)


def test_a_claims_file_that_is_absent_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="claims file .*absent.yaml is missing"):
        load_claims(tmp_path / "absent.yaml")
