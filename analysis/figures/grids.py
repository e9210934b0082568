"""Grids of images: the same inputs across all arms, attention laid over them class by class, and edits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.figures.model import Drawing, NotDrawable
from analysis.figures.samples import Choice, Edit, Sample, SampleSet
from analysis.figures.study_data import StudyData
from analysis.figures.style import INK, MUTED, number, strip_frame, wrap
from pipeline.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_ARMS = 12  # columns of arms that still read on a page
MAX_CLASSES = 8
CELL_INCHES = 0.92


def draw_reconstructions(data: StudyData, samples: SampleSet, choice: Choice) -> Drawing:
    """Rows: inputs; columns: style image, mask, every arm's output, target."""
    arms = [arm for arm in data.arms if arm in samples.by_arm][:MAX_ARMS]
    # Trivial baselines first: the eye then walks from what needs no learning to the target.
    arms.sort(key=lambda arm: (arm not in data.trivial, arm != data.reference))
    heads = ["style", "mask", *(data.labels[arm] for arm in arms), "target"]
    figure, grid = _cells(len(choice.keys), heads, bold={2 + i for i, arm in enumerate(arms) if arm == data.reference},
                          like=_first(samples, arms, choice.keys[0], "target"), footer_inches=0.14)  # fmt: skip
    metric = data.primary
    for row, (key, word) in enumerate(zip(choice.keys, choice.words, strict=True)):
        shared = samples.by_arm[arms[0]][key]
        _show(grid[row][0], shared.files.get("style"))
        _show(grid[row][1], shared.files.get("mask"))
        _show(grid[row][-1], _first(samples, arms, key, "target"))
        _row_label(grid[row][0], word or f"#{row + 1}")
        for column, arm in enumerate(arms, start=2):
            sample = samples.by_arm[arm][key]
            _show(grid[row][column], sample.files.get("output"))
            if metric is not None and metric.name in sample.scores:
                _under(grid[row][column], number(sample.scores[metric.name]))
    scored = f" Numbers under images: {metric.label}{f' in {metric.unit}' if metric.unit else ''}." if metric else ""
    return Drawing(
        figure,
        title="Reconstructions",
        caption=f"Inputs: {choice.rule}; seed {samples.seed}.{scored}{_missing(data, samples, arms)}",
        alt=f"Grid of {len(choice.keys)} inputs: style image, mask, then " + ", ".join(data.labels[arm] for arm in arms)
        + ", then the target.",
        photographic=True,
    )  # fmt: skip


def draw_attention(data: StudyData, samples: SampleSet, choice: Choice) -> Drawing:
    """Rows: arms with attention; columns: the mask's largest classes; coloured where attention is strongest for it.

    Uses the finest level and the first chosen input that has maps. Raises NotDrawable where no arm kept any.
    """
    arms = [arm for arm in data.arms if any(sample.attention for sample in samples.by_arm.get(arm, {}).values())][
        :MAX_ARMS
    ]
    key = next((key for key in choice.keys if any(samples.by_arm[arm][key].attention for arm in arms)), None)
    if not arms or key is None:
        raise NotDrawable("no finished run kept the classes of its attention among its samples")
    arms = [arm for arm in arms if samples.by_arm[arm][key].attention]
    first = samples.by_arm[arms[0]][key]
    if "mask" not in first.files:
        raise NotDrawable("the samples have no mask to lay attention maps over")
    mask = _indices(first.files["mask"])
    if mask is None:
        raise NotDrawable("the recorded masks are colour pictures, not class indices (palette PNG)")
    names = _class_names(data, arms)
    classes = [number for number, _ in Counter(mask.ravel().tolist()).most_common(MAX_CLASSES)]
    base = _pixels(_first(samples, arms, key, "target") or first.files["mask"])
    heads = ["input", "strongest class", *(names.get(number, f"class {number}") for number in classes)]
    figure, grid = _cells(len(arms), heads, bold=set(), like=first.files["mask"])
    for row, arm in enumerate(arms):
        path = samples.by_arm[arm][key].attention[-1]
        winner = _indices(path)
        _image(grid[row][0], base)
        _row_label(grid[row][0], data.labels[arm])
        _image(grid[row][1], _pixels(path))
        for column, chosen in enumerate(classes, start=2):
            if winner is not None:
                _overlay(grid[row][column], base, winner == chosen, mask == chosen, data.looks[arm].colour)
            else:
                _image(grid[row][column], None)
    return Drawing(
        figure,
        title="Attention by class",
        caption=(
            f"Input {key!r}, seed {samples.seed}, finest attention level. Colour: pixels whose strongest "
            "attention belongs to the class; dark line: the class in the mask. Perfect agreement fills the line exactly."
        ),
        alt=f"Attention of {', '.join(data.labels[arm] for arm in arms)} over the classes {', '.join(heads[2:])}.",
        photographic=True,
    )


