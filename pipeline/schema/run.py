"""The root of a run's config."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, Field, SerializeAsAny, ValidationError, model_validator

from pipeline.errors import UserError
from pipeline.schema.base import Section
from pipeline.schema.data import DataConfig
from pipeline.schema.discriminator import DiscriminatorConfig
from pipeline.schema.evaluation import ProtocolConfig
from pipeline.schema.families import FAMILIES, is_known, schema_for
from pipeline.schema.losses import LossConfig
from pipeline.schema.messages import SectionOf, explain
from pipeline.schema.training import TrackingConfig, TrainConfig

RUN = "the id of a finished run (64 hexadecimal digits)"


def _model_section(value: Any) -> Any:
    """Validate `model` by the schema its `family` is registered with."""
    if isinstance(value, Section):
        return value
    if not isinstance(value, dict) or not isinstance(value.get("family"), str):
        raise ValueError("needs a family, for instance model=ca2sis")
    return schema_for(value["family"]).model_validate_json(json.dumps(value))


def _schema_of(value: Any) -> type[BaseModel] | None:
    family = value.get("family") if isinstance(value, dict) else None
    return schema_for(family) if isinstance(family, str) and is_known(family) else None


class RunConfig(Section):
    """One run, whole and resolved."""

    preset: str  # display name of the row the sizes came from
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    size: Annotated[int, Field(ge=8)]  # short side of the images, pixels
    model: Annotated[SerializeAsAny[Section], BeforeValidator(_model_section), SectionOf(_schema_of)]
    data: DataConfig
    discriminator: DiscriminatorConfig
    loss: LossConfig
    train: TrainConfig
    protocol: ProtocolConfig
    tracking: TrackingConfig
    init_from: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = Field(
        description=RUN
    )  # where train=mapping starts
    device: Literal["auto", "cpu", "cuda"]  # cuda:N is chosen by CUDA_VISIBLE_DEVICES
    threads: Annotated[int, Field(ge=0)]  # CPU threads of torch; 0 leaves torch's choice
    notes: str

    @model_validator(mode="after")
    def _compiled_networks_differentiate_once(self) -> RunConfig:
        if self.discriminator.kind == "gradient_normalised" and self.train.compile is not False:
            raise ValueError("discriminator.kind gradient_normalised is differentiated twice; set train.compile=false")
        return self

    @model_validator(mode="after")
    def _second_stage_starts_somewhere(self) -> RunConfig:
        if (self.train.stage == "mapping") != (self.init_from is not None):
            raise ValueError("init_from names a finished run for train=mapping (init_from=RUN), and is null otherwise")
        return self


def config_keys() -> frozenset[str]:
    """Every key that some run's config can have, flat ("model.attention.masking"): of all families together."""
    families = [key for name in FAMILIES for key in _keys(schema_for(name), "model.")]
    return frozenset([*_keys(RunConfig, ""), *families])


def _keys(schema: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in schema.model_fields.items():
        parts = [part for part in (field.annotation, *get_args(field.annotation)) if isinstance(part, type)]
        sections = [part for part in parts if issubclass(part, BaseModel)]
        for section in sections:
            yield from _keys(section, f"{prefix}{name}.")
        if not sections:
            yield f"{prefix}{name}"


def completed(identity_config: dict[str, Any]) -> dict[str, Any]:
    """The config in a run's identity text with the fields that are left out there: `later` ones at their first value."""
    found = RunConfig.completed(identity_config)
    model = found.get("model", {})
    if is_known(model.get("family")):  # a plug-in's family may be unknown to whoever reads its records
        found["model"] = schema_for(model["family"]).completed(model)
    return found


def validate(values: dict[str, Any]) -> RunConfig:
    """Turn composed plain values into a `RunConfig`; raises UserError with one line for the first mistakes."""
    try:
        return RunConfig.model_validate_json(json.dumps(values))
    except ValidationError as error:
        raise UserError(f"config: {explain(error, RunConfig, values)}") from error
