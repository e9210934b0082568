"""Settings every test shares: one thread a process, nothing online, no bytes outside the test's own folder."""

from __future__ import annotations

import os
import tempfile

# Before torch is imported anywhere: the suite runs one process a core.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ["WANDB_SILENT"] = "true"
os.environ["MPLBACKEND"] = "Agg"
os.environ["COLUMNS"] = "120"
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(
    prefix="ca2sis-test-cache-"
)  # file digests, mapped data: not the user's
