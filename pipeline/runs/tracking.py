"""The Weights & Biases mirror of a run record: best effort, bounded in time, never a condition of the run.

A daemon thread owns everything of wandb (import, init, log, finish), so that a dead network, a missing package or a hang costs
the run nothing: the first failure opens a circuit breaker, and the reason is recorded. The record stays the source of truth;
`mirror_record` rebuilds a W&B run from it at any time.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from typing import Any

from pipeline.records import MetricRow, RunRecord
from pipeline.schema.training import TrackingConfig

FINISH_TIMEOUT_S = 30.0
_END: dict[str, Any] = {}


class Mirror:
    """One W&B run, fed through a queue. `problem` is "" while it works, else why it stopped."""

    def __init__(
        self, cfg: TrackingConfig, record: RunRecord, config: dict[str, Any], *, attempt: int, group: str
    ) -> None:
        self.problem = "" if cfg.mode != "disabled" else "tracking.mode is disabled"
        self._queue: queue.Queue[dict[str, Any]] = queue.Queue()
        self._thread: threading.Thread | None = None
        if cfg.mode != "disabled":
            settings = {
                "project": cfg.project,
                "entity": cfg.entity,
                "mode": cfg.mode,
                # A resumed W&B run drops steps below its last one, so every attempt is its own run within one group.
                "id": f"{record.id[:24]}-{attempt}",
                "name": f"{record.id[:10]}",
                "group": group,
                "dir": str(record.path),  # wandb makes its own folder "wandb" in it
                "config": config,
            }
            self._thread = threading.Thread(target=self._serve, args=(settings, cfg.init_timeout_s), daemon=True)
            self._thread.start()

    def log(self, row: dict[str, Any]) -> None:
        """Mirror one history row; `iteration` is the only x axis."""
        if self._thread is not None and not self.problem:
            self._queue.put(row)

    def summarise(self, metrics: list[MetricRow]) -> None:
        """Mirror final metrics as the summary."""
        values = {
            f"{row.state}/{row.split or 'cost'}/{row.name}": row.value for row in metrics if row.value is not None
        }
        if self._thread is not None and not self.problem:
            self._queue.put({"summary": values})

    def finish(self) -> str:
        """End the W&B run, waiting a bounded time; returns "" or why the mirror is incomplete."""
        if self._thread is not None:
            self._queue.put(_END)
            self._thread.join(FINISH_TIMEOUT_S)
            if self._thread.is_alive() and not self.problem:
                self.problem = f"wandb did not finish within {FINISH_TIMEOUT_S:.0f} s"
        return self.problem

    def _serve(self, settings: dict[str, Any], init_timeout_s: float) -> None:
        run = None
        try:
            import wandb

            if wandb.run is not None:
                raise RuntimeError("a W&B run is active in this process already")
            quiet = wandb.Settings(silent=True, console="off", init_timeout=init_timeout_s, x_disable_stats=True)
            run = wandb.init(settings=quiet, **settings)
            run.define_metric("iteration")
            run.define_metric("*", step_metric="iteration")
            while (item := self._queue.get()) is not _END:
                if "summary" in item:
                    run.summary.update(item["summary"])
                else:
                    prefix = item["kind"]
                    named = {
                        f"{prefix}/{key}": value for key, value in item.items() if key not in ("kind", "iteration")
                    }
                    run.log({**named, "iteration": item["iteration"]})
        except Exception as error:  # noqa: BLE001 - whatever a tracker raises, the run goes on and the record says why
            self.problem = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        finally:
            if run is not None:
                with contextlib.suppress(Exception):
                    run.finish()


def mirror_record(record: RunRecord, cfg: TrackingConfig) -> str:
    """Rebuild the W&B run of an ended record from its files; returns "" or why it could not be done."""
    identity = record.identity
    mirror = Mirror(cfg, record, identity["config"], attempt=len(record.status["attempts"]), group=record.id[:24])
    for row in record.history():
        mirror.log(row)
    mirror.summarise(record.metrics)
    return mirror.finish()
