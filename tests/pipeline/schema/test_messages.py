"""Messages speak of keys, values and what is allowed; never of Python's or pydantic's terms."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from ablations.study import STUDIES
from analysis.claims.spec import Claim, load_claims
from analysis.tables.spec import TableSpec
from pipeline.config import compose, unreadable
from pipeline.errors import UserError
from pipeline.schema.evaluation import PROTOCOLS
from pipeline.schema.files import check
from pipeline.schema.messages import explain
from pipeline.schema.run import RunConfig
from pipeline.schema.yaml12 import Document
from sweeps.sweep import SWEEPS

WRONG: tuple[Any, ...] = ("?!", "", 3, -1, 1.5, 1e999, True, None, [], [None], [[1]], {}, {"nonsense": 1}, ["a", "a"])
PROGRAMMERS = re.compile(
    r"(?i:input should|valid (tuple|list|dict|string|integer|number|boolean)|instance of|tuple|dictionary|NoneType|value error|"
    r"assert|pydantic|parsing|unable to|literal|traceback)|\bNone\b|\bTrue\b|\bFalse\b"
)
WHOLE = {
    "study": (STUDIES.model, STUDIES.filled(STUDIES.read("paper_ablation").values)),
    "list": (STUDIES.model, STUDIES.filled(STUDIES.read("baselines").values)),
    "sweep": (SWEEPS.model, SWEEPS.filled(SWEEPS.read("attention_loss").values)),
    "table": (
        TableSpec,
        {"metrics": [{"metric": "psnr"}, "ssim"], "groups": [{"label": "g", "arms": ["a"]}], "show": {"std": True}},
    ),
    "claim": (Claim, load_claims()[1].model_dump(mode="json")),
    "protocol": (PROTOCOLS.model, PROTOCOLS.read("standard").values),
    **{
        f"config of {model}": (RunConfig, compose([f"model={model}"]).model_dump(mode="json"))
        for model in ("ca2sis", "spade", "inade", "maskgan")
    },
}


def damaged(values: Any) -> Iterator[Any]:
    """The values with one place changed to each wrong value, removed, or with a key too many."""
    for place in places(values):
        for wrong in (*WRONG, ...):
            changed = copy.deepcopy(values)
            here = changed
            for step in place[:-1]:
                here = here[step]
            if wrong is not ...:
                here[place[-1]] = wrong
            elif isinstance(here, dict):
                del here[place[-1]]
                here[f"{place[-1]}s"] = 1
            yield changed


def places(values: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if place:
        yield place
    items = values.items() if isinstance(values, dict) else enumerate(values[:2]) if isinstance(values, list) else ()
    for key, item in items:
        yield from places(item, (*place, key))


@pytest.mark.parametrize("kind", WHOLE)
def test_no_message_is_worded_for_programmers(kind: str) -> None:
    model, values = WHOLE[kind]
    check(model, values, Document(values, "it is sound as it stands"))
    told: set[str] = set()
    for changed in damaged(values):
        try:
            model.model_validate_json(json.dumps(changed))
        except ValidationError as error:
            said = explain(error, model, changed)
            assert said and "\n" not in said, changed
            told.add(re.sub(r"\d+", "0", said))
        except UserError as error:
            told.add(str(error))
    assert len(told) > 20
    assert [said for said in told if PROGRAMMERS.search(said)] == []


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.batch_size=many", 'train.batch_size = "many": it must be a whole number'),
        ("model.attention.self_attention=2", "model.attention.self_attention = 2: it must be a list, like [a, b]"),
        ("protocol.groups=[cots]", 'protocol.groups.0 = "cots": it must be reconstruction, perceptual,'),
        ("model.encoder.pooled_strides=[]", "it must be a list of 1 or more"),
        ("loss.attention.levels=[a]", 'loss.attention.levels.0 = "a": it must be a whole number'),
        ("notes=3", 'notes = 3: it must be text (quoted: "3")'),
        ("device=gpu", 'device = "gpu": it must be auto, cpu or cuda'),
        ("data.augment.load_scale=9", "data.augment.load_scale = 9: it must be at most 4"),
        ("train.lr=inf", "train.lr = Infinity: it must be a finite number"),
        ("model.nonsense=1", "unknown key model.nonsense"),
        ("init_from=abc", "it must be the id of a finished run"),
    ],
)
def test_a_mistake_in_the_config_in_the_users_words(override: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        compose([override])
    assert said in str(caught.value)


@pytest.mark.parametrize("value", ["a=b", "[1", "a#b", "it's", "Müller", "a(b", "{x", "a'b=c"])
def test_the_advice_on_an_override_that_hydra_cannot_read_works(value: str) -> None:
    with pytest.raises(UserError, match=f"config: notes={re.escape(value)}: this value cannot be read") as caught:
        compose([f"notes={value}"])
    quoted = str(caught.value).partition("quote it: ")[2]
    assert quoted[0] == quoted[-1] and quoted[0] in "'\"", "quoted once more for shell and YAML"
    assert compose([quoted[1:-1]]).notes == value


def test_what_hydra_reads_is_readable() -> None:
    assert unreadable("notes=plain words") == unreadable("+best=x") == unreadable("~model.depth") == ""
    assert unreadable("words") == "'words' is not an override; write key=value, for instance train.batch_size=4"


def test_file_line_key_and_example_are_named(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(
        "name: s\nquestion: q?\ndesign: factorial\nbase: {preset: tiny}\nsedes: [0]\nfactors: {a: {reference: x}}\n"
    )
    with pytest.raises(UserError) as caught:
        STUDIES.load(str(file))
    assert str(caught.value) == (
        f"study file {file}: line 4: base is a mapping; it must be a list of overrides, like [model=sean, train.iterations=100]; "
        "line 5: unknown key sedes (did you mean seeds or design?); line 6: factors.a.levels is missing"
    )
