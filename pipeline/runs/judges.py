"""The segmenters that judged packed runs, as files beside them.

What a segmenter says is one measurement only where one network says it, and each machine trains its own: floats differ. So the
segmenter of a study travels with its runs, as safetensors, and is taken only where it is that of their data and protocol here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors

from pipeline.config import from_yaml
from pipeline.data.build import build_dataset
from pipeline.errors import UserError
from pipeline.metrics.segmenter import kept_segmenter
from pipeline.metrics.segmenter_networks import build_network, feature_width
from pipeline.records import RunRecord, atomic
from pipeline.runs.archive import parse_json
from pipeline.runs.untrusted import refused
from pipeline.schema.evaluation import SegmenterConfig

SUFFIX = ".segmenter.safetensors"


@dataclass(frozen=True)
class Judge:
    """Where the segmenter of a run's protocol is kept, and what it must be."""

    path: Path  # in the cache of the output folder, whether or not it is there
    cfg: SegmenterConfig
    num_classes: int

    @property
    def name(self) -> str:
        return f"{self.path.stem}{SUFFIX}"


def judges_of(records: Iterable[RunRecord], cache: Path) -> dict[str, Judge]:
    """The segmenters by which runs are judged, by the name of the packed file; none for runs whose photos are not here."""
    found: dict[str, Judge] = {}
    seen: set[str] = set()
    for record in records:
        config = from_yaml(record.config_yaml)
        cfg = config.protocol.segmenter
        same = json.dumps([config.data.model_dump(mode="json"), config.data.hw, cfg.model_dump(mode="json")])
        if cfg.external is not None or same in seen:
            continue
        seen.add(same)
        try:
            train = build_dataset(config.data, "train")
            judge = Judge(kept_segmenter(cfg, train, cache), cfg, train.label_space.num_classes)
        except UserError:
            continue
        found[judge.name] = judge
    return found


def pack_judge(judge: Judge, folder: Path) -> Path | None:
    """Write the segmenter into `folder`; None where nothing has been judged by it yet. Equal segmenters give equal bytes."""
    if not judge.path.exists():
        return None
    kept = torch.load(judge.path, map_location="cpu", weights_only=True)
    tensors = {f"state.{key}": value.contiguous() for key, value in kept["state"].items()}
    tensors |= {name: kept[name].contiguous() for name in ("feature_mean", "feature_std")}
    file = folder / judge.name
    atomic.write_bytes(file, save_tensors(tensors, metadata={"record": json.dumps(kept["record"], sort_keys=True)}))
    return file


def unpack_judge(file: Path, judge: Judge) -> bool:
    """Keep a packed segmenter where the evaluations of this output folder look for it; False where another one is there already.

    Raises UserError for a file that is not the network that the protocol of `judge` asks for.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 - it is no mapping
            told = (opened.metadata() or {}).get("record", "")
    except (SafetensorError, ValueError, OSError) as error:
        raise refused(file, f"it is no safetensors file ({error})") from error
    state = {key.removeprefix("state."): value for key, value in tensors.items() if key.startswith("state.")}
    network = build_network(judge.cfg, judge.num_classes)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise refused(file, "it is not the network that the protocol asks for") from error
    record = parse_json(told.encode(), str(file))
    wanted = (feature_width(network),)
    standards = [tensors.get(name) for name in ("feature_mean", "feature_std")]
    if not isinstance(record, dict) or any(value is None or tuple(value.shape) != wanted for value in standards):
        raise refused(file, "what its features are standardised by is missing")
    if judge.path.exists():
        here = torch.load(judge.path, map_location="cpu", weights_only=True)["state"]
        return all(torch.equal(value, here[key]) for key, value in state.items())
    kept: dict[str, Any] = {
        "state": network.state_dict(), "feature_mean": standards[0], "feature_std": standards[1], "record": record,
    }  # fmt: skip
    atomic.write_with(judge.path, lambda out: torch.save(kept, out))
    return True
