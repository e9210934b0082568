"""What tests of analysis share."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.frame import load_study
from analysis.study import Study
from pipeline.records import StudyManifest
from tests.analysis.sample_images import add_samples
from tests.analysis.small_tables import TWO
from tests.analysis.synthetic import SyntheticArm, make_study


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The default synthetic study, read only."""
    out = tmp_path_factory.mktemp("default")
    make_study(out)
    return load_study(out, "synthetic")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default study and a small one, read only."""
    folder = tmp_path_factory.mktemp("out")
    make_study(folder)
    broken = (TWO[0], SyntheticArm("b", "B", states={1: "failed"}))
    make_study(folder, name="broken", arms=broken, seeds=(0, 1))
    return folder


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StudyManifest]:
    """The default study with pictures of every arm, attention and edits."""
    out = tmp_path_factory.mktemp("out")
    manifest = make_study(out)
    add_samples(out, manifest, attention=("ca2sis", "no_attention_loss"), edits=True, blur={"spade": 6})
    return out, manifest
