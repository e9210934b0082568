"""What tests of analysis share."""

from __future__ import annotations

import pytest

from analysis.frame import Study, load_study
from tests.analysis.synthetic import make_study


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The default synthetic study, read only."""
    out = tmp_path_factory.mktemp("default")
    make_study(out)
    return load_study(out, "synthetic")
