"""Files that survive `kill -9`: atomic replacement, append-only lines, locks that the kernel releases.

A reader sees the old file or the new one, never half of either; a line cut off by a crash is dropped on reading.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.errors import UserError


def write_bytes(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Replace `path` by `data` in one step (temporary file, fsync, rename).

    Without `durable` there is no fsync, which takes milliseconds: the file survives a kill of the process, not a loss of
    power; for what can be made again. Raises UserError when the folder cannot be written or the disk is full; `path` then
    keeps what it held.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")
    try:
        try:
            file = temporary.open("xb")
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = temporary.open("xb")
        with file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {reason(error)}") from error


def write_with(path: Path, write: Callable[[BinaryIO], object], *, durable: bool = True) -> None:
    """As `write_bytes`, for what `write` puts into the binary file it is given."""
    buffer = io.BytesIO()
    write(buffer)
    write_bytes(path, buffer.getvalue(), durable=durable)


def write_text(path: Path, text: str) -> None:
    """As `write_bytes`, for UTF-8 text."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """As `write_text`, for JSON with sorted keys and one value a line; NaN is refused."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Parse a JSON file; raises UserError naming the file when it is missing, unreadable or cut off."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason(error)}") from error
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error


def append_json_line(path: Path, value: dict[str, Any]) -> None:
    """Append one JSON object as one line, in one write call, after any line a crash has cut off."""
    line = json.dumps(value, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            if file.tell() > 0:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    line = "\n" + line  # close the cut-off line, which readers then skip
            file.write(line.encode())
    except OSError as error:
        raise UserError(f"cannot write {path}: {reason(error)}") from error


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Read the whole lines of a JSON-lines file; lines cut off by a crash are skipped, a missing file is empty."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    rows = []
    for line in lines:
        with contextlib.suppress(ValueError):
            value = json.loads(line)
            if isinstance(value, dict):
                rows.append(value)
    return rows


PROBE_RETRIES = 3
PROBE_PAUSE_S = 0.01
LOCK_WAIT_S = 0.2


class Locked(UserError):
    """Another process holds the lock."""


@contextlib.contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path` while the block runs; raises `Locked` at once when another process has it.

    The kernel drops the lock with the process, so a killed run never leaves a stale one.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise UserError(f"cannot write {path}: {reason(error)}") from error
    with file:
        for attempt in range(PROBE_RETRIES, -1, -1):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    raise
                if attempt == 0:
                    raise Locked(f"{path.parent} is in use by another process") from error
                time.sleep(PROBE_PAUSE_S)  # it may be `is_locked` of a status display, which holds it for microseconds
        yield


@contextlib.contextmanager
def patient_lock(path: Path) -> Iterator[None]:
    """As `exclusive_lock`, but waits until the lock is free: for what several processes need and one should make."""
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(exclusive_lock(path))
                break
            except Locked:
                time.sleep(LOCK_WAIT_S)
        yield


def is_locked(path: Path) -> bool:
    """Tell whether some live process holds the lock on `path`."""
    if not path.exists():
        return False
    try:
        with exclusive_lock(path):
            return False
    except Locked:
        return True
    except UserError:
        return False  # a read-only store: nobody can be writing to it through this mount


def reason(error: OSError) -> str:
    """The operating system's own words for an error, without the numbers and paths around them."""
    return (error.strerror or str(error)).lower()
