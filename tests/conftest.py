"""Settings every test shares: one thread a process, nothing online, no bytes outside the test's own folder."""

from __future__ import annotations

import os
import shutil
import tempfile

import pytest
from hypothesis import settings

# Before torch is imported anywhere: the suite runs one process a core.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ["WANDB_SILENT"] = "true"
os.environ["MPLBACKEND"] = "Agg"
os.environ["COLUMNS"] = "120"
CACHE = tempfile.mkdtemp(prefix="ca2sis-test-cache-")  # file digests, mapped data: not the user's
os.environ["XDG_CACHE_HOME"] = CACHE

# How long an example takes says something of the machine: a slow, shared one has failed a sound property by it.
settings.register_profile("anywhere", deadline=None)
settings.load_profile("anywhere")


def pytest_unconfigure(config: pytest.Config) -> None:
    """The cache goes with the process that made it, a worker's too."""
    shutil.rmtree(CACHE, ignore_errors=True)
