"""`data prepare`: idempotent, resumable, parallel.

Every finished sample is a line in a journal; a run that is killed goes on where it stopped and ends with the manifest
of an undisturbed run, because the manifest depends on the samples alone, not on the order or the time they were made.
Before files that a manifest describes are made anew, it is withdrawn: a root says what it holds or that it is not finished.
"""

from __future__ import annotations

import errno
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.data.adapters.prepared import MANIFEST, MANIFEST_FORMAT, WORK
from pipeline.data.class_use import lacking, said
from pipeline.data.crop import cropping, usual_aspect
from pipeline.data.digests import file_digests
from pipeline.data.grouping import groups_of
from pipeline.data.prepare.duplicates import duplicate_groups, keep_apart
from pipeline.data.prepare.own import OwnLayout, find_own, is_own
from pipeline.data.prepare.raw import Job, Raw, find_raw
from pipeline.data.prepare.sample import SAMPLE_FORMAT, PreparedSample, label_name, prepare_sample, signature
from pipeline.data.prepare.splits import prepared_splits
from pipeline.errors import UserError
from pipeline.identity import canonical_digest
from pipeline.records.atomic import (
    Locked,
    append_json_line,
    exclusive_lock,
    read_json_lines,
    reason,
    write_bytes,
    write_json,
)

_SHOWN_ERRORS = 5
_WAITING_PER_WORKER = 4
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Prepared:
    """What a preparation has done."""

    root: Path
    samples: int
    reused: int  # samples that were ready from an earlier run
    default_split: str
    split_sizes: dict[str, dict[str, int]]
    duplicates: int  # groups of the same photo
    manifest_sha256: str  # of the manifest's content
    lacking: str = ""  # classes that splits of the default rule lack, for people
    cropping: tuple[
        str, ...
    ] = ()  # what is cut away from photos of a plain folder, at the proposed aspect and as squares


def prepare(
    name: str,
    source: Path,
    target: Path,
    *,
    space_name: str,
    workers: int,
    progress: OnProgress | None = None,
    layout: OwnLayout | None = None,
    group: str | None = None,
) -> Prepared:
    """Prepare data set `name` from the downloaded folder `source` into `target` and write its manifest.

    `layout`: of a `folder` that has its files elsewhere or otherwise than usual. `group`: rule of samples that belong together
    (`grouping.groups_of`), for a split that keeps them so.

    UserError: unknown layout, unpaired or unreadable files (all are looked at, the first are named), a target that is
    another data set, in use by another `prepare`, not writable, or out of space. What is done stays done.
    """
    if name != "folder" and layout is not None and not layout.usual:
        raise UserError(f"options that say how label maps are read belong to `data prepare folder`, not to {name}")
    own = name == "folder" and layout is not None and is_own(source, layout)
    raw = find_own(source, layout) if own and layout is not None else find_raw(name, source, space_name)
    if target.resolve() == source.resolve() or source.resolve() in target.resolve().parents:
        raise UserError(f"--to {target}: lies inside --from {source}; give a folder outside it")
    work = target / WORK
    try:
        with exclusive_lock(work / "lock"):
            return _prepare_locked(name, raw, target, work, workers, progress, group)
    except Locked as error:
        raise UserError(f"--to {target}: another prepare is writing into it; wait for it to end") from error
    except OSError as error:
        hint = "; free some space and run again, what is done is kept" if error.errno == errno.ENOSPC else ""
        raise UserError(f"--to {target}: {reason(error)}{hint}") from error


def _prepare_locked(
    name: str, raw: Raw, target: Path, work: Path, workers: int, progress: OnProgress | None, group: str | None
) -> Prepared:
    reading = {"reading": raw.reader.settings} if raw.reader.settings else {}
    space = {"space": raw.space.raw_to_class, "classes": list(raw.space.classes)}
    settings = canonical_digest({"data": name, "format": SAMPLE_FORMAT, **space, **reading})
    if group is not None:
        groups_of(group, [job.key for job in raw.jobs], "--group")  # a mistake is said before any work
    journal = work / "journal.jsonl"
    rows = read_json_lines(journal)
    _refuse_another(rows, raw, target)
    done = _ready([row for row in rows if row.get("settings") == settings], raw, target)
    scratch = work / "scratch"
    if scratch.exists():
        shutil.rmtree(scratch)  # left behind by a killed run
    for folder in (scratch, target / "photos", target / "labels", target / "instances"):
        folder.mkdir(parents=True, exist_ok=True)
    waiting = [job for job in raw.jobs if job.key not in done]
    if any((target / label_name(job.key)).exists() for job in waiting):
        (target / MANIFEST).unlink(missing_ok=True)
    reused = len(done)
    errors: list[str] = []
    for job, outcome in _outcomes(waiting, raw, target, scratch, workers):
        if isinstance(outcome, PreparedSample):
            done[job.key] = outcome
            append_json_line(
                journal, {"key": job.key, "settings": settings, "raw": signature(job), "sample": outcome.as_dict()}
            )
        else:
            errors.append(str(outcome))
        if progress is not None:
            progress(len(done) + len(errors), len(raw.jobs))
    shutil.rmtree(scratch)
    if errors:
        more = f"; and {len(errors) - _SHOWN_ERRORS} more" if len(errors) > _SHOWN_ERRORS else ""
        raise UserError(
            f"{len(errors)} of {len(raw.jobs)} samples cannot be prepared: {'; '.join(sorted(errors)[:_SHOWN_ERRORS])}{more}"
        )
    for path in raw.extra_files:
        write_bytes(target / path.name, path.read_bytes())
    for name_of, text in raw.extra_texts.items():
        write_bytes(target / name_of, text.encode())
    manifest = build_manifest(name, raw, [done[job.key] for job in raw.jobs], target, group)
    write_json(target / MANIFEST, manifest)
    _remove_strangers(target, manifest)
    if not any((target / "instances").iterdir()):
        (target / "instances").rmdir()
    classes_of = {key: tuple(entry["pixels"]) for key, entry in manifest["samples"].items()}
    return Prepared(
        root=target,
        samples=len(done),
        reused=reused,
        default_split=manifest["default_split"],
        split_sizes={rule: {s: len(keys) for s, keys in parts.items()} for rule, parts in manifest["splits"].items()},
        duplicates=len(manifest["duplicates"]),
        manifest_sha256=canonical_digest(manifest),
        lacking=said(lacking(classes_of, manifest["splits"][manifest["default_split"]])),
        cropping=_cropping(manifest) if name == "folder" else (),
    )


