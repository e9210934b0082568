"""What attention has learned of classes: a run's access tables, one panel a level and head."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from analysis.figures.model import Drawing, NotDrawable
from analysis.figures.study_data import StudyData
from analysis.figures.style import shorten

if TYPE_CHECKING:
    import numpy as np

NAMES = 40  # class names that an axis has room for; of more classes every n-th is named
NAME_POINTS = 4.6
PANEL_INCHES = (1.25, 2.6)  # least and most; between them 0.085 a class
STRONGEST = 5  # pairs of classes that the words name


def arms_with_access(data: StudyData) -> list[str]:
    """Arms of which a run has access tables, in the order of the study."""
    return [arm for arm in data.arms if _run(data, arm) is not None]


def draw_access(data: StudyData, arm: str) -> Drawing:
    """The tables of an arm's run at its lowest seed: rows are classes of pixels, columns classes of codes.

    A softmax sees differences within a row alone, so each row is drawn less its mean. Raises NotDrawable where no run has tables.
    """
    import matplotlib.pyplot as plt
    import numpy as np

    found = _run(data, arm)
    if found is None:
        raise NotDrawable("no finished run learned an access table (model.attention.masking=access)")
    seed, tables, names = found
    centred = {level: table - table.mean(axis=2, keepdims=True) for level, table in tables.items()}
    limit = max(float(np.abs(table).max()) for table in centred.values()) or 1.0
    classes = next(iter(tables.values())).shape[1]
    heads = max(table.shape[0] for table in tables.values())
    panel = min(max(PANEL_INCHES[0], 0.085 * classes), PANEL_INCHES[1])
    figure, grid = plt.subplots(
        len(tables), heads, figsize=(heads * panel + 1.6, len(tables) * panel + 1.1), squeeze=False
    )
    every = math.ceil(classes / NAMES)
    labels = [shorten(name, 14) for name in names[::every]]
    image: Any = None
    for row, (level, table) in enumerate(centred.items()):
        for head, axes in enumerate(grid[row]):
            if head >= table.shape[0]:
                axes.set_visible(False)
                continue
            image = axes.imshow(table[head], cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
            axes.set_title(f"{level} px, head {head}", fontsize=7, pad=3)
            axes.grid(False)
            axes.tick_params(length=0, labelsize=NAME_POINTS, pad=1)
            covered = any(below.shape[0] > head for below in list(centred.values())[row + 1 :])
            bare = [""] * len(labels)
            axes.set_xticks(range(0, classes, every), bare if covered else labels, rotation=90)
            axes.set_yticks(range(0, classes, every), labels if head == 0 else bare)
    for line in grid:
        line[0].set_ylabel("class of the pixel", fontsize=7)
    figure.supxlabel("class of the code", fontsize=8)
    figure.colorbar(image, ax=grid, shrink=0.6, label="added to the score")
    mean = np.mean([table.mean(axis=0) for table in centred.values()], axis=0)  # (K,K) over levels and heads
    return Drawing(
        figure,
        title=f"Access learned: {data.labels[arm]}",
        caption=(
            "What each head adds to the score between a pixel of one class and the code of another, less the row's mean, which "
            f"the softmax does not see; one panel a level (height of its map in pixels) and head. Red draws attention. Seed {seed}."
        ),
        alt=f"Mean over levels and heads: the own class gets {np.diag(mean).mean():+.2f}; {_borrowing(mean, names)}.",
    )


def _borrowing(mean: np.ndarray, names: list[str]) -> str:
    """The strongest pairs of two classes in words: "hair from hat +0.81"."""
    pairs = [(float(mean[i, j]), i, j) for i in range(len(names)) for j in range(len(names)) if i != j]
    words = [f"{names[i]} from {names[j]} {value:+.2f}" for value, i, j in sorted(pairs, reverse=True)[:STRONGEST]]
    return "of other classes, most: " + ", ".join(words)


def _run(data: StudyData, arm: str) -> tuple[int, dict[str, np.ndarray], list[str]] | None:
    """Seed, tables and class names of the arm's first run that has tables."""
    for seed, run in sorted(data.runs.get(arm, {}).items()):
        tables = run.access_tables()
        if tables:
            classes = next(iter(tables.values())).shape[1]
            names = [str(name) for name in run.provenance.get("data", {}).get("class_names", [])]
            return seed, tables, names if len(names) == classes else [str(index) for index in range(classes)]
    return None
