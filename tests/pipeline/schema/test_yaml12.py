"""Files a user writes are YAML 1.2, read strictly: scalars by its core schema, keys once, names as written."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from pipeline.config import CONF, compose
from pipeline.errors import UserError
from pipeline.schema.yaml12 import parse_yaml, read_yaml, scalar
from sweeps.space import choice_text

ROOT = Path(__file__).parents[3]
FIXED = settings(derandomize=True, max_examples=300, database=None)


def read(text: str) -> Any:
    return parse_yaml(text, "file").values


def same(first: Any, second: Any) -> bool:
    """Equal in type too; NaN equals itself."""
    if isinstance(first, float) and isinstance(second, float) and math.isnan(first):
        return math.isnan(second)
    return type(first) is type(second) and first == second


# --- what section 10.3.2 of YAML 1.2.2 says, written down once more and independently ------------------------------------

# The chapter's own table of regular expressions (core schema), first match wins.
CORE = (
    (r"null|Null|NULL|~|", lambda text: None),
    (r"true|True|TRUE", lambda text: True),
    (r"false|False|FALSE", lambda text: False),
    (r"[-+]?[0-9]+", int),
    (r"0o[0-7]+", lambda text: int(text[2:], 8)),
    (r"0x[0-9a-fA-F]+", lambda text: int(text[2:], 16)),
    (r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", float),
    (r"[-+]?\.(inf|Inf|INF)", lambda text: -math.inf if text[0] == "-" else math.inf),
    (r"\.(nan|NaN|NAN)", lambda text: math.nan),
)


def core(text: str) -> Any:
    return next((make(text) for pattern, make in CORE if re.fullmatch(pattern, text)), text)


# --- scalars as people write them ----------------------------------------------------------------------------------------

digits = st.text("0123456789", min_size=1, max_size=4)
sign = st.sampled_from(["", "-", "+"])
numbers = st.builds(
    "".join,
    st.tuples(
        sign,
        st.one_of(digits, st.just("")),
        st.sampled_from(["", ".", "_", ":", ",", "e", "E"]),
        st.one_of(digits, st.just("")),
        st.sampled_from(["", "e-4", "E3", "e+2", "e", ".5", "_000", ":30", "%", "k", "px"]),
    ),
)
prefixed = st.builds(
    "".join,
    st.tuples(
        sign,
        st.sampled_from(["0x", "0X", "0o", "0O", "0b", "0"]),
        st.text("0123456789abcdefF_", min_size=1, max_size=4),
    ),
)
words = st.sampled_from(
    re.findall(
        r"\S+",
        """on On ON off Off OFF yes Yes YES no No NO y Y n N true True TRUE tRue false False FALSE null Null NULL nULL ~ none None
        nil inf Inf .inf -.Inf +.INF nan NaN .nan .NaN - . .. +. -e 1e e1 << = 2024-01-01 2024-01-01T10:00:00Z 12:30:45 1.2.3
        v1.0 a b-c model=spade a.b 1/2 1e-4x spade 0 00 007 1_000 1. .5 +.5e3 5.e-1 0x1F 0o17 0b101 +0x1F""",
    )
)
scalars = st.one_of(numbers, prefixed, words).filter(
    # what is no plain scalar in a flow list, by YAML's syntax, is another test's matter
    lambda text: (
        text
        and text == text.strip()
        and not set(text) & set(",[]{}#&*!|>'\"%@`")
        and not text.startswith(("- ", "? "))
        and text not in ("-", "?")
        and ": " not in text
        and not text.endswith(":")
        and not text.startswith(":")
    )
)


@FIXED
@given(scalars)
@example("off")
@example("1e-4")
@example("12:30:45")
def test_a_plain_scalar_is_what_yaml_1_2_says(text: str) -> None:
    assert same(read(f"key: {text}\n")["key"], core(text))
    assert same(read(f"- {text}\n- [{text}, x]\n")[1][0], core(text))
    assert same(scalar(text), core(text)), "on a command line as in a file"
    assert read(f"key: '{text}'\n")["key"] == read(f'- "{text}"\n')[0] == text, "quoted: text"


@FIXED
@given(st.lists(scalars, min_size=1, max_size=6))
def test_names_and_keys_are_text_as_written_and_stand_once(names: list[str]) -> None:
    text = "".join(f"{name}: {{reference: {name}}}\n" for name in names)
    twice = len(set(names)) != len(names)
    if "<<" in names:
        return  # a merge; see below
    if twice:
        with pytest.raises(UserError, match=r"key .* stands twice, in lines \d+ and \d+"):
            parse_yaml(text, "file")
        return
    found = parse_yaml(text, "file", (("*", "reference"),)).values
    assert list(found) == names
    for name, item in found.items():
        assert item["reference"] == (name if core(name) is not None else None)


scribbles = st.text(st.sampled_from(list("ab01.:-_#'\"[]{},&*!|>%@ \n\t?~<=")), max_size=40)


@FIXED
@given(scribbles)
@example("a: &x [*x]")
@example("[" * 2000)
@example("? [1, 2]\n: 3")
@example("!!python/object/apply:os.system [true]")
@example("a: 1\n---\nb: 2")
def test_whatever_is_written_is_read_or_refused_in_one_line_that_names_the_file(text: str) -> None:
    try:
        value = read(text)
    except UserError as error:
        assert str(error).startswith("file") and "\n" not in str(error)
        return
    assert plain(value)


def plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(type(key) is str and plain(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(plain, value))
    return value is None or type(value) in (str, int, float, bool)


# --- strictness ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n", "file: key c of b stands twice, in lines 3 and 5"),
        ("1: a\n'1': b\n", "file: key 1 stands twice, in lines 1 and 2"),
        ("- {x: 1,\n   x: 2}\n", "file: key x of 0 stands twice, in lines 1 and 2"),
        ("a: &x [*x]", "file, line 1, column 4: *alias of a.0 stands inside of what it stands for"),
        ("a: !!binary aGk=", "file, line 1, column 4: the tag !!binary is not known here"),
        ("a: !!int x", "file, line 1, column 4: 'x' cannot be read as int"),
        ("a: !!set {x}", "file, line 1, column 4: the tag !!set is not known here"),
        ("? {a: b}\n: 3", "file, line 1, column 3: a key must be one word or text, not a list or a mapping"),
        (": 3", "file, line 1, column 1: not valid YAML: expected <block end>, but found ':'"),
        ("a: [1\n", "file, line 2, column 1: not valid YAML: expected ',' or ']'"),
        ("x: {<<: 3}", "file, line 1, column 9: << takes a mapping, or a list of them"),
    ],
)
def test_what_is_refused_and_where(text: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        read(text)
    assert str(caught.value).startswith(said)


def test_anchors_and_merges_keep_their_meaning() -> None:
    text = "d: &d {a: 1, b: 2}\ne: &e {b: 9, c: 3}\nx: {<<: *d, b: 5}\ny: {<<: [*d, *e]}\nz: *d\n"
    found = read(text)
    assert found["x"] == {"a": 1, "b": 5} and found["y"] == {"a": 1, "b": 2, "c": 3} and found["z"] == found["d"]


def test_lines_are_those_of_the_values() -> None:
    document = parse_yaml("a: 1\nb:\n  - x\n  - {c: 2,\n     d: 3}\n", "file")
    lines = {("a",): 1, ("b", 0): 3, ("b", 1, "d"): 5, ("b", 1, "missing"): 4, ("nowhere",): 1}
    assert {place: document.line(place) for place in lines} == lines


# --- Hydra beside it -------------------------------------------------------------------------------------------------------

# Scalars that Hydra's grammar of overrides reads in another way than YAML 1.2 does. Nothing passes from one to the other unread: a
# file's overrides are text for Hydra to read, and what a file says as a value goes to Hydra as Python writes it.
HYDRA_DIFFERS = {
    "1_000": (1000, "1_000"),
    "007": ("007", 7),
    "0x1F": ("0x1F", 31),
    "0o17": ("0o17", 15),
    ".inf": (".inf", math.inf),
    "inf": (math.inf, "inf"),
    "tRue": (True, "tRue"),
}
AGREED = re.findall(
    r"\S+",
    """off no on yes y n true false True FALSE null 1e-4 1E3 .5 5. -3 +3 0 1.5e+2 2024-01-01 12:30 spade a.b 1.2.3 v1""",
)


@pytest.mark.parametrize("text", [*AGREED, *HYDRA_DIFFERS])
def test_hydra_reads_an_override_as_a_file_reads_the_value(text: str) -> None:
    hydra, file = OverridesParser.create().parse_override(f"key={text}").value(), read(f"key: {text}")["key"]
    if text in HYDRA_DIFFERS:
        assert (hydra, file) == HYDRA_DIFFERS[text]
    else:
        assert same(hydra, file)


@FIXED
@given(
    st.one_of(st.integers(-(10**9), 10**9), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.none())
)
def test_a_value_of_a_file_reaches_the_config_as_it_is(value: Any) -> None:
    """A sweep's choices go from a file through an override into a config."""
    text = yaml.safe_dump(value).split("\n")[0]
    found = OverridesParser.create().parse_override(f"key={choice_text(read(f'key: {text}')['key'])}").value()
    assert same(found, value) or (isinstance(value, float) and found == value)


def test_numbers_in_override_and_file_make_one_config(tmp_path: Path) -> None:
    (tmp_path / "best.yaml").write_text(
        "overrides: [train.lr=1e-4, loss.attention.weight=1E1, loss.attention.kind=off]\n"
    )
    from_file = compose([f"+best={tmp_path}"])
    assert from_file == compose(["train.lr=0.0001", "loss.attention.weight=10", "loss.attention.kind=off"])


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONF)))
def test_the_rows_that_hydra_reads_say_the_same_by_yaml_1_2(path: Path) -> None:
    theirs = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    assert theirs == (read_yaml(path, "row").values or {})


def test_every_yaml_file_of_the_project_is_read_by_this_reader_alone() -> None:
    """`yaml.safe_load` is for what the program wrote itself: configs of records."""
    users = {
        str(path.relative_to(ROOT))
        for room in ("pipeline", "ablations", "sweeps", "analysis")
        for path in (ROOT / room).rglob("*.py")
        if re.search(r"yaml\.(safe_)?load", path.read_text())
    }
    assert users == {"pipeline/config.py", "analysis/report/runs.py"}
