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
from safetensors.torch import save as save_tensors

from pipeline.config import from_yaml
from pipeline.data.build import build_dataset
from pipeline.errors import UserError
from pipeline.metrics.segmenter import kept_segmenter
from pipeline.metrics.segmenter_networks import build_network, feature_width
from pipeline.records import RunRecord, atomic
from pipeline.runs.archive import parse_json
from pipeline.runs.untrusted import read_tensors, refused
from pipeline.schema.data import DataConfig
from pipeline.schema.evaluation import USE_SEGMENTER, SegmenterConfig

SUFFIX = ".segmenter.safetensors"
MOST_IMAGES = 200_000  # of a training split that is looked through for what its segmenter is called
MOST_TOLD = 2**20  # characters of how a segmenter was trained
COUNTS = ("images", "updates", "best_at", "held_back")
STANDARDS = ("feature_mean", "feature_std")


@dataclass(frozen=True)
class Judge:
    """Where the segmenter of a run's protocol is kept, and what it must be."""

    path: Path  # in the cache of the output folder, whether or not it is there
    cfg: SegmenterConfig
    num_classes: int

    @property
    def name(self) -> str:
        return f"{self.path.stem}{SUFFIX}"


def judges_of(records: Iterable[RunRecord], cache: Path) -> tuple[dict[str, Judge], int]:
    """The segmenters by which runs are judged, by the name of the packed file; and how many of the runs' photos are not here."""
    found: dict[str, Judge] = {}
    known: dict[str, Judge | None] = {}
    absent = 0
    for record in records:
        try:
            config = from_yaml(record.config_yaml)
        except (UserError, OSError):
            continue
        cfg = config.protocol.segmenter
        if cfg.external is not None or not USE_SEGMENTER.intersection(config.protocol.groups):
            continue
        same = json.dumps([config.data.model_dump(mode="json"), config.data.hw, cfg.model_dump(mode="json")])
        if same not in known:
            known[same] = _judge_on(config.data, cfg, cache)
        judge = known[same]
        absent += judge is None
        if judge is not None:
            found[judge.name] = judge
    return found, absent


def _judge_on(data: DataConfig, cfg: SegmenterConfig, cache: Path) -> Judge | None:
    """The segmenter of a training split; None where its photos are not here, or are more than a run from elsewhere may ask for."""
    if (data.train_images or 0) > MOST_IMAGES:
        return None
    try:
        train = build_dataset(data.model_copy(update={"cache": "none"}), "train")
        return Judge(kept_segmenter(cfg, train, cache), cfg, train.label_space.num_classes)
    except UserError:
        return None


def pack_judge(judge: Judge, folder: Path) -> Path | None:
    """Write the segmenter into `folder`; None where nothing has been judged by it yet. Equal segmenters give equal bytes."""
    if not judge.path.exists():
        return None
    kept = _read(judge.path)
    tensors = {f"state.{key}": value.contiguous() for key, value in kept["state"].items()}
    tensors |= {name: kept[name].contiguous() for name in STANDARDS}
    file = folder / judge.name
    atomic.write_bytes(file, save_tensors(tensors, metadata={"record": json.dumps(kept["record"], sort_keys=True)}))
    return file


def unpack_judge(file: Path, judge: Judge) -> bool:
    """Keep a packed segmenter where the evaluations of this output folder look for it; False where another one is there already.

    Raises UserError for a file that is not the network that the protocol of `judge` asks for, with numbers it could have.
    """
    tensors, metadata = read_tensors(file, file)
    network = build_network(judge.cfg, judge.num_classes)
    state = {key.removeprefix("state."): value for key, value in tensors.items() if key.startswith("state.")}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise refused(file, "it is not the network that the protocol asks for") from error
    standards = {name: tensors[name].float() for name in STANDARDS if name in tensors}
    width = (feature_width(network),)
    if len(standards) < len(STANDARDS) or any(tuple(value.shape) != width for value in standards.values()):
        raise refused(file, "what its features are standardised by is missing")
    kept = {"state": network.state_dict(), **standards, "record": _told(file, metadata.get("record", ""))}
    if not all(torch.isfinite(value).all() for value in _floats(kept)) or not (standards["feature_std"] > 0).all():
        raise refused(file, "its numbers are none that training leaves")
    if judge.path.exists():
        own = _read(judge.path)
        return all(torch.equal(mine, other) for mine, other in zip(_floats(own), _floats(kept), strict=True))
    atomic.write_with(judge.path, lambda out: torch.save(kept, out))
    return True


def _floats(kept: dict[str, Any]) -> list[torch.Tensor]:
    """Every tensor of numbers of a kept segmenter, in one order."""
    tensors = [*(kept["state"][key] for key in sorted(kept["state"])), *(kept[name] for name in STANDARDS)]
    return [tensor for tensor in tensors if tensor.is_floating_point()]


def _told(file: Path, text: str) -> dict[str, Any]:
    """How the segmenter was trained, as plain numbers: what `segmenter_training` records, and nothing else."""
    value: Any = parse_json(text.encode(), f"{file}, metadata") if len(text) <= MOST_TOLD else None
    try:
        record: dict[str, Any] = {name: int(value[name]) for name in COUNTS}
        record["final_loss"] = float(value["final_loss"])
        record["held_back_miou"] = [[int(at), float(score)] for at, score in value["held_back_miou"]]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise refused(file, "it does not say how it was trained") from error
    return record


def _read(path: Path) -> dict[str, Any]:
    try:
        kept: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises what it meets: pickling, zip, system and runtime errors
        raise UserError(
            f"{path} is damaged ({type(error).__name__}): remove it, the next evaluation trains it again"
        ) from error
    return kept
