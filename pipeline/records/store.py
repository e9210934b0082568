"""The run store: `runs/<id>/`, one folder a run, the source of truth for tables.

Layout: `identity.json` (the canonical text whose sha256 is the id), `config.yaml` (the whole resolved config, for people),
`status.json`, `provenance.json`, `history.jsonl`, `metrics.json`, `per_image.parquet`, `access.npz` (tables of learned access, if
there are any), `samples/`, `checkpoints/`; of an external record `pictures/` instead of checkpoints.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import socket
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError
from pipeline.identity import digest
from pipeline.records import atomic
from pipeline.records.metric_specs import as_written_today
from pipeline.records.rows import MetricRow

if TYPE_CHECKING:
    import numpy
    import pandas

SCHEMA_VERSION = 1
RUN_STATES = ("planned", "running", "finished", "failed", "diverged", "preempted", "pruned")
PER_IMAGE_COLUMNS = ("key", "metric", "value", "split", "fingerprint")
SHORT_ID = 10  # characters of an id shown to people; the full id is the name of the folder


def now() -> str:
    """UTC time to the second, ISO 8601. Never enters an identity."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def rows_of(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of a `metrics.json`, each with a name. Raises ValueError: rows of another schema, or none."""
    schema, rows = document.get("schema"), document.get("rows")
    if schema != SCHEMA_VERSION:
        raise ValueError(f"it has schema {schema}, this version reads {SCHEMA_VERSION}")
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "name" in row for row in rows):
        raise ValueError("it has rows without a name")
    return rows


