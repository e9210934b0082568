"""Where trials are kept: a journal file (no server, one machine or a shared disk) or PostgreSQL by URL.

One Optuna study a revision of a sweep: a changed space, objective or base is another search, and old trials are not silently
mixed in.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock
from optuna.trial import FrozenTrial, TrialState, create_trial

from pipeline.errors import UserError
from pipeline.records import atomic
from sweeps.space import enters
from sweeps.sweep import Sweep

if TYPE_CHECKING:
    from typing import TextIO

optuna.logging.set_verbosity(optuna.logging.WARNING)
ROOM = "sweeps"  # folder of an output folder
SEEN = "seen"  # attribute of a study: digests of the data and of the protocol of its first trial
_CONNECT_RETRIES = 5  # several workers may create the tables at once; all but one are told to try again


class KernelLock(BaseJournalFileLock):
    """A lock the kernel releases with its process: a worker killed while it writes leaves no stale one.

    Its file is not Optuna's `.lock`, a link that programs like optuna-dashboard make, wait for and remove.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._path = journal.with_name(f"{journal.name}.flock")
        self._file: TextIO | None = None

    def acquire(self) -> bool:
        self._file = self._path.open("a")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            _mend(self._journal)  # before anything is written behind what another worker left unfinished
        except OSError:
            self.release()
            raise
        return True

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class Journal(JournalFileBackend):
    """Optuna's journal file; a disk that is full or gone, or a damaged line, is one line to the user, not a traceback."""

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        with _disk_errors("write", self._file_path):
            super().append_logs(logs)

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        number = log_number_from
        try:
            with _disk_errors("read", self._file_path):
                for log in super().read_logs(log_number_from):
                    if not isinstance(log, dict) or not log.keys() >= {"op_code", "worker_id"}:
                        raise ValueError("not an entry")
                    yield log
                    number += 1
        except ValueError as error:
            raise UserError(
                f"{self._file_path} is damaged in line {number + 1}: bring it back from a copy, or search in another folder (--out)"
            ) from error


@contextlib.contextmanager
def _disk_errors(verb: str, path: str | Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot {verb} {path}: {atomic.reason(error)}") from error


def folder_of(out: Path, name: str) -> Path:
    """Where a sweep's journal, best trial and plots lie."""
    return out / ROOM / name


def default_storage(out: Path, name: str) -> str:
    """The journal file of a sweep."""
    return f"journal:{folder_of(out, name) / 'journal.log'}"


def open_storage(url: str) -> BaseStorage:
    """`journal:PATH`, or a database URL; raises UserError, one line, when it cannot be reached."""
    if url.startswith("journal:"):
        return _open_journal(Path(url.removeprefix("journal:")))
    if url.startswith(("postgresql://", "postgres://")):
        url = f"postgresql+psycopg://{url.partition('://')[2]}"
    from sqlalchemy.exc import IntegrityError, ProgrammingError, SQLAlchemyError

    for attempt in range(_CONNECT_RETRIES):
        try:
            return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
        except (ProgrammingError, IntegrityError) as error:
            if attempt == _CONNECT_RETRIES - 1:
                raise UserError(f"storage {_shown(url)}: {_first_line(error)}") from error
            time.sleep(0.2 * (attempt + 1))
        except ImportError as error:
            raise UserError(
                f"storage {_shown(url)} needs a driver: pip install 'ca2sis-lab[postgres]' ({error})"
            ) from error
        except (SQLAlchemyError, RuntimeError) as error:  # the latter: tables of another version of Optuna
            raise UserError(f"storage {_shown(url)} cannot be opened: {_first_line(error)}") from error
        except ValueError as error:  # its text may hold a piece of the password
            raise UserError(
                f"storage {_shown(url)} cannot be opened: write postgresql://user:password@host:port/database, the port a number, "
                "special characters of the password as %XX"
            ) from error
    raise AssertionError("the loop returns or raises")


def _open_journal(path: Path) -> BaseStorage:
    if not path.name:
        raise UserError("storage journal: names no file; write journal:PATH, for instance journal:trials.log")
    with _disk_errors("write", path), warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        path.parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(Journal(str(path), lock_obj=KernelLock(path)))


def _mend(path: Path) -> None:
    """Cut off a last line that a crash or a full disk left unfinished: the journal refuses to be read past one."""
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return
        file.seek(size - 1)
        if file.read(1) != b"\n":  # rare: only then is the file read
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)