def draw_edits(data: StudyData, samples: SampleSet, choice: Choice, max_rows: int = 8) -> Drawing:
    """Rows: edits; columns: input, mask, every arm's edit, ground truth. Raises NotDrawable without edits."""
    arms = _arms_with(data, samples, lambda sample: sample.edits)
    if not arms:
        raise NotDrawable("no finished run kept edited images among its samples")
    tasks = list(
        dict.fromkeys(edit.task for arm in arms for sample in samples.by_arm[arm].values() for edit in sample.edits)
    )
    # Every task is seen once before any is seen twice.
    rows = [
        (key, task)
        for key in dict.fromkeys((*choice.keys, *samples.keys))
        for task in tasks
        if any(_edit(samples.by_arm[arm][key], task) is not None for arm in arms)
    ][:max_rows]
    if not rows:
        raise NotDrawable("no recorded edit is shared by the arms")
    by_row = [[_edit(samples.by_arm[arm][key], task) for arm in arms] for key, task in rows]
    # Columns that no row fills (photos have no ground truth) are left out.
    before = ["input", *(["reference"] if _any(by_row, "reference") else []), "mask"]
    after = ["ground truth"] if _any(by_row, "truth") else []
    bold = {len(before) + i for i, arm in enumerate(arms) if arm == data.reference}
    figure, grid = _cells(len(rows), [*before, *(data.labels[arm] for arm in arms), *after], bold=bold,
                          like=_first(samples, arms, rows[0][0], "target"))  # fmt: skip
    for row, ((key, _), edits) in enumerate(zip(rows, by_row, strict=True)):
        known = [edit for edit in edits if edit is not None]
        shown = {
            "input": _first(samples, arms, key, "target"),
            "reference": _of_first(known, "reference"),
            "mask": _of_first(known, "layout") or _first(samples, arms, key, "mask"),
            "ground truth": _of_first(known, "truth"),
        }
        for column, head in enumerate(before):
            _show(grid[row][column], shown[head])
        for column, edit in enumerate(edits, start=len(before)):
            _show(grid[row][column], None if edit is None else edit.file)
        for column, head in enumerate(after, start=len(before) + len(arms)):
            _show(grid[row][column], shown[head])
        _row_label(grid[row][0], known[0].label)
    return Drawing(
        figure,
        title="Edits",
        caption=f"Inputs: {choice.rule}; seed {samples.seed}. Mask: the layout of the edit. A dash: there is none, or none "
        f"was recorded.{_missing(data, samples, arms)}",
        alt=f"Grid of edits ({', '.join(tasks)}) by {', '.join(data.labels[arm] for arm in arms)}.",
        photographic=True,
    )


# -- cells -------------------------------------------------------------------------------------------------------------


def _cells(
    rows: int, heads: Sequence[str], bold: set[int], like: Path | None, footer_inches: float = 0.0
) -> tuple[Figure, Any]:
    """A bare grid with headed columns whose cells have the shape of the image `like` (square without one)."""
    import matplotlib.pyplot as plt

    height, width = (1, 1) if like is None else _pixels(like).shape[:2]
    cell = CELL_INCHES * height / width
    size = (CELL_INCHES * len(heads) + 0.75, (cell + footer_inches + 0.05) * rows + 0.5)
    figure, grid = plt.subplots(rows, len(heads), figsize=size, squeeze=False)
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.set(w_pad=0.015, h_pad=0.015, wspace=0, hspace=0)  # type: ignore[call-arg]
    for column, (axes, head) in enumerate(zip(grid[0], heads, strict=True)):
        weight = "bold" if column in bold else "normal"
        axes.set_title(wrap(head, 13), fontsize=7.5, fontweight=weight, loc="center", pad=4)
    for axes in grid.flat:
        strip_frame(axes)
        axes.set(xlim=(0, width), ylim=(height, 0), aspect="equal")  # a cell without an image is as large as the others
    return figure, grid


