"""Config: Hydra composes YAML rows, the schema validates them before any heavy work, the identity is taken from the result.

`compose(overrides)` is the only way to a `RunConfig`; everything that is a default stands in `conf/`. Never imports torch.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.cli import OUT
from pipeline.errors import UserError, nearest
from pipeline.identity import digest, identity_text
from pipeline.records.store import SCHEMA_VERSION, RunRecord
from pipeline.schema.base import flat
from pipeline.schema.evaluation import PROTOCOLS, ProtocolConfig
from pipeline.schema.families import family_of, family_spec
from pipeline.schema.files import is_file_name
from pipeline.schema.run import RunConfig, validate
from pipeline.schema.yaml12 import read_yaml

CONF = Path(__file__).parent / "conf"
BEST = "best.yaml"  # overrides that something found best


@dataclass(frozen=True)
class ResolvedRun:
    """A validated config with its identity."""

    config: RunConfig
    run_id: str
    identity: str  # canonical text whose sha256 is `run_id`
    data: dict[str, Any]  # data fingerprint: digest and description

    def is_complete(self, record: RunRecord) -> bool:
        """Whether `record`, this run's, is finished and measured under the protocol of the config as it is now."""
        protocol, family = self.config.protocol, family_spec(family_of(self.config.model))
        return record.is_complete(protocol.name, protocol.digest_for(inverts=family.inverts))

    def images_seen(self) -> int:
        """Training budget in images; 0 for a rule, which does not train."""
        train = self.config.train
        if not family_spec(family_of(self.config.model)).learned:
            return 0
        iterations = train.iterations if train.iterations is not None else train.total_iterations(self.train_images())
        return iterations * train.batch_size

    def train_images(self) -> int:
        """Size of the training split; nothing is written to find it."""
        from pipeline.data import build_dataset

        data = self.config.data
        if data.name == "procfaces" and data.train_images is not None:
            return data.train_images
        return len(build_dataset(data.model_copy(update={"cache": "none"}), "train"))


def compose(overrides: Sequence[str] = (), out: Path = OUT) -> RunConfig:
    """Compose `conf/config.yaml` with Hydra overrides and validate it; `out` as in `expand_best`.

    Raises UserError, one line: unknown key (with the nearest ones), unknown choice, wrong value, a folder for procedural faces.
    """
    config = validate(_settled(_plain(expand_best(overrides, out))))
    if config.data.name == "procfaces" and config.data.root is not None:
        raise UserError(f"data.root={config.data.root}: procfaces reads no folder; for your photos say data=folder too")
    return config


def expand_best(overrides: Sequence[str], out: Path) -> tuple[str, ...]:
    """Replace `+best=NAME` by the overrides in the one `best.yaml` of a folder of that name in a room of `out`.

    A path works as well: of such a file, or of its folder. UserError when there is none, or more than one.
    """
    expanded: list[str] = []
    for override in overrides:
        key, _, name = override.partition("=")
        if key not in ("+best", "best"):
            expanded.append(override)
            continue
        document = read_yaml(_best_file(override, name, out), f"{override}:")
        values = document.values.get("overrides") if isinstance(document.values, dict) else None
        if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
            raise UserError(f"{document.where} holds no list of overrides (overrides: [...])")
        expanded += values
    return tuple(expanded)


def _best_file(override: str, name: str, out: Path) -> Path:
    if is_file_name(name):
        return Path(name)
    if Path(name).is_dir():
        return Path(name) / BEST
    found = sorted(out.glob(f"*/{name}/{BEST}")) if re.fullmatch(r"[\w.-]+", name) else []
    if len(found) > 1:
        raise UserError(f"{override}: several files are meant, give the path of one: {', '.join(map(str, found))}")
    if not found:
        raise UserError(
            f"{override}: no {BEST} of {name or 'no name'} below {out}; `python -m sweeps best SWEEP` writes one "
            "(--out names the output folder)"
        )
    return found[0]


def last_wins(overrides: Sequence[str]) -> tuple[str, ...]:
    """Keep the last of several assignments to one key (Hydra refuses two choices of one group), in order of the last."""
    keys = [override.partition("=")[0].lstrip("+") for override in overrides]
    return tuple(item for index, item in enumerate(overrides) if keys[index] not in keys[index + 1 :])


def assigned(overrides: Sequence[str], keys: Sequence[str]) -> str:
    """The first of `keys` that an override sets as a whole (what is below it does not count); "" where none does."""
    named = (override.partition("=")[0].strip().lstrip("+~") for override in overrides)
    return next((key for key in named if key in keys), "")


def resolve(overrides: Sequence[str] = (), out: Path = OUT) -> ResolvedRun:
    """Compose, read the data fingerprint (the data must be there), and derive the run id."""
    return identify(compose(overrides, out))