class RunRecord:
    """One run's folder. Reading is always safe; writing belongs to the process that holds `writing()`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = path.name

    # -- reading -------------------------------------------------------------------------------------------------------

    @property
    def exists(self) -> bool:
        return (self.path / "identity.json").exists()

    @property
    def cache(self) -> Path:
        """`OUT/cache`: what all runs of an output folder share and anybody can make again."""
        return self.path.parent.parent / "cache"

    @property
    def identity(self) -> dict[str, Any]:
        """`{"config": ..., "data": fingerprint, "schema": version}`: what the id is the digest of."""
        return self._object("identity.json")

    def _object(self, name: str) -> dict[str, Any]:
        """The JSON object in one of the record's files; raises UserError naming the file where there is none."""
        value = atomic.read_json(self.path / name)
        if not isinstance(value, dict):
            raise UserError(f"{self.path / name} does not hold an object")
        return value

    @property
    def config_yaml(self) -> str:
        """The whole resolved config as YAML text."""
        try:
            return (self.path / "config.yaml").read_text()
        except OSError as error:
            raise UserError(f"cannot read {self.path / 'config.yaml'}: {atomic.reason(error)}") from error

    @property
    def status(self) -> dict[str, Any]:
        """`{"state", "reason", "attempts": [...], "heartbeat", "progress": {"iteration", "iterations"}, "kind"}`.

        What the file does not say, or all of it where there is none that can be read, is as in a run that is planned.
        """
        planned: dict[str, Any] = {
            "state": "planned",
            "reason": "",
            "attempts": [],
            "heartbeat": None,
            "progress": {},
            "kind": "",
        }
        try:
            return {**planned, **self._object("status.json")}
        except UserError:
            return planned

    @property
    def state(self) -> str:
        """The recorded state; "running" without a living process reads as "preempted"."""
        state = self.status["state"]
        return "preempted" if state == "running" and not self.is_live else state

    @property
    def is_live(self) -> bool:
        return atomic.is_locked(self.path / "run.lock")

    @property
    def provenance(self) -> dict[str, Any]:
        """Commit, versions, device, times, costs; empty before the run started."""
        return self._object("provenance.json") if (self.path / "provenance.json").exists() else {}

    @property
    def metrics(self) -> list[MetricRow]:
        path = self.path / "metrics.json"
        if not path.exists():
            return []
        document, provenance = self._object("metrics.json"), self.provenance
        try:
            return [MetricRow.from_json(as_written_today(row, provenance)) for row in rows_of(document)]
        except (
            TypeError,
            ValueError,
        ) as error:  # not "remove it": rows of the untrained network come from a training alone
            raise UserError(f"{path}: {error}; move it away and evaluate the run again") from error

    def is_complete(self, protocol: str, protocol_digest: str) -> bool:
        """Whether the run is finished and has rows of the protocol of this name, measured as this digest says."""
        if self.state != "finished":
            return False
        measured = self.provenance.get("protocols")  # None: written by something that keeps no digests
        if measured is not None and measured.get(protocol) != protocol_digest:
            return False
        return any(row.protocol == protocol and row.state == "trained" for row in self.metrics)

    def history(self) -> list[dict[str, Any]]:
        """Rows `{"iteration": int, "kind": "train"|"val", ...numbers}` in order of writing."""
        return atomic.read_json_lines(self.path / "history.jsonl")

    def per_image(self) -> pandas.DataFrame:
        """Tidy per-image values: key, metric, value, split, fingerprint. Empty frame when there are none."""
        import pandas as pd

        path = self.path / "per_image.parquet"
        return pd.read_parquet(path) if path.exists() else pd.DataFrame(columns=PER_IMAGE_COLUMNS)

    def access_tables(self) -> dict[str, numpy.ndarray]:
        """What a run with learned access added to its scores, by attention level, coarsest first; empty where it has none.

        Each (heads,K,K) float32 [head, class of the pixel, class of the code]. Raises UserError on a damaged file.
        """
        import numpy as np

        path = self.path / "access.npz"
        if not path.exists():
            return {}
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise UserError(f"{path} is not readable: {error}") from error

    # -- writing -------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the run while the block runs. Raises `Locked` when another process has it."""
        try:
            with atomic.exclusive_lock(self.path / "run.lock"):
                yield
        except atomic.Locked as error:
            raise atomic.Locked(
                f"run {self.id[:SHORT_ID]} is being written by another process ({self.path})"
            ) from error

    def create(self, identity_text: str, config_yaml: str) -> None:
        """Write what the run is. An existing record must have the same identity (a collision or damage otherwise)."""
        if digest(identity_text) != self.id:
            raise ValueError(f"identity text does not hash to {self.id}")
        atomic.write_text(self.path / "config.yaml", config_yaml)
        atomic.write_text(self.path / "identity.json", identity_text)  # last: its presence says the record exists

    def begin_attempt(self, kind: str) -> None:
        """Set state "running" and open an attempt; an attempt that a kill left open is closed as preempted."""
        status = self.status
        for attempt in status["attempts"]:
            if attempt["outcome"] is None:
                attempt.update(
                    outcome="preempted", reason="the process ended without a word", ended=status["heartbeat"]
                )
        status["attempts"].append(
            {
                "started": now(),
                "ended": None,
                "outcome": None,
                "reason": "",
                "host": socket.gethostname(),
                "pid": os.getpid(),
            }
        )
        status.update(state="running", reason="", heartbeat=now(), kind=kind)
        atomic.write_json(self.path / "status.json", status)

    def beat(self, iteration: int, iterations: int, doing: str = "") -> None:
        """Say that the run lives, how far it is, and what it is `doing` where that is not training."""
        status = self.status
        status.update(heartbeat=now(), progress={"iteration": iteration, "iterations": iterations, "doing": doing})
        atomic.write_json(self.path / "status.json", status)

    def end_attempt(self, state: str, reason: str = "") -> None:
        """Close the open attempt with one of `RUN_STATES`."""
        if state not in RUN_STATES:
            raise ValueError(f"unknown run state {state!r}")
        status = self.status
        if status["attempts"]:
            status["attempts"][-1].update(ended=now(), outcome=state, reason=reason)
        status.update(state=state, reason=reason, heartbeat=now())
        atomic.write_json(self.path / "status.json", status)

    def update_provenance(self, **facts: Any) -> None:
        atomic.write_json(self.path / "provenance.json", {**self.provenance, **facts})

    def log(self, row: dict[str, Any]) -> None:
        atomic.append_json_line(self.path / "history.jsonl", row)

    def truncate_history(self, iteration: int) -> None:
        """Drop rows after `iteration`: what a killed attempt logged beyond the checkpoint it is resumed from."""
        path = self.path / "history.jsonl"
        if path.exists():
            import json

            kept = [row for row in self.history() if row["iteration"] <= iteration]
            atomic.write_text(path, "".join(json.dumps(row, sort_keys=True) + "\n" for row in kept))

    def add_metrics(self, rows: Iterable[MetricRow], *, outdated: Iterable[MetricRow] = ()) -> None:
        """Add metric rows; one of the same key is replaced, and the `outdated` ones go, all in one step."""
        gone = {row.key for row in outdated}
        merged = {row.key: row for row in self.metrics if row.key not in gone}
        merged.update({row.key: row for row in rows})
        atomic.write_json(
            self.path / "metrics.json",
            {"schema": SCHEMA_VERSION, "rows": [merged[key].to_json() for key in sorted(merged)]},
        )

    def set_access_tables(self, tables: Mapping[str, numpy.ndarray]) -> None:
        """Keep tables as `access_tables` returns them; equal tables give equal bytes."""
        import numpy as np

        atomic.write_with(
            self.path / "access.npz", lambda file: np.savez_compressed(file, allow_pickle=False, **tables)
        )

    def add_per_image(self, frame: pandas.DataFrame) -> None:
        """Add per-image values; those of the same (metric, split, fingerprint) are replaced."""
        import pandas as pd

        old = self.per_image()
        if len(old):
            groups = ["metric", "split", "fingerprint"]
            replaced = set(frame[groups].itertuples(index=False, name=None))
            keep = [key not in replaced for key in old[groups].itertuples(index=False, name=None)]
            frame = pd.concat([old[keep], frame], ignore_index=True)
        columns = frame[list(PER_IMAGE_COLUMNS)]
        atomic.write_with(self.path / "per_image.parquet", lambda file: columns.to_parquet(file, index=False))


class RunStore:
    """All runs below one folder (`OUT/runs`)."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def record(self, run_id: str) -> RunRecord:
        """The record with this full id, whether or not it exists yet."""
        return RunRecord(self.root / run_id)

    def ids(self) -> list[str]:
        """Ids of all existing records, sorted."""
        try:
            with os.scandir(self.root) as entries:
                names = [
                    entry.name
                    for entry in entries
                    if len(entry.name) == 64 and Path(entry.path, "identity.json").exists()
                ]
        except FileNotFoundError:
            return []
        return sorted(names)

    def find(self, prefix: str) -> RunRecord:
        """The one record whose id starts with `prefix`, or the record with this folder; raises UserError when none or several."""
        folder = Path(prefix)
        if len(folder.parts) > 1:
            if folder.parent.resolve() != self.root.resolve():
                raise UserError(f"{prefix} is not in {self.root} (--out names the output folder)")
            prefix = folder.name
        matches = [run_id for run_id in self.ids() if run_id.startswith(prefix)] if prefix else []
        if len(matches) != 1:
            found = "no run" if not matches else f"{len(matches)} runs"
            raise UserError(f"{found} in {self.root} with an id starting with {prefix!r}")
        return self.record(matches[0])
