"""One run of semantic image synthesis: config -> data -> model -> training -> evaluation -> record.

`from pipeline import load_run` takes a finished run into a program or a notebook (docs/python.md). Importing this loads no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.runs.loaded import LoadedRun


def load_run(run: str, out: Path | str = "out") -> LoadedRun:
    """The finished run of this id (or the beginning of one) in the output folder `out`, ready to draw.

    Raises UserError, one line, where there is no such run, it is not finished, or its weights are damaged.
    """
    from pipeline.runs.loaded import LoadedRun

    return LoadedRun.find(Path(out), run)
