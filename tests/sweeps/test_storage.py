"""Where trials are kept: a journal that survives kills, full disks and other programs; revisions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from optuna.storages.journal import JournalFileSymlinkLock

from pipeline.errors import UserError
from sweeps import report
from sweeps.storage import import_trials, open_storage, open_study, refuse_change, studies_of
from tests.sweeps.fakes import ENTRY, WEIGHT, sweep


def test_torn_journal_is_mended(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    study = open_study(open_storage(f"journal:{path}"), sweep())
    study.tell(study.ask(), 1.0)
    with path.open("ab") as file:
        file.write(b'{"op_code": 4, "wor')  # a full disk or a kill in the middle of a write
    study = open_study(open_storage(f"journal:{path}"), sweep())
    study.tell(study.ask(), 2.0)
    study = open_study(open_storage(f"journal:{path}"), sweep())
    assert [trial.value for trial in study.trials] == [1.0, 2.0]


def test_a_line_torn_behind_an_open_journal_is_mended_before_the_next(tmp_path: Path) -> None:
    """Another worker dies in the middle of a write while this one goes on."""
    path = tmp_path / "journal.log"
    study = open_study(open_storage(f"journal:{path}"), sweep())
    study.tell(study.ask(), 1.0)
    whole = path.read_bytes()
    with path.open("ab") as file:
        file.write(b'{"op_code": 4, "wor')
    study.tell(study.ask(), 2.0)
    assert path.read_bytes().startswith(whole + b'{"op_code":'), "what was torn is gone, nothing else"
    other = open_study(open_storage(f"journal:{path}"), sweep())
    assert [trial.value for trial in other.trials] == [1.0, 2.0]


@pytest.mark.parametrize("damage", [b'{"op_co\n', b"\xff\xfe\n", b"[]\n", b"{}\n", b"\0\0\n"])
def test_a_damaged_line_is_one_line_with_its_number(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "journal.log"
    study = open_study(open_storage(f"journal:{path}"), sweep())
    study.tell(study.ask(), 1.0)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], damage, *lines[3:]]))
    with pytest.raises(UserError, match=r"journal\.log is damaged in line 3: bring it back from a copy") as caught:
        open_storage(f"journal:{path}")
    assert "\n" not in str(caught.value)


def test_a_line_damaged_under_an_open_journal_is_named_too(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    study = open_study(open_storage(f"journal:{path}"), sweep())
    study.tell(study.ask(), 1.0)
    whole = path.read_bytes()
    path.write_bytes(whole + b"nonsense\n" + whole.splitlines(keepends=True)[-1])
    with pytest.raises(UserError, match=f"is damaged in line {whole.count(10) + 1}: "):
        study.get_trials()


@pytest.mark.parametrize("url", ["journal:", "journal:/"])
def test_a_journal_wants_a_file(url: str) -> None:
    with pytest.raises(UserError, match="storage journal: names no file; write journal:PATH"):
        open_storage(url)


def test_a_file_that_is_no_database_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("no database " * 100)
    with pytest.raises(UserError, match="cannot be opened: .*file is not a database") as caught:
        open_storage(f"sqlite:///{tmp_path / 'x.db'}")
    assert "\n" not in str(caught.value)


def test_the_dashboard_reads_our_study_and_its_lock_is_its_own(tmp_path: Path) -> None:
    dashboard = pytest.importorskip("optuna_dashboard._storage_url", reason="needs optuna-dashboard")
    path = tmp_path / "journal.log"
    study = open_study(open_storage(f"journal:{path}"), sweep())
    study.tell(study.ask(), 1.0)
    theirs = dashboard.get_storage(str(path))
    seen = optuna.load_study(study_name=study.study_name, storage=theirs)
    assert [trial.value for trial in seen.trials] == [1.0] and seen.user_attrs["revision"] == 1
    lock = JournalFileSymlinkLock(str(path))
    lock.acquire()  # the dashboard writes a note
    study.tell(study.ask(), 2.0)
    lock.release()
    theirs.set_study_system_attr(study._study_id, "note", "seen")
    assert [trial.value for trial in seen.trials] == [1.0, 2.0]
    assert study._storage.get_study_system_attrs(study._study_id)["note"] == "seen"
    assert sorted(item.name for item in tmp_path.iterdir()) == ["journal.log", "journal.log.flock"]


@pytest.mark.parametrize("blocks", [1, 5])
def test_a_full_disk_is_one_line_and_the_sweep_goes_on_when_there_is_room(tmp_path: Path, blocks: int) -> None:
    """Files end at so many KiB: while the study is made (1), while trials are written (5)."""
    file = tmp_path / "w.yaml"
    file.write_text(yaml.safe_dump(sweep(trials=2).model_dump(mode="json")))
    command = [sys.executable, "-m", "sweeps", "run", str(file), "--out", str(tmp_path), "--entry", ENTRY]
    full = subprocess.run(
        ["bash", "-c", f'ulimit -f {blocks}; exec "$@"', "-", *command],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    journal = tmp_path / "sweeps" / "w" / "journal.log"
    assert full.returncode == 2 and full.stderr == f"error: cannot write {journal}: file too large\n"
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "2 finished" in done.stdout, done.stdout + done.stderr


def test_a_study_whose_maker_was_stopped_half_way_is_made_whole(tmp_path: Path) -> None:
    made = sweep()
    storage = open_storage(f"journal:{tmp_path / 'journal.log'}")
    optuna.create_study(study_name=f"w@{made.digest[:12]}", storage=storage, directions=["maximize"])
    assert studies_of(storage, "w") == []
    with pytest.raises(UserError, match="not in this storage yet"):
        open_study(storage, made, create=False)
    study = open_study(storage, made)
    assert study.user_attrs["revision"] == 1 and study.user_attrs["sweep"]["name"] == "w"


def test_a_changed_space_is_a_revision_that_can_import(work: Any, tmp_path: Path) -> None:
    work(sweep(), trials=4)
    wider = sweep(space={"loss.attention.weight": {**WEIGHT["loss.attention.weight"], "low": 0.5, "high": 20.0}})
    storage = open_storage(f"journal:{tmp_path / 'journal.log'}")
    study = open_study(storage, wider)
    assert [item.user_attrs["revision"] for item in studies_of(storage, "w")] == [1, 2]
    old = studies_of(storage, "w")[0]
    fitting = [trial for trial in old.trials if trial.params["loss.attention.weight"] >= 0.5]
    assert import_trials(study, wider, storage) == (len(fitting), 4 - len(fitting))
    assert import_trials(study, wider, storage)[0] == 0, "each is taken over once"
    assert {trial.value for trial in study.trials} == {trial.value for trial in fitting}
    study, _ = work(wider, trials=2)
    assert sum("imported_from" not in trial.user_attrs for trial in study.trials) == 2, "imported trials are extra"
    other = sweep(base=["preset=small"])
    assert import_trials(open_study(storage, other), other, storage)[0] == 0, "another base makes other numbers"


def test_trials_measured_otherwise_are_neither_continued_nor_imported(work: Any, tmp_path: Path) -> None:
    work(sweep(), trials=2)
    wider = sweep(space={"loss.attention.weight": {**WEIGHT["loss.attention.weight"], "high": 20.0}})
    storage = open_storage(f"journal:{tmp_path / 'journal.log'}")
    old, new = open_study(storage, sweep()), open_study(storage, wider)
    refuse_change(old, {"data": "a", "protocol": "b"})
    refuse_change(old, {"data": "a", "protocol": "b"})
    for seen, what in (
        ({"data": "a", "protocol": "c"}, "protocol"),
        ({"data": "c", "protocol": "c"}, "data and protocol"),
    ):
        with pytest.raises(UserError, match=f"sweep w: its {what} changed after its first trial"):
            refuse_change(old, seen)
    refuse_change(new, {"data": "c", "protocol": "b"})
    assert import_trials(new, wider, storage) == (0, 2)
    refuse_change(new, {"data": "a", "protocol": "b"})  # it has no trial yet that would not compare
    assert import_trials(new, wider, storage) == (2, 0)


def test_imported_trials_are_held_to_the_new_bounds(work: Any, tmp_path: Path) -> None:
    space = {"loss.attention.weight": {"kind": "categorical", "choices": [0.25, 1.0, 4.0]}}
    loose = sweep(space=space, constraints={"params": 2e6}, trials=9, sampler={"kind": "random", "seed": 1})
    work(loose)
    tight = sweep(space=space, constraints={"params": 0.5e6})
    storage = open_storage(f"journal:{tmp_path / 'journal.log'}")
    study = open_study(storage, tight)
    assert import_trials(study, tight, storage) == (9, 0)
    gaps = {trial.params["loss.attention.weight"]: trial.constraints["params"] for trial in study.trials}
    assert gaps == {"0.25": -0.25e6, "1.0": 0.5e6, "4.0": 3.5e6}, "told again, relative to the new bound"
    assert report.best_trials(study, tight)[0].params["loss.attention.weight"] == "0.25"
    other = sweep(space=space, constraints={"params": 0.5e6, "peak_mem_gib": 1.0})
    assert import_trials(open_study(storage, other), other, storage) == (0, 9), "whether they fit is not known"
    free = sweep(space=space)
    study = open_study(storage, free)
    assert import_trials(study, free, storage) == (9, 0)
    assert {len(trial.constraints) for trial in study.trials} == {0}
