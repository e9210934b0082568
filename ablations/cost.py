"""What a plan will cost, from what recorded runs have cost."""

from __future__ import annotations

import contextlib
import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ablations.plan import Plan
from pipeline.errors import UserError
from pipeline.records.manifest import Cell
from pipeline.records.store import RunRecord, RunStore

_DAMAGE = (UserError, KeyError, TypeError, ValueError, AttributeError)  # what a damaged record reads as


@dataclass(frozen=True)
class Estimate:
    """Expected wall seconds of some cells; cells without a comparable recorded run are counted, not guessed."""

    seconds: float
    known: int
    unknown: int


class CostModel:
    """Wall seconds by what was recorded: the same config at another seed, else the same model at the same size per image.

    A record that cannot be read teaches nothing and stops nobody: it may be another study's.
    """

    def __init__(self, store: RunStore) -> None:
        self._exact: dict[str, list[float]] = {}
        self._per_image: dict[str, list[float]] = {}
        for record in _finished(store):
            with contextlib.suppress(*_DAMAGE):
                self._learn(record)

    def _learn(self, record: RunRecord) -> None:
        identity, provenance = record.identity, record.provenance
        seconds, images = provenance.get("wall_seconds"), provenance.get("images_seen")
        if seconds is None:
            return
        self._exact.setdefault(_without_seed(identity), []).append(float(seconds))
        if images and identity["config"].keys() >= _KIND:  # not a record of other code
            self._per_image.setdefault(_kind(identity), []).append(float(seconds) / float(images))

    def seconds(self, identity_text: str, images: int) -> float | None:
        """Expected wall seconds of a run with this identity and budget; None when nothing comparable is recorded."""
        identity = json.loads(identity_text)
        exact = self._exact.get(_without_seed(identity))
        if exact:
            return statistics.median(exact)
        rates = self._per_image.get(_kind(identity))
        return statistics.median(rates) * images if rates and images else None

    def estimate(self, plan: Plan, cells: Sequence[Cell]) -> Estimate:
        """Sum over `cells`."""
        each = [self.seconds(plan.runs[cell.run_id].identity, cell.images_seen) for cell in cells]
        known = [value for value in each if value is not None]
        return Estimate(sum(known), len(known), len(each) - len(known))


def _finished(store: RunStore) -> Iterable[RunRecord]:
    for run_id in store.ids():
        record = store.record(run_id)
        if record.status["state"] == "finished":
            yield record


def _without_seed(identity: dict) -> str:
    config = {key: value for key, value in identity["config"].items() if key != "seed"}
    return json.dumps([config, identity["data"]], sort_keys=True)


_KIND = {"model", "size", "data"}


def _kind(identity: dict) -> str:
    config = identity["config"]
    return json.dumps([config["model"], config["size"], config["data"]["name"]], sort_keys=True)
