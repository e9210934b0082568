"""Which sweep a word means: a file, a shipped one or one that has run; its revision and its storage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import UserError, nearest
from pipeline.schema.files import find_folder, is_file_name

if TYPE_CHECKING:
    import optuna

    from sweeps.sweep import Sweep


def find_sweep(word: str, out: Path, storage: str | None, extra: tuple[str, ...]) -> tuple[Sweep, Path]:
    """The sweep, with `extra` overrides added to its base, and the folder of sweeps and runs that the word means.

    `word`: a file, the name of a shipped sweep or of one that has run, or its folder OUT/sweeps/NAME. Raises UserError.
    """
    from sweeps.storage import ROOM, open_storage, studies_of
    from sweeps.sweep import load_sweep, parse_sweep, shipped, with_extra

    out, name = find_folder(word, out, ROOM)
    if is_file_name(word) or name in shipped():
        return load_sweep(word if is_file_name(word) else name, extra, out), out
    ran = sorted(path.parent.name for path in (out / ROOM).glob("*/journal.log"))
    if storage is not None or name in ran:
        revisions = studies_of(open_storage(storage_url(storage, out, name)), name)
        if revisions:
            return with_extra(parse_sweep(revisions[-1].user_attrs["sweep"], f"sweep {name}"), extra, out), out
    known = [*shipped(), *ran]
    raise UserError(f"unknown sweep {word!r}{nearest(name, known)}; there are: {', '.join(known)}, or a .yaml file")


def find_started(word: str, out: Path, storage: str | None, extra: tuple[str, ...]) -> tuple[Sweep, optuna.Study, Path]:
    """The newest revision in the storage; with `extra` overrides, the revision that those make. As `find_sweep` else."""
    from sweeps.storage import folder_of, open_storage, open_study, studies_of
    from sweeps.sweep import parse_sweep

    sweep, out = find_sweep(word, out, storage, extra)
    folder = folder_of(out, sweep.name)
    if storage is None and not (folder / "journal.log").exists():
        raise UserError(f"sweep {sweep.name}: nothing in {folder}; start it: python -m sweeps run {word}")
    opened = open_storage(storage_url(storage, out, sweep.name))
    revisions = studies_of(opened, sweep.name)
    if extra or not revisions:
        return sweep, open_study(opened, sweep, create=False), out
    return parse_sweep(revisions[-1].user_attrs["sweep"], f"sweep {sweep.name}"), revisions[-1], out


def storage_url(storage: str | None, out: Path, name: str) -> str:
    """The storage that a user named, or the sweep's own journal."""
    from sweeps.storage import default_storage

    return storage if storage is not None else default_storage(out, name)
