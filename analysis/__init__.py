"""Records -> tidy frame -> statistics -> tables, figures, report. Never imports torch.

`from analysis import load_study` takes a study into a program or a notebook (docs/python.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analysis.opened import OpenStudy


def load_study(study: str, out: Path | str = "out", only: Sequence[str] = ()) -> OpenStudy:
    """A study by name, file or folder, with its frame and tables; `out` is the output folder.

    `only`: words like "data=faces" that choose a part of it, as the commands' `--only` does. Raises UserError, one line, where
    there is no such study or part, or its plan is damaged.
    """
    from analysis.opened import open_study

    return open_study(study, Path(out), only)
