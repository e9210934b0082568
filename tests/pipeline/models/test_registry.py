"""The family registry: no torch before a network is wanted, new families by one line, unknown names explained."""

from __future__ import annotations

import subprocess
import sys
from typing import Literal

import pytest

from pipeline.errors import UserError
from pipeline.models.build import build_generator
from pipeline.models.contract import Generator
from pipeline.models.painter import PainterGenerator
from pipeline.schema import families as registry
from pipeline.schema.base import Section


class ToyModel(Section):
    family: Literal["toy"]
    gain: float


def build_toy(cfg: ToyModel, num_classes: int, size: tuple[int, int]) -> Generator:
    generator = PainterGenerator(registry.schema_for("painter").model_validate({"family": "painter"}), num_classes)
    generator.stride = round(cfg.gain)
    return generator


def test_schemas_load_without_torch() -> None:
    code = (
        "import sys\nfrom pipeline.schema import families as registry\n"
        "names = [registry.schema_for(family).__name__ for family in registry.FAMILIES]\n"
        "import pipeline.schema.losses, pipeline.schema.discriminator\n"
        "print(sorted(names), 'torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    names = ["Ca2sis", "Clade", "Inade", "Maskgan", "Oasis", "Painter", "Scam", "Sean", "SemanticStylegan", "Spade"]
    assert out.strip() == f"{[f'{name}Model' for name in names]} False"


def test_a_family_is_added_by_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "FAMILIES", dict(registry.FAMILIES))
    spec = registry.FamilySpec(f"{__name__}:ToyModel", f"{__name__}:build_toy")
    registry.register("toy", spec)
    cfg = registry.schema_for("toy").model_validate({"family": "toy", "gain": 3.0})
    assert registry.family_of(cfg) == "toy"
    assert build_generator(cfg, 4, (8, 8)).stride == 3
    with pytest.raises(UserError, match="'toy' is registered already"):
        registry.register("toy", spec)


def test_unknown_family_names_its_neighbours() -> None:
    with pytest.raises(
        UserError,
        match=r"'sade' \(did you mean spade.*allowed: ca2sis, clade, inade, maskgan, oasis, painter, scam, sean, "
        "semanticstylegan, spade",
    ):
        registry.schema_for("sade")
