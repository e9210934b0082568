"""Data: label spaces, procedural faces, adapters of real data sets, transforms and the deterministic loader.

Nothing here imports torch at import time; `pipeline.data.batch` and `pipeline.data.loader` do. The two entry points are
`build_dataset` and `data_fingerprint`.
"""

from __future__ import annotations

from pipeline.data.build import build_dataset
from pipeline.data.fingerprint import data_fingerprint
from pipeline.data.types import Dataset, Sample, Split

__all__ = ["Dataset", "Sample", "Split", "build_dataset", "data_fingerprint"]
