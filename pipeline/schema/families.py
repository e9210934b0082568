"""The model families by name: where each one's config schema, builder and released-weights importer live.

A new family is one module, one schema and one line here. Nothing is imported until it is asked for, so that config
validation never loads torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from pipeline.errors import UserError, nearest
from pipeline.schema.base import Section

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class FamilySpec:
    """Where a family lives, as `module:attribute` names."""

    schema: str  # a Section with a `family` field
    builder: str  # (cfg, num_classes, size) -> Generator
    importer: str | None = (
        None  # (state dict of the release [, encoder's]) -> Generator; None: no released weights known
    )
    importer_takes_encoder: bool = False  # the release keeps an image encoder in a second file
    inverts: bool = False  # True: photos enter by inversion, within the protocol's budget (as its capabilities say)
    learned: bool = True  # False: a rule without parameters; nothing to train, no budget (as its capabilities say)


FAMILIES: dict[str, FamilySpec] = {
    "ca2sis": FamilySpec(
        "pipeline.schema.model_ca2sis:Ca2sisModel",
        "pipeline.models.ca2sis:build",
        "pipeline.models.interop.ca2sis:import_state",
    ),
    "spade": FamilySpec(
        "pipeline.schema.model_spade:SpadeModel",
        "pipeline.models.spade:build",
        "pipeline.models.interop.spade:import_state",
        importer_takes_encoder=True,
    ),
    "clade": FamilySpec(
        "pipeline.schema.model_clade:CladeModel",
        "pipeline.models.clade:build",
        "pipeline.models.interop.clade:import_state",
    ),
    "sean": FamilySpec(
        "pipeline.schema.model_sean:SeanModel",
        "pipeline.models.sean:build",
        "pipeline.models.interop.sean:import_state",
    ),
    "inade": FamilySpec(
        "pipeline.schema.model_inade:InadeModel",
        "pipeline.models.inade:build",
        "pipeline.models.interop.inade:import_state",
        importer_takes_encoder=True,
    ),
    "maskgan": FamilySpec(
        "pipeline.schema.model_maskgan:MaskganModel",
        "pipeline.models.maskgan:build",
        "pipeline.models.interop.maskgan:import_state",
    ),
    "oasis": FamilySpec(
        "pipeline.schema.model_oasis:OasisModel",
        "pipeline.models.oasis:build",
        "pipeline.models.interop.oasis:import_state",
    ),
    "scam": FamilySpec(
        "pipeline.schema.model_scam:ScamModel",
        "pipeline.models.scam:build",
        "pipeline.models.interop.scam:import_state",
        importer_takes_encoder=True,
    ),
    "semanticstylegan": FamilySpec(
        "pipeline.schema.model_semanticstylegan:SemanticStyleganModel",
        "pipeline.models.semanticstylegan.generator:build",
        "pipeline.models.interop.semanticstylegan:import_state",
        inverts=True,
    ),
    "painter": FamilySpec("pipeline.schema.model_painter:PainterModel", "pipeline.models.painter:build", learned=False),
}

# What no config can choose: pictures that other code has made, as `pipeline import-images` records them.
RECORDED: dict[str, FamilySpec] = {
    "external": FamilySpec(
        "pipeline.schema.model_external:ExternalModel", "pipeline.models.external:build", learned=False
    ),
}


def register(name: str, spec: FamilySpec) -> None:
    """Add a family at run time (plug-ins, tests); a name that is taken is refused."""
    if name in FAMILIES:
        raise UserError(f"model family {name!r} is registered already")
    FAMILIES[name] = spec


def family_spec(family: str) -> FamilySpec:
    """The spec of `family`; an unknown name is a UserError that lists what exists."""
    if family in RECORDED:
        return RECORDED[family]
    if family not in FAMILIES:
        raise UserError(
            f"model.family is {family!r}{nearest(family, list(FAMILIES))}; allowed: {', '.join(sorted(FAMILIES))}"
        )
    return FAMILIES[family]


def is_known(family: object) -> bool:
    """Whether `family` is the name of a family, or of what is recorded in the place of one."""
    return family in FAMILIES or family in RECORDED


def schema_for(family: str) -> type[Section]:
    """Config schema of `family`; loads no torch."""
    return cast("type[Section]", load_name(family_spec(family).schema))


def family_of(cfg: Section) -> str:
    """The `family` field of a model section."""
    return str(cfg.model_dump(include={"family"})["family"])


def load_name(name: str) -> Any:
    """What a `module:attribute` name stands for; imports the module."""
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)
