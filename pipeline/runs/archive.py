"""The container of a packed run, and how one from anywhere is read: nothing in it is executed, nothing is written elsewhere.

A zip file whose members are stored uncompressed (so that it cannot be larger inside than outside), each listed with size and sha256
in `pack.json`, which also says what was left out. A reader takes members of known names alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import secrets
import stat
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.errors import UserError
from pipeline.records import atomic

LIST = "pack.json"
FORMAT = 1
PARTS = ("weights", "pictures")  # what may be left out
MOST_MEMBERS = 200_000
MOST_TEXT = 64 * 2**20  # bytes of a member that is parsed as text
EPOCH = (1980, 1, 1, 0, 0, 0)  # of every member: equal content, equal bytes
# What a packed run consists of: these, and pictures two folders deep.
FILES = frozenset(
    {"README.md", "weights.safetensors"}
    | {f"record/{name}" for name in (
        "identity.json", "config.yaml", "status.json", "provenance.json", "metrics.json", "history.jsonl", "per_image.parquet",
        "access.npz", "pictures/index.json",
    )}
)  # fmt: skip
PICTURES = re.compile(r"record/(samples|pictures)/[^/]+/[^/]+\.(png|json)")


def write_archive(file: Path, run_id: str, members: Mapping[str, bytes | Path], without: Collection[str] = ()) -> None:
    """Write an archive of `members`, in one step; equal members give equal bytes. `without`: parts left out, of `PARTS`."""
    listed: dict[str, dict[str, Any]] = {}
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(6)}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(temporary, "x", zipfile.ZIP_STORED) as archive:
            for name in sorted(members):
                content = members[name]
                data = content if isinstance(content, bytes) else content.read_bytes()
                listed[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                archive.writestr(zipfile.ZipInfo(name, EPOCH), data)
            left_out = {"without": sorted(without)} if without else {}
            text = json.dumps({"format": FORMAT, "run": run_id, "files": listed, **left_out}, indent=1, sort_keys=True)
            archive.writestr(zipfile.ZipInfo(LIST, EPOCH), text + "\n")
        temporary.replace(file)
    except OSError as error:
        raise UserError(f"cannot write {file}: {atomic.reason(error)}") from error
    finally:
        with contextlib.suppress(OSError):  # where the folder cannot be one, there is nothing to remove either
            temporary.unlink(missing_ok=True)


def read_archive(file: Path, target: Path) -> tuple[str, frozenset[str]]:
    """Check the archive `file` and write its members below the empty folder `target`.

    Returns the run id it says, and the parts it says were left out.

    Raises UserError naming file and member for whatever `write_archive` would not have written: a path that leads elsewhere, a
    link, an unknown or repeated name, compression, another size or digest than listed.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            infos = _checked(file, archive)
            listed = _list_of(file, archive, infos)
            for name, facts in listed["files"].items():
                data = _read(file, archive, infos[name])
                if len(data) != facts["bytes"] or hashlib.sha256(data).hexdigest() != facts["sha256"]:
                    raise _refused(file, name, "its content is not what pack.json lists")
                atomic.write_bytes(target.joinpath(*PurePosixPath(name).parts), data, durable=False)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, EOFError, RuntimeError) as error:
        raise UserError(f"{file} is refused: it is no sound archive ({error})") from error
    except OSError as error:
        raise UserError(f"cannot read {file}: {atomic.reason(error)}") from error
    return str(listed["run"]), frozenset(listed.get("without", ()))


def _checked(file: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The members by name, judged by the archive's own directory before any of them is opened."""
    infos: dict[str, zipfile.ZipInfo] = {}
    members = archive.infolist()
    if len(members) > MOST_MEMBERS:
        raise UserError(f"{file} is refused: {len(members)} members, at most {MOST_MEMBERS} are read")
    for info in members:
        name = info.filename
        parts = PurePosixPath(name).parts
        if (
            name.startswith("/")
            or "\\" in name
            or "\0" in info.orig_filename
            or ":" in name
            or ".." in parts
            or not parts
        ):
            raise _refused(file, name, "its path leads out of the archive")
        mode = info.external_attr >> 16
        if stat.S_ISLNK(mode) or (stat.S_IFMT(mode) and not stat.S_ISREG(mode)):
            raise _refused(file, name, "it is a link or no plain file")
        if name != LIST and name not in FILES and not (PICTURES.fullmatch(name) and str(PurePosixPath(name)) == name):
            raise _refused(file, name, "a packed run has no such file")
        if name in infos:
            raise _refused(file, name, "it is there twice")
        if info.flag_bits & 0x1:
            raise _refused(file, name, "it is encrypted")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise _refused(file, name, "it is compressed; members of a packed run are stored as they are")
        infos[name] = info
    total = sum(info.file_size for info in infos.values())
    if total > file.stat().st_size:
        raise UserError(f"{file} is refused: its members say {total} bytes, the file has {file.stat().st_size}")
    return infos


def _list_of(file: Path, archive: zipfile.ZipFile, infos: Mapping[str, zipfile.ZipInfo]) -> dict[str, Any]:
    """The content of `pack.json`, which must list the other members and no others."""
    if LIST not in infos or infos[LIST].file_size > MOST_TEXT:
        raise UserError(f"{file} is refused: it holds no {LIST}; `python -m pipeline pack RUN` makes such archives")
    value = parse_json(_read(file, archive, infos[LIST]), f"{file}, {LIST}")
    files = value.get("files") if isinstance(value, dict) else None
    if not isinstance(files, dict) or value.get("format") != FORMAT or not _is_digest(value.get("run")):
        raise UserError(f"{file} is refused: {LIST} is not of format {FORMAT}")
    without = value.get("without", [])
    if not isinstance(without, list) or not all(part in PARTS for part in without):
        raise UserError(f"{file} is refused: {LIST} leaves out something else than {' and '.join(PARTS)}")
    if set(files) != set(infos) - {LIST}:
        other = sorted(set(files) ^ (set(infos) - {LIST}))[0]
        raise _refused(file, other, f"{LIST} and the archive do not agree about it")
    for name, facts in files.items():
        if (
            not isinstance(facts, dict)
            or facts.get("bytes") != infos[name].file_size
            or not _is_digest(facts.get("sha256"))
        ):
            raise _refused(file, name, "its content is not what pack.json lists")
    return value


def _read(file: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with archive.open(info) as member:
        data = member.read(info.file_size + 1)
    if len(data) != info.file_size:
        raise _refused(file, info.filename, "it has another size than it says")
    return data


def parse_json(data: bytes, what: str) -> Any:
    """JSON from elsewhere; UserError where it is none, or nested without end."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{what} is refused: not valid JSON ({type(error).__name__})") from error


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _refused(file: Path, member: str, why: str) -> UserError:
    return UserError(f"{file} is refused: member {member[:200]!r}: {why}")
