"""What every run imports sooner or later, imported once by the fork server so that its children need not.

Nothing here may compute, start threads or touch CUDA: the importing process is forked.
"""

from __future__ import annotations

import importlib
import importlib.util

from pipeline.schema.families import FAMILIES

NEEDED = (
    "torch",
    "torch._inductor",  # imported by torch.use_deterministic_algorithms, 1.5 s
    "torch.utils.flop_counter",
    "PIL.Image",
    "PIL.JpegImagePlugin",
    "PIL.PngImagePlugin",
    "pandas",
    "pyarrow.parquet",
    "pipeline.runs.run",
    *(spec.builder.partition(":")[0] for spec in FAMILIES.values()),
)
WHERE_PRESENT = ("wandb",)

for _name in NEEDED:
    importlib.import_module(_name)
for _name in WHERE_PRESENT:
    if importlib.util.find_spec(_name) is not None:
        importlib.import_module(_name)
