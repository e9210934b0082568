"""Split `group`: frames of one sequence stay together, by a pattern or a table, raw or prepared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.__main__ import main
from pipeline.config import compose, resolve
from pipeline.data import build_dataset
from pipeline.data.grouping import groups_of
from pipeline.data.listing import SampleFiles
from pipeline.data.prepare import prepare
from pipeline.data.splits import grouped
from pipeline.data.types import SPLITS
from pipeline.errors import UserError
from tests.pipeline.data.samples import data_config, write_folder

FRAMES = "^(.+)_[0-9]+$"


def files(key: str) -> SampleFiles:
    return SampleFiles(key, Path(f"{key}.jpg"), Path(f"{key}.png"), None)


def write_videos(root: Path, videos: dict[str, int]) -> Path:
    """images + labels + classes.txt: so many frames of each video, named VIDEO_NUMBER."""
    write_folder(root, sum(videos.values()), 32)
    names = [f"{video}_{frame}" for video, count in videos.items() for frame in range(count)]
    for index, name in enumerate(names):
        for kind in ("images", "labels"):
            (root / kind / f"face{index}.png").rename(root / kind / f"{name}.png")
    return root


@given(st.lists(st.integers(1, 30), min_size=2, max_size=12))
def test_no_group_is_torn_and_no_split_is_empty(sizes: list[int]) -> None:
    keys = [f"g{group}_{number}" for group, count in enumerate(sizes) for number in range(count)]
    splits = grouped(tuple(files(key) for key in keys), groups_of(FRAMES, keys, "--group"))
    names = {split: {r.key.split("_")[0] for r in splits[split]} for split in SPLITS}
    assert all(splits[split] for split in SPLITS)
    assert not names["train"] & (names["val"] | names["test"])
    assert (names["val"] == names["test"]) if len(sizes) == 2 else not names["val"] & names["test"]
    assert sorted({r.key for split in SPLITS for r in splits[split]}) == sorted(keys)


def test_many_small_groups_hold_out_a_fifth() -> None:
    keys = [f"g{number // 2}_{number % 2}" for number in range(200)]
    splits = grouped(tuple(files(key) for key in keys), groups_of(FRAMES, keys, "--group"))
    assert [len(splits[split]) for split in SPLITS] == [160, 20, 20]


def test_one_long_group_is_not_held_out_where_shorter_ones_are_there() -> None:
    keys = [f"long_{n}" for n in range(80)] + [f"{name}_{n}" for name in "abc" for n in range(10)]
    splits = grouped(tuple(files(key) for key in keys), groups_of(FRAMES, keys, "--group"))
    assert {len(splits["val"]), len(splits["test"])} <= {10, 20} and len(splits["train"]) >= 80


def test_one_group_holds_nothing_out() -> None:
    with pytest.raises(UserError, match=r"all 3 samples are of one group \('a'\)"):
        grouped(tuple(files(f"a_{n}") for n in range(3)), {f"a_{n}": "a" for n in range(3)})


def test_patterns_and_tables(tmp_path: Path) -> None:
    assert groups_of(FRAMES, ["seq1_003", "seq1_004"], "--group") == {"seq1_003": "seq1", "seq1_004": "seq1"}
    table = tmp_path / "groups.csv"
    table.write_text("\ufeffname,group\none.jpg,a\ntwo,b\n")  # as a spreadsheet writes it, with and without the suffix
    assert groups_of(str(table), ["one", "two"], "--group") == {"one": "a", "two": "b"}


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("(", r"--group \(: not a regular expression"),
        ("frame", r"--group frame: has 0 pairs of brackets; give a regular expression"),
        ("^(x)$", r"says nothing of the sample 'one'"),
        ("absent.csv", r"--group absent\.csv: cannot be read"),
    ],
)
def test_rules_that_say_nothing_are_refused(rule: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        groups_of(rule, ["one"], "--group")


def test_prepared_groups_are_the_default_split_and_change_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = write_videos(tmp_path / "raw", {"north": 6, "south": 2, "east": 2})
    command = ["data", "prepare", "folder", "--from", str(raw), "--to", str(tmp_path / "root"), "--group", FRAMES]
    assert main(command) == 0
    assert "split group (default): 6 train, 2 val, 2 test" in capsys.readouterr().out
    manifest = json.loads((tmp_path / "root" / "manifest.json").read_text())
    plain = prepare("folder", raw, tmp_path / "plain", space_name="classes_file", workers=1)
    other = json.loads((plain.root / "manifest.json").read_text())
    assert set(manifest["splits"]) == {"group"} and set(other["splits"]) == {"holdout"}
    assert manifest["samples"] == other["samples"]
    by_name = build_dataset(data_config("folder", root=str(tmp_path / "root")), "train")
    raw_too = build_dataset(data_config("folder", root=str(raw), group=FRAMES), "train")
    assert by_name.keys == raw_too.keys == tuple(f"north_{n}" for n in range(6))


def test_a_config_can_group_what_is_not_prepared(tmp_path: Path) -> None:
    raw = write_videos(tmp_path / "raw", {"north": 6, "south": 2, "east": 2})
    table = tmp_path / "groups.csv"
    table.write_text(
        "name,group\n" + "".join(f"{path.stem},{path.stem.split('_')[0]}\n" for path in (raw / "images").iterdir())
    )
    base = ["data=folder", f"data.root={raw}"]
    by_pattern = resolve([*base, f"data.group='{FRAMES}'"])
    by_table = resolve([*base, "data.split=group", f"data.group={table}"])
    assert by_pattern.run_id != resolve(base).run_id
    assert by_pattern.data["description"]["split_rule"] == by_table.data["description"]["split_rule"] == "group"
    assert by_pattern.data["description"]["splits"] == by_table.data["description"]["splits"]
    with pytest.raises(UserError, match="was not prepared with groups; set data.group to a regular expression"):
        resolve([*base, "data.split=group"])
    with pytest.raises(UserError, match="belongs to split=group, not to split=holdout"):
        compose([*base, "data.split=holdout", f"data.group={table}"])