def studies_of(storage: BaseStorage, name: str) -> list[optuna.Study]:
    """All revisions of a sweep, oldest first; without one whose maker was stopped before it had said what it is."""
    found = [item for item in optuna.get_all_study_names(storage) if item.rpartition("@")[0] == name]
    studies = [optuna.load_study(study_name=item, storage=storage) for item in found]
    numbers = {study.study_name: study.user_attrs.get("revision") for study in studies}
    return sorted(
        (study for study in studies if numbers[study.study_name] is not None),
        key=lambda study: int(numbers[study.study_name]),
    )


def open_study(storage: BaseStorage, sweep: Sweep, *, create: bool = True) -> optuna.Study:
    """The Optuna study of this revision of the sweep; made when it does not exist and `create` says so."""
    name = f"{sweep.name}@{sweep.digest[:12]}"
    existing = {study.study_name: study for study in studies_of(storage, sweep.name)}
    if name in existing:
        return existing[name]
    if not create:
        raise UserError(
            f"sweep {sweep.name}: not in this storage yet; start it with: python -m sweeps run {sweep.name}"
        )
    study = optuna.create_study(study_name=name, storage=storage, directions=sweep.directions, load_if_exists=True)
    study.set_user_attr("sweep", sweep.model_dump(mode="json"))
    study.set_user_attr("question", " ".join(sweep.question.split()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names(list(sweep.objectives))
    study.set_user_attr("revision", len(existing) + 1)  # last: it says that the others are there
    return study


def refuse_change(study: optuna.Study, seen: dict[str, str]) -> None:
    """Note what the first worker of a sweep saw (`seen_by`); UserError where a later one would see something else."""
    before: dict[str, str] | None = study.user_attrs.get(SEEN)
    if before is None or not study.get_trials(deepcopy=False):
        study.set_user_attr(SEEN, seen)
        return
    if changed := [what for what in seen if before.get(what) != seen[what]]:
        name = study.study_name.rpartition("@")[0]
        raise UserError(
            f"sweep {name}: its {' and '.join(changed)} changed after its first trial, so new trials would not compare "
            "with the old ones; search in another folder (--out), or under another name (a copy of the sweep's file)"
        )


def import_trials(study: optuna.Study, sweep: Sweep, storage: BaseStorage) -> tuple[int, int]:
    """Take over finished trials of older revisions that are points of this space; returns (imported, left out).

    Only where base, objectives, protocol and run seed are the same, and data and protocol hold what they held: elsewhere the
    old values mean something else. A trial
    of which a metric of the constraints is not known is left out: it could not be told from one that keeps them.
    """
    mine = sweep.model_dump(mode="json", include={"base", "objectives", "protocol", "seed"})
    already = {trial.user_attrs.get("imported_from") for trial in study.trials}
    imported = left = 0
    for old in studies_of(storage, sweep.name):
        if old.study_name == study.study_name:
            continue
        theirs: dict[str, Any] = old.user_attrs["sweep"]
        comparable = old.user_attrs.get(SEEN) == study.user_attrs.get(SEEN)
        comparable &= all(theirs.get(key) == value for key, value in mine.items())
        for trial in old.get_trials(states=(TrialState.COMPLETE,)):
            source = f"{old.study_name}/{trial.number}"
            if source in already or "imported_from" in trial.user_attrs:
                continue
            measured = {name: gap + theirs["constraints"][name] for name, gap in trial.constraints.items()}
            if not comparable or not _is_point(trial, sweep) or not measured.keys() >= sweep.constraints.keys():
                left += 1
                continue
            kept = {key: trial.user_attrs[key] for key in ("run_id", "overrides") if key in trial.user_attrs}
            study.add_trial(
                create_trial(
                    values=trial.values,
                    params=trial.params,
                    distributions={key: sweep.space[key].distribution() for key in trial.params},
                    user_attrs={**kept, "imported_from": source},
                    intermediate_values=trial.intermediate_values,
                    constraints={name: measured[name] - bound for name, bound in sweep.constraints.items()},
                )
            )
            imported += 1
    return imported, left


def _is_point(trial: FrozenTrial, sweep: Sweep) -> bool:
    """Whether a trial has exactly the parameters that enter, each within its range."""
    values: dict[str, Any] = {}
    for key, parameter in sweep.space.items():
        if enters(parameter, values):
            if key not in trial.params:
                return False
            distribution = parameter.distribution()
            with contextlib.suppress(ValueError, TypeError):
                if distribution._contains(distribution.to_internal_repr(trial.params[key])):
                    values[key] = trial.params[key]
                    continue
            return False
    return set(values) == set(trial.params)


def _shown(url: str) -> str:
    """A URL without its password."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url).render_as_string(hide_password=True)
    except (ArgumentError, ValueError):
        return url.rpartition("@")[2]


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