def identify(config: RunConfig) -> ResolvedRun:
    """The identity of a validated config."""
    from pipeline.data import data_fingerprint

    fingerprint = data_fingerprint(config.data)
    text = identity_text(config.identity_values(), fingerprint, SCHEMA_VERSION)
    return ResolvedRun(config, digest(text), text, fingerprint)


def to_yaml(config: RunConfig) -> str:
    """The resolved config as YAML, keys in the order of the schema."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


def from_yaml(text: str) -> RunConfig:
    """Read back what `to_yaml` wrote (a record's `config.yaml`)."""
    return validate(yaml.safe_load(text))


def choices(group: str) -> list[str]:
    """Names a config group offers, for instance `choices("model")`."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def load_protocol(name: str, *, tuning_steps: int | None = None) -> ProtocolConfig:
    """The protocol of that name, with so many steps of pivotal tuning where given; raises UserError naming the known ones."""
    names = PROTOCOLS.names()
    if name not in names:
        raise UserError(f"unknown protocol {name!r}{nearest(name, names)}; there are: {', '.join(names)}")
    protocol = PROTOCOLS.load(name)
    if tuning_steps is None:
        return protocol
    if tuning_steps < 0:
        raise UserError(f"--tuning-steps must be at least 0, not {tuning_steps}")
    assert protocol.inversion is not None, "every shipped protocol has a budget of inversion"
    tuning = protocol.inversion.tuning.model_copy(update={"steps": tuning_steps})
    return protocol.model_copy(update={"inversion": protocol.inversion.model_copy(update={"tuning": tuning})})


@functools.lru_cache(maxsize=4096)
def _compose_text(overrides: tuple[str, ...]) -> str:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    _reject_misspelt(overrides)
    if not GlobalHydra.instance().is_initialized():
        initialize_config_dir(config_dir=str(CONF), version_base="1.3")
    try:
        composed = hydra_compose("config", overrides=list(overrides))
        return json.dumps(OmegaConf.to_container(composed, resolve=True))  # text: the cache holds nothing mutable
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_hydra_message(error, overrides)) from error


def _settled(values: dict[str, Any]) -> dict[str, Any]:
    """Plain values with what the data have to say where the config is silent: the aspect."""
    from pipeline.data.crop import default_aspect

    data = values.get("data")
    if isinstance(data, dict) and "aspect" in data and data["aspect"] is None:
        return {**values, "data": {**data, "aspect": default_aspect(data.get("root"))}}
    return values


def _plain(overrides: tuple[str, ...]) -> dict[str, Any]:
    values = json.loads(_compose_text(overrides))
    if not isinstance(values, dict):
        raise UserError("config: composition gave no mapping")
    return values


def _reject_misspelt(overrides: Iterable[str]) -> None:
    for override in overrides:
        if not re.match(r"^(~[A-Za-z_][\w@./]*(=|$)|\+{0,2}[A-Za-z_][\w@./]*=)", override):
            raise UserError(
                f"config: {override!r} is not an override; write key=value, for instance train.batch_size=4"
            )
        key, equals, choice = override.lstrip("+~").partition("=")
        if equals and (CONF / key).is_dir() and re.fullmatch(r"[\w-]+", choice):
            offered = choices(key)
            if key != "recipe" and choice not in offered:
                raise UserError(
                    f"config: unknown {key} {choice!r}{nearest(choice, offered)}; there are: {', '.join(offered)}"
                )


@functools.lru_cache(maxsize=4096)
def unreadable(override: str) -> str:
    """Why Hydra's grammar does not take an override, and how to write it; "" where it does."""
    if _parses(override):
        return ""
    key, equals, value = override.partition("=")
    mark = next((mark for mark in ("'", '"') if mark not in value), "'")
    escaped = value.replace(mark, f"\\{mark}")
    written = f"{key}={mark}{escaped}{mark}"
    said = f"{override}: this value cannot be read" if equals else f"{override!r} is not an override"
    if not equals or not _parses(written):
        return f"{said}; write key=value, for instance train.batch_size=4"
    around = "" if mark in value else {"'": '"', '"': "'"}[mark]  # for the shell, or for YAML
    return f"{said}; where it is meant as text, quote it: {around}{written}{around}"


def _parses(override: str) -> bool:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    return True


def _hydra_message(error: Exception, overrides: Sequence[str]) -> str:
    """Hydra's multi-line message as one line that names the override, or the key and its nearest neighbours."""
    for override in overrides:
        if problem := unreadable(override):
            return f"config: {problem}"
    text = " ".join(str(error).split())
    missing = re.search(r"Could not override '([^']+)'", text) or re.search(r"Key '([^']+)' is not in struct", text)
    if missing:
        key = missing.group(1)
        without = tuple(item for item in overrides if item.lstrip("+~").partition("=")[0] != key)
        known = list(flat(_plain(without))) if without != tuple(overrides) else []
        return f"config: unknown key {key}{nearest(key, known)}"
    return f"config: {text}"
