"""Plans: identities, refusals, revisions, cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ablations import plan as planning
from ablations.adhoc import grid_study, parse_seeds, split_values
from ablations.cost import CostModel
from ablations.designs import arms_of
from ablations.plan import differences, lock, make_plan
from ablations.study import Study, load_study, parse_study, shipped
from analysis.claims import load_claims
from analysis.claims.judge import comparable_pairs
from pipeline.config import compose, last_wins, resolve, to_yaml
from pipeline.errors import UserError
from pipeline.records import RunStore, StudyManifest
from pipeline.schema.base import flat
from pipeline.schema.run import completed


def study(levels: dict[str, list[str]], **more: Any) -> Study:
    factors = {"f": {"reference": next(iter(levels)), "levels": levels}}
    base = {"name": "s", "question": "?", "design": "one_at_a_time", "base": ["preset=tiny"], "factors": factors}
    return parse_study({**base, **more}, "test")


ATTENTION = {"with": [], "without": ["loss.attention.weight=0"]}


def test_cells_have_the_ids_that_train_would_give_them() -> None:
    plan = make_plan(study(ATTENTION), seeds=[0, 3])
    assert [(cell.arm, cell.seed) for cell in plan.manifest.cells] == [
        ("reference", 0), ("reference", 3), ("f=without", 0), ("f=without", 3),
    ]  # fmt: skip
    for cell in plan.manifest.cells:
        assert cell.run_id == resolve(cell.overrides).run_id
    assert len({cell.run_id for cell in plan.manifest.cells}) == 4


def test_seed_enters_nothing_but_seed() -> None:
    """What lets a plan compose once an arm: changing the seed changes the key `seed` alone."""
    for model in ("ca2sis", "spade", "sean", "painter"):
        one, two = (flat(compose([f"model={model}", f"seed={seed}"]).model_dump(mode="json")) for seed in (1, 2))
        assert {key for key in one if one[key] != two[key]} == {"seed"}


def test_arms_differ_from_the_reference_in_the_named_keys_alone() -> None:
    plan = make_plan(load_study("demo"))
    runs = {cell.arm: plan.runs[cell.run_id] for cell in plan.manifest.cells}
    changed = {arm: set(differences(run, runs["reference"])) for arm, run in runs.items()}
    assert changed["reference"] == set()
    assert changed["attention_loss=without"] == {"loss.attention.weight"}
    assert changed["attention=access"] == {"model.attention.masking", "loss.attention.weight"}
    assert changed["conditioning=spade"] == {"model.conditioning", "loss.attention.kind"}
    assert "model.family" in changed["family=sean"]
    assert not any(key.startswith("data.") for keys in changed.values() for key in keys)


@pytest.fixture
def photos_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with small made photos where study `photos` has its three sets."""
    for index, (name, width, height) in enumerate((("fashion", 24, 36), ("faces", 24, 30), ("street", 32, 24))):
        root = tmp_path / "data" / name
        for part in ("images", "labels"):
            (root / part).mkdir(parents=True)
        (root / "classes.txt").write_text("background\nthing\nother\n")
        drawn = np.random.default_rng(index)
        for image in range(16):
            picture = drawn.integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(picture).save(root / "images" / f"{image:02d}.png")
            labels = drawn.integers(0, 3, (height, width), dtype=np.uint8)
            Image.fromarray(labels).save(root / "labels" / f"{image:02d}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_study_of_photos_asks_the_same_of_three_data_sets(photos_here: Path) -> None:
    plan = make_plan(load_study("photos"), seeds=[0])
    assert len(plan.manifest.cells) == 7 * 3
    of_arm = {cell.arm: plan.runs[cell.run_id] for cell in plan.manifest.cells}
    roots: dict[str, set[str | None]] = {}
    for arm in plan.manifest.arms:
        roots.setdefault(arm.levels["data"], set()).add(of_arm[arm.name].config.data.root)
    assert roots == {name: {f"data/{name}"} for name in ("fashion", "faces", "street")}
    assert len({cell.images_seen for cell in plan.manifest.cells} - {0}) == 1
    access = next(arm.name for arm in plan.manifest.arms if arm.levels == {"model": "access", "data": "fashion"})
    assert set(differences(of_arm[access], of_arm["reference"])) == {"model.attention.masking", "loss.attention.weight"}


def test_the_study_of_photos_says_where_it_looks_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="data/fashion"):
        make_plan(load_study("photos"), seeds=[0])


