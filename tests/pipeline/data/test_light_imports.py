"""Planning and looking at data cost no torch."""

from __future__ import annotations

import subprocess
import sys

from tests.pipeline.data.samples import ROOT

SCRIPT = """
import sys
from pipeline.data import build_dataset, data_fingerprint
from pipeline.data.quick import quick_config
import pipeline.data.check, pipeline.data.prepare, pipeline.data.show, pipeline.commands.data
cfg = quick_config("procfaces", data=None, space_name=None, size=16, count=1)
data_fingerprint(cfg), build_dataset(cfg, "val")[0]
heavy = [name for name in ("torch", "torchvision", "matplotlib", "pandas") if name in sys.modules]
assert not heavy, heavy
"""


def test_everything_but_batches_works_without_torch() -> None:
    subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, check=True)
