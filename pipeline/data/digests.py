"""sha256 of files, remembered by path, size and times in the user's cache, so that large sets are read once."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from pipeline.errors import UserError
from pipeline.identity import canonical_digest, file_digest
from pipeline.progress import LongStep


def user_cache() -> Path:
    """Folder for what can be made again: `$XDG_CACHE_HOME/ca2sis`, else `~/.cache/ca2sis`."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "ca2sis"


def file_digests(root: Path, paths: Sequence[Path]) -> dict[Path, str]:
    """Hex sha256 of every path; a file whose size and times did not change since it was read is not read again.

    `root` is only used to keep one cache entry a file however the root was spelled. Where the cache cannot be written, every
    file is read: slower, never different. UserError: a file that cannot be read.
    """
    keys = {path: _readable(_stat_key, path) for path in paths}
    known = _load(list(keys.values()))
    fresh: dict[str, str] = {}
    result: dict[Path, str] = {}
    shown = LongStep("reading files for the data fingerprint, once:", len(keys))
    for number, (path, key) in enumerate(keys.items(), start=1):
        if key not in known:
            known[key] = fresh[key] = _readable(file_digest, path)
        result[path] = known[key]
        shown.update(number)
    _store(fresh)
    return result


def named_digest(files: Mapping[str, Path]) -> str:
    """sha256 over names and contents of files, whatever folder they lie in; raises OSError where one cannot be read."""
    return canonical_digest([[name, file_digest(path)] for name, path in sorted(files.items())])


def _readable(read: Callable[[Path], str], path: Path) -> str:
    try:
        return read(path)
    except OSError as error:  # a link that leads nowhere, for one
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def _stat_key(path: Path) -> str:
    real = path.resolve()
    stat = real.stat()
    return f"{real}\t{stat.st_size}\t{stat.st_mtime_ns}\t{stat.st_ctime_ns}\t{stat.st_ino}"


def _connect() -> sqlite3.Connection:
    folder = user_cache()
    folder.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(folder / "file_digests.sqlite", timeout=20.0)
    connection.execute("CREATE TABLE IF NOT EXISTS digests (key TEXT PRIMARY KEY, sha256 TEXT NOT NULL)")
    return connection


def _load(keys: list[str]) -> dict[str, str]:
    try:
        with closing(_connect()) as connection:
            found: dict[str, str] = {}
            for i in range(0, len(keys), 500):
                part = keys[i : i + 500]
                marks = ",".join("?" * len(part))
                found.update(
                    connection.execute(f"SELECT key, sha256 FROM digests WHERE key IN ({marks})", part).fetchall()
                )
            return found
    except (OSError, sqlite3.Error):  # the cache only saves time
        return {}


def _store(fresh: dict[str, str]) -> None:
    if not fresh:
        return
    try:
        with closing(_connect()) as connection, connection:
            connection.executemany("INSERT OR REPLACE INTO digests VALUES (?, ?)", list(fresh.items()))
    except (OSError, sqlite3.Error):  # read-only home or full disk: the next call reads the files again
        return