def _image(axes: Axes, pixels: np.ndarray | None) -> None:
    if pixels is None:
        axes.text(0.5, 0.5, "–", ha="center", va="center", color=MUTED, transform=axes.transAxes)
    else:
        axes.imshow(pixels)


def _show(axes: Axes, path: Path | None) -> None:
    _image(axes, None if path is None else _pixels(path))


def _overlay(axes: Axes, base: np.ndarray, chosen: np.ndarray, truth: np.ndarray, colour: str) -> None:
    """The image in grey, chosen pixels tinted, the mask's outline drawn."""
    import numpy as np
    from matplotlib.colors import to_rgb

    height, width = base.shape[:2]
    grey = base.mean(axis=2, keepdims=True).repeat(3, axis=2) / 255 * 0.55 + 0.40  # HWC float [0.40, 0.95]
    tint = np.asarray(to_rgb(colour))
    where = _resize(chosen, height, width)[..., None]
    axes.imshow(np.where(where, 0.35 * grey + 0.65 * tint, grey), extent=(0, width, height, 0))
    outline = _resize(truth, height, width)
    if outline.any() and not outline.all():
        padded = np.pad(outline.astype(float), 1)  # so that a class at the border is closed there
        x, y = np.arange(-0.5, width + 1), np.arange(-0.5, height + 1)
        axes.contour(x, y, padded, levels=[0.5], colors=[INK], linewidths=0.8)
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)


def _resize(flags: np.ndarray, height: int, width: int) -> np.ndarray:
    """Nearest-neighbour resize of an HW array."""
    import numpy as np

    rows = (np.arange(height) * flags.shape[0]) // height
    columns = (np.arange(width) * flags.shape[1]) // width
    return flags[rows][:, columns]


def _pixels(path: Path) -> np.ndarray:
    """HWC uint8 RGB of an image file. Raises UserError naming a file that is no image."""
    import numpy as np
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise UserError(f"{path} is not a readable image") from error


def _indices(path: Path) -> np.ndarray | None:
    """HW class indices of a palette or grey PNG; None for a colour picture."""
    import numpy as np
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.asarray(image) if image.mode in ("P", "L", "I;16") else None
    except (OSError, SyntaxError) as error:
        raise UserError(f"{path} is not a readable image") from error


def _row_label(axes: Axes, text: str) -> None:
    axes.set_ylabel(wrap(text, 12), fontsize=7.5, color=MUTED, rotation=0, ha="right", va="center", labelpad=4)


def _under(axes: Axes, text: str) -> None:
    axes.set_xlabel(text, fontsize=6.5, color=MUTED, labelpad=1.5)


def _first(samples: SampleSet, arms: Sequence[str], key: str, what: str) -> Path | None:
    found = (samples.by_arm[arm][key].files.get(what) for arm in arms)
    return next((path for path in found if path is not None), None)


def _arms_with(data: StudyData, samples: SampleSet, has: Callable[[Sample], object]) -> list[str]:
    """The first arms of which some sample has what is asked for."""
    return [arm for arm in data.arms if any(has(sample) for sample in samples.by_arm.get(arm, {}).values())][:MAX_ARMS]


def _edit(sample: Sample, task: str) -> Edit | None:
    return next((edit for edit in sample.edits if edit.task == task), None)


def _of_first(edits: Sequence[Edit], what: str) -> Path | None:
    """The first file of a kind: reference, layout and ground truth are the same for all arms."""
    found: Iterator[Path | None] = (getattr(edit, what) for edit in edits)
    return next((path for path in found if path is not None), None)


def _any(by_row: Sequence[Sequence[Edit | None]], what: str) -> bool:
    return any(_of_first([edit for edit in edits if edit is not None], what) for edits in by_row)


def _class_names(data: StudyData, arms: Sequence[str]) -> dict[int, str]:
    for arm in arms:
        for run in data.runs.get(arm, {}).values():
            data_facts = run.provenance.get("data")
            names = data_facts.get("class_names") if isinstance(data_facts, dict) else None
            if isinstance(names, list):
                return {number: str(name) for number, name in enumerate(names)}
    return {}


def _missing(data: StudyData, samples: SampleSet, shown: Sequence[str]) -> str:
    parts = []
    if samples.without:
        parts.append(f" Without samples at this seed: {', '.join(data.labels[arm] for arm in samples.without)}.")
    cut = len(samples.by_arm) - len(shown)
    if cut > 0 and len(shown) == MAX_ARMS:
        parts.append(f" {cut} more arms are not drawn.")
    return "".join(parts)