@pytest.mark.parametrize("preset", ["tiny", "small", "medium", "paper"])
@pytest.mark.parametrize("name", shipped())
def test_shipped_studies_plan_at_every_preset(name: str, preset: str, photos_here: Path) -> None:
    extra = [f"preset={preset}"]
    if preset == "paper":  # the published recipes differ in epochs and batch; an equal budget has to be asked for
        extra += ["train.iterations=9", "train.epochs=null", "train.batch_size=2"]
    made = load_study(name)
    if preset == "paper" and name in ("baselines", "demo", "robustness"):
        with pytest.raises(UserError, match="different numbers of training images"):
            make_plan(made, extra=extra[:1], seeds=[0])
    plan = make_plan(made, extra=extra, seeds=[0])
    assert len(plan.manifest.cells) == len(arms_of(made))
    budgets = {cell.images_seen for cell in plan.manifest.cells} - {0}
    assert len(budgets) == 1 or made.budget.rule == "declared"


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (study({"a": [], "b": ["train.log_every=7"]}), "the same run"),  # differs in a nuisance key alone
        (study({"a": [], "b": ["loss.attention.weight=1.0"]}), "the same run"),  # the default by another route
        (
            study({"a": [], "b": ["loss.attention.wieght=0"]}),
            "unknown key loss.attention.wieght.*loss.attention.weight",
        ),
        (study({"a": [], "b": ["loss.attention.weight=-1"]}), "loss.attention.weight = -1"),
        (study({"a": [], "b": ["model=saen"]}), "did you mean sean"),
        (study({"a": [], "b": ["train.iterations=7"]}), "different numbers of training images"),
        (study(ATTENTION, protocol="standart"), "unknown protocol 'standart'"),
        (study(ATTENTION, metrics={"primary": {"pnsr": "max"}}), "unknown metric 'pnsr'.*psnr"),
        (study(ATTENTION, base=["preset=tiny", "seed=4"]), "seed is the study's own field"),
        (
            study({"a": [], "b": ["model=spade", "protocol=quick"]}),
            "study s, arm f=b: protocol is the study's own field",
        ),
        (study({"a": [], "b": ["model=spade", "seed=7"]}), "study s, arm f=b: seed is the study's own field"),
        (study(ATTENTION, arms={"spade": ["model=spade", "+seed=7"]}), "arm spade: seed is the study's own field"),
    ],
)
def test_refusals(made: Study, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        make_plan(made)
    assert "study s" in str(caught.value) and "\n" not in str(caught.value)


def test_what_belongs_to_a_protocol_is_no_field_of_the_study() -> None:
    plan = make_plan(study(ATTENTION, base=["preset=tiny", "protocol.groups=[reconstruction]"]), seeds=[0])
    assert {run.config.protocol.groups for run in plan.runs.values()} == {("reconstruction",)}


def test_bad_seeds_are_refused() -> None:
    for seeds in ([0, 0], [], [-1]):
        with pytest.raises(UserError, match="seeds"):
            make_plan(study(ATTENTION), seeds=seeds)
    with pytest.raises(UserError, match=r"study s: seeds\.1 = 2147483648: it must be less than 2147483648"):
        make_plan(study(ATTENTION), seeds=[0, 2**31])


def test_declared_budgets_may_differ() -> None:
    made = study({"a": [], "b": ["train.iterations=7"]}, budget={"rule": "declared", "reason": "what more steps give"})
    plan = make_plan(made)
    assert plan.manifest.budget == "what more steps give"
    assert [cell.images_seen for cell in plan.manifest.cells] == [4800, 56]


def test_a_rule_has_no_budget() -> None:
    plan = make_plan(study({"a": [], "b": ["model=painter"]}))
    assert [cell.images_seen for cell in plan.manifest.cells] == [4800, 0]


def test_budgets_given_in_epochs_count_whole_batches() -> None:
    plan = make_plan(study(ATTENTION), extra=["train.iterations=null", "train.epochs=3", "data.train_images=21"])
    assert {cell.images_seen for cell in plan.manifest.cells} == {3 * 2 * 8}


def test_data_sets_as_a_factor(tmp_path: Path) -> None:
    """Two folders of photos and the faces: each arm has its own data in its identity, and the same budget."""
    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        for kind, shape in (("images", (20, 20, 3)), ("labels", (20, 20))):
            (tmp_path / name / kind).mkdir(parents=True)
            for index in range(10):
                pixels = rng.integers(0, 2 if kind == "labels" else 256, shape, dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / name / kind / f"{index}.png")
        (tmp_path / name / "classes.txt").write_text("sky\nground\n")
    levels = {"faces": ["data=procfaces"]}
    levels |= {name: ["data=folder", f"data.root={tmp_path / name}"] for name in ("one", "two")}
    plan = make_plan(study(levels), seeds=[0, 1])
    assert [(cell.arm, cell.images_seen) for cell in plan.manifest.cells[::2]] == [
        ("reference", 4800), ("f=one", 4800), ("f=two", 4800),
    ]  # fmt: skip
    assert len({json.dumps(run.data, sort_keys=True) for run in plan.runs.values()}) == 3 and len(plan.runs) == 6


def test_lock_keeps_every_revision(tmp_path: Path) -> None:
    plan, said = lock(make_plan(study(ATTENTION)), tmp_path)
    assert plan.manifest.revision == 1 and said == ""
    plan, said = lock(make_plan(study(ATTENTION)), tmp_path)
    assert plan.manifest.revision == 1 and said == ""
    plan, said = lock(make_plan(study(ATTENTION), seeds=[0, 1]), tmp_path)
    assert plan.manifest.revision == 2 and "revision 2" in said
    assert StudyManifest.load(tmp_path) == plan.manifest
    assert sorted(path.name for path in (tmp_path / "revisions").iterdir()) == ["1.json", "2.json"]
    plan, said = lock(make_plan(study(ATTENTION)), tmp_path)
    assert plan.manifest.revision == 3, "going back is a change too"


def test_later_overrides_win() -> None:
    assert last_wins(["preset=tiny", "a.b=1", "preset=small", "a.b=2", "c=3"]) == ("preset=small", "a.b=2", "c=3")
    plan = make_plan(study(ATTENTION), extra=["preset=small"])
    assert next(iter(plan.runs.values())).config.size == 64


def test_cost_comes_from_recorded_runs(tmp_path: Path) -> None:
    plan = make_plan(study(ATTENTION), seeds=[0, 1])
    store = RunStore(tmp_path)

    def record(index: int, seconds: float) -> None:
        run = plan.runs[plan.manifest.cells[index].run_id]
        made = store.record(run.run_id)
        made.create(run.identity, to_yaml(run.config))
        made.begin_attempt("trained")
        made.update_provenance(wall_seconds=seconds, images_seen=4800)
        made.end_attempt("finished")

    empty = CostModel(store).estimate(plan, plan.manifest.cells)
    assert (empty.seconds, empty.known, empty.unknown) == (0.0, 0, 4)
    record(0, 60.0)
    costs = CostModel(store)
    assert costs.seconds(plan.runs[plan.manifest.cells[1].run_id].identity, 4800) == 60.0, "another seed costs the same"
    without = plan.runs[plan.manifest.cells[2].run_id].identity
    assert costs.seconds(without, 2400) == pytest.approx(30.0), "the same model at half the images costs half"
    record(2, 90.0)
    assert CostModel(store).seconds(without, 4800) == 90.0, "the same config is the better guide"
    damaged = store.record(plan.manifest.cells[0].run_id).path
    for name in ("identity.json", "provenance.json", "status.json"):
        whole = (damaged / name).read_text()
        for text in (whole[: len(whole) // 2], "{}", "[]", '{"wall_seconds": "long"}'):
            (damaged / name).write_text(text)
            assert CostModel(store).seconds(without, 4800) == 90.0, "it may be another study's, and stops nobody"
        (damaged / name).write_text(whole)


def test_grids() -> None:
    made = grid_study(["model=ca2sis,spade", "train.batch_size=4,8,16"], name=None)
    assert len(arms_of(made)) == 6 and made.name.startswith("grid-")
    assert made.name == grid_study(["model=ca2sis,spade", "train.batch_size=4,8,16"], name=None).name
    assert split_values("[1,2],a,{x: 1, y: 2}") == ["[1,2]", "a", "{x: 1, y: 2}"]
    for bad in ("model", "model=ca2sis", "model=a,a", "model=a,,b"):
        with pytest.raises(UserError, match="--grid"):
            grid_study([bad], name=None)
    assert parse_seeds("0-2,7") == (0, 1, 2, 7)
    for bad in ("", "a", "3-1", "1,,2", "-1", "9" * 5000):
        with pytest.raises(UserError, match="--seeds"):
            parse_seeds(bad)
    with pytest.raises(UserError, match="--seeds 0-99999999999: 0-99999999999 is a range of more than 10000 seeds"):
        parse_seeds("0-99999999999")
    assert len(parse_seeds("1-10000")) == 10000


def test_the_config_is_composed_once_an_arm(monkeypatch: pytest.MonkeyPatch) -> None:
    """What makes planning 200 cells quick: seeds cost an identity each, not a composition."""
    composed: list[str] = []

    def counted(overrides: Any) -> Any:
        composed.append(" ".join(overrides))
        return resolve(overrides)

    monkeypatch.setattr(planning, "resolve", counted)
    plan = make_plan(load_study("demo"), seeds=range(29))
    assert len(plan.runs) == 203 and len(composed) == len(set(composed)) == 7


def test_a_shipped_study_can_test_each_shipped_claim() -> None:
    """A selector that takes the reference arm where that differs in more than the claim says tests nothing, in any study."""
    claims = {claim.id: claim for claim in load_claims()}
    testable: dict[str, list[str]] = {}
    for name in shipped():
        if name == "photos":
            continue  # data that a user prepares; claims of its own
        plan = make_plan(load_study(name), seeds=(0,))
        facts = {
            cell.arm: {"arm": cell.arm, **flat(completed(json.loads(plan.runs[cell.run_id].identity)["config"]))}
            for cell in plan.manifest.cells
        }
        for arm in plan.manifest.arms:
            facts[arm.name] |= {f"factor:{factor}": level for factor, level in arm.levels.items()}
        reference = next((arm.name for arm in plan.manifest.arms if arm.reference), None)
        for claim in claims.values():
            pairs, _ = comparable_pairs(claim, facts, reference)
            if pairs:
                testable.setdefault(claim.id, []).append(name)
            if (name, claim.id) == ("codes_per_class", "several_codes_help"):
                assert sorted(pairs) == [
                    (f"codes=4,masking={masking}", f"codes=1,masking={masking}")
                    for masking in ("access", "hard", "none")
                ]
    assert sorted(set(claims) - set(testable)) == []