def _refuse_another(journal: list[dict[str, Any]], raw: Raw, target: Path) -> None:
    """UserError where the root was prepared from other photos, every one of them: it would be lost to what was trained on it."""
    photos = {row["key"]: row["raw"][0] for row in journal}
    if (target / MANIFEST).is_file() and photos and all(signature(job)[0] != photos.get(job.key) for job in raw.jobs):
        raise UserError(f"--to {target}: was prepared from other photos; give another folder, or remove it first")


def _ready(journal: list[dict[str, Any]], raw: Raw, target: Path) -> dict[str, PreparedSample]:
    """By key, the samples that earlier runs finished and whose raw and prepared files are still those they were."""
    rows = {row["key"]: row for row in journal}
    found: dict[str, dict[Path, str]] = {}  # digests of the prepared files, as they were written
    for job in raw.jobs:
        row = rows.get(job.key)
        if row is not None and row["raw"] == signature(job) and row["sample"]["part"] == job.part:
            kinds = [kind for kind in ("photo", "label", "instance") if row["sample"][kind]]
            files = {target / row["sample"][kind]: row["sample"][f"{kind}_sha256"] for kind in kinds}
            if all(path.is_file() for path in files):
                found[job.key] = files
    now = file_digests(target, [path for files in found.values() for path in files])
    return {
        key: PreparedSample(**rows[key]["sample"])
        for key, files in found.items()
        if all(now[path] == digest for path, digest in files.items())
    }


def _outcomes(
    jobs: list[Job], raw: Raw, target: Path, scratch: Path, workers: int
) -> Iterator[tuple[Job, PreparedSample | UserError]]:
    """Prepared samples in the order they are finished; a full disk or the like (OSError) ends it all."""
    with ThreadPoolExecutor(max(1, workers), thread_name_prefix="prepare") as pool:
        running: dict[Future[PreparedSample], Job] = {}
        ahead = iter(jobs)
        try:
            while True:
                while len(running) < max(1, workers) * _WAITING_PER_WORKER and (job := next(ahead, None)) is not None:
                    running[pool.submit(prepare_sample, job, raw.space, raw.reader, target, scratch)] = job
                if not running:
                    return
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in sorted(finished, key=_fatal):  # what is done is kept, then a fatal error ends it
                    job = running.pop(future)
                    error = future.exception()
                    if isinstance(error, UserError):
                        yield job, error
                    else:
                        yield job, future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _fatal(future: Future[PreparedSample]) -> bool:
    return future.exception() is not None and not isinstance(future.exception(), UserError)


def _cropping(manifest: dict[str, Any]) -> tuple[str, ...]:
    sizes = [(entry["width"], entry["height"]) for entry in manifest["samples"].values()]
    aspects = dict.fromkeys((manifest.get("aspect", 1.0), 1.0))
    return tuple(cropping(sizes, aspect, "cover") for aspect in aspects)


def build_manifest(
    name: str, raw: Raw, samples: list[PreparedSample], target: Path, group: str | None = None
) -> dict[str, Any]:
    """The manifest: no paths of this machine, no times; equal for equal data."""
    groups = duplicate_groups(samples)
    default, rules = prepared_splits(name, samples, target, group)
    splits, removed = {}, {}
    for rule, parts in rules.items():
        splits[rule], gone = keep_apart(parts, groups)
        if gone:
            removed[rule] = gone
    pixels: Counter[str] = Counter()
    images: Counter[str] = Counter()
    for sample in samples:
        pixels.update(sample.pixels)
        images.update(sample.pixels.keys())
    return {
        "format": MANIFEST_FORMAT,
        "data": name,
        "layout": raw.layout,
        "label_space": raw.space.name,
        "classes": list(raw.space.classes),
        "samples": {s.key: {k: v for k, v in s.as_dict().items() if k != "key"} for s in samples},
        "default_split": default,
        "splits": splits,
        "split_sha256": {rule: canonical_digest(parts) for rule, parts in splits.items()},
        "duplicates": groups,
        "removed_duplicates": removed,
        **proposed_aspect(name, samples),
        "histogram": {c: {"pixels": pixels[c], "images": images[c]} for c in raw.space.classes},
    }


def proposed_aspect(name: str, samples: list[PreparedSample]) -> dict[str, float]:
    """The aspect a plain folder's photos are trained at where a config sets none; left out where it is 1, as it always was."""
    aspect = usual_aspect([(s.width, s.height) for s in samples]) if name == "folder" else 1.0
    return {} if aspect == 1.0 else {"aspect": aspect}


def _remove_strangers(target: Path, manifest: dict[str, Any]) -> None:
    """Files of an earlier preparation that no longer belong (their raw samples have gone)."""
    wanted = {entry[kind] for entry in manifest["samples"].values() for kind in ("photo", "label", "instance")}
    for folder in ("photos", "labels", "instances"):
        for path in (target / folder).iterdir():
            if f"{folder}/{path.name}" not in wanted:
                path.unlink()
