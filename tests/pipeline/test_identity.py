"""Run identity: same resolved config, same id, by whatever route; anything that matters changes it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import compose, identify, resolve
from pipeline.errors import UserError
from pipeline.identity import NUISANCE_KEYS, canonical_json, without_nuisance
from pipeline.schema.base import Section, later
from pipeline.schema.run import completed

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_canonical_text_reads_back_as_the_value_it_came_from(value: object) -> None:
    assert json.loads(canonical_json(value)) == value


@given(st.dictionaries(st.text(max_size=6), st.integers(), max_size=6))
def test_key_order_never_enters(mapping: dict[str, int]) -> None:
    assert canonical_json(mapping) == canonical_json(dict(reversed(list(mapping.items()))))


def test_one_one_point_zero_and_true_are_three_values() -> None:
    assert len({canonical_json(value) for value in (1, 1.0, True, "1")}) == 4


def test_two_routes_to_one_config_share_the_id() -> None:
    by_default = resolve([])
    by_hand = resolve(["model=ca2sis", "preset=tiny", "seed=0", "train.lr=0.002", "train.batch_size=8"])
    assert by_default.run_id == by_hand.run_id == hashlib.sha256(by_default.identity.encode()).hexdigest()


def test_an_integer_where_a_float_belongs_is_the_same_number() -> None:
    assert resolve(["loss.pixel.weight=10"]).run_id == resolve(["loss.pixel.weight=10.0"]).run_id


@pytest.mark.parametrize(
    "override",
    ["notes=hello", "device=cpu", "threads=2", "tracking.mode=disabled", "protocol=quick", "train.log_every=7",
     "train.checkpoint_every=3", "data.workers=1", "data.cache=none", "model.checkpointing=true"],
)  # fmt: skip
def test_nuisance_does_not_change_the_id(override: str) -> None:
    assert resolve([override]).run_id == resolve([]).run_id


@pytest.mark.parametrize(
    "override",
    ["seed=1", "model.base_width=32", "loss.attention.weight=0", "train.batch_size=4", "data.train_images=500",
     "data.data_seed=1", "train.precision=bf16", "discriminator.width=8", "size=40", "model=sean"],
)  # fmt: skip
def test_what_matters_changes_the_id(override: str) -> None:
    assert resolve([override]).run_id != resolve([]).run_id


def test_every_nuisance_key_exists() -> None:
    from pipeline.schema.base import flat

    values = compose([]).model_dump(mode="json")
    known = {*flat(values), *values}
    unknown = [key for key in NUISANCE_KEYS if key not in known]
    assert unknown == []


def test_nuisance_is_cut_at_its_path_only() -> None:
    assert without_nuisance({"notes": 1, "data": {"root": 2, "notes": 3}}) == {"data": {"notes": 3}}


def test_validated_config_round_trips_through_its_yaml() -> None:
    from pipeline.config import from_yaml, to_yaml

    config = compose(["model=spade", "seed=4", "model.z_dim=16"])
    assert from_yaml(to_yaml(config)) == config
    assert identify(from_yaml(to_yaml(config))).run_id == identify(config).run_id


def test_identity_needs_the_data_to_be_there() -> None:
    with pytest.raises(UserError, match="data.root"):
        resolve(["data=coco_stuff"])


RECORDED = json.loads((Path(__file__).parents[1] / "fixtures" / "run_ids.json").read_text())


@pytest.mark.parametrize("overrides", RECORDED)
def test_configs_keep_the_ids_they_were_recorded_under(overrides: str) -> None:
    assert resolve(overrides.split()).run_id == RECORDED[overrides]


class _Older(Section):
    width: int


class _Newer(_Older):
    masking: str = later("none")


def test_a_later_field_leaves_the_identity_alone_until_it_is_used() -> None:
    assert _Newer(width=2).identity_values() == _Older(width=2).identity_values() == {"width": 2}
    assert _Newer(width=2, masking="hard").identity_values() == {"width": 2, "masking": "hard"}


def _unset(section: Section, prefix: str = "") -> list[str]:
    """Fields that a config has only because their sections give a value for old records."""
    missing = [prefix + name for name in type(section).model_fields if name not in section.model_fields_set]
    inner = [(name, getattr(section, name)) for name in type(section).model_fields]
    return missing + [
        path for name, value in inner if isinstance(value, Section) for path in _unset(value, f"{prefix}{name}.")
    ]


@pytest.mark.parametrize("overrides", [key for key in RECORDED if key.startswith("model=")])
def test_the_rows_name_every_key_also_those_that_came_later(overrides: str) -> None:
    assert _unset(compose(overrides.split())) == []


@pytest.mark.parametrize(
    "overrides", ["model=ca2sis preset=tiny", "model=spade preset=small", "model.attention.masking=hard"]
)
def test_what_the_identity_leaves_out_is_found_again(overrides: str) -> None:
    config = compose(overrides.split())
    assert completed(config.identity_values()) == config.model_dump(mode="json")
