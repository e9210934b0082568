"""`python -m pipeline import-images NAME --images DIR`: pictures made by other code as runs that are measured and tabulated."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from pipeline.cli import add_out
from pipeline.errors import UserError, nearest
from pipeline.schema.evaluation import EditTask
from pipeline.schema.model_external import ResizeFilter

if TYPE_CHECKING:
    from collections.abc import Sequence

TASKS: tuple[EditTask, ...] = get_args(EditTask)


def register(subparsers: Any) -> None:
    """Add the command to the sub-parsers of `python -m pipeline`."""
    parser = subparsers.add_parser(
        "import-images",
        help="measure a folder of pictures that other code has made, as a run of kind external",
        description="Pictures named like the samples (KEY.png or KEY.jpg) of the protocol's split become a run of kind external.\n"
        "What only needs pictures is measured; what needs the network is not applicable. Several folders are several seeds.\n\n"
        "  python -m pipeline import-images theirs --images results data=celebamask_hq data.root=DIR preset=paper\n"
        "  python -m pipeline import-images theirs --images r/reconstruction --edited r/style_transfer\n\n"
        "KEY=VALUE choose data, size and protocol, as for a run.",
    )
    parser.add_argument("name", metavar="NAME", help="what the system is called; studies find it by this name")
    parser.add_argument(
        "--images", nargs="+", action="extend", required=True, metavar="DIR", help="reconstructions; one folder a seed"
    )
    parser.add_argument(
        "--edited",
        nargs="+",
        action="extend",
        default=[],
        metavar="DIR",
        help="edits the protocol asks for, in a folder called like the task, or TASK=DIR; one a seed",
    )
    parser.add_argument(
        "--resize",
        choices=get_args(ResizeFilter),
        default="none",
        metavar="FILTER",
        help=f"for pictures of another size: {', '.join(get_args(ResizeFilter)[1:])} (default: none, they are refused)",
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="data, size and protocol")
    add_out(parser)
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Look at every folder before anything is written, then import and measure one seed after the other."""
    images, more = folders_apart(args.images)
    edited, rest = folders_apart(args.edited)
    overrides = [*args.overrides, *more, *rest]
    by_task = _by_task(edited, len(images))
    from pipeline.commands.rows import print_rows
    from pipeline.progress import shown
    from pipeline.records import RunStore
    from pipeline.runs.external import import_pictures, look_at

    runs = [
        look_at(
            args.name,
            Path(folder),
            {task: folders[seed] for task, folders in by_task.items()},
            seed=seed,
            resize=args.resize,
            overrides=overrides,
            out=args.out,
        )
        for seed, folder in enumerate(images)
    ]
    for looked in runs:
        with shown() as progress:
            record = import_pictures(looked, RunStore(args.out / "runs"), progress)
        print_rows([row for row in record.metrics if not row.name.startswith("seg_iou_")])
        print(f"record: {record.path} (seed {looked.resolved.config.seed})")
    print(f"as an arm of a study: {args.name}: {{label: {args.name}, external: {args.name}}}")
    return 0


def folders_apart(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Folders, and the overrides that argparse takes for more of them because they follow."""
    overrides = [
        word for word in words if "=" in word and word.partition("=")[0] not in TASKS and not Path(word).exists()
    ]
    return [word for word in words if word not in overrides], overrides


def _by_task(words: Sequence[str], seeds: int) -> dict[EditTask, list[Path]]:
    """Folders of edits by their task, one a seed."""
    found: dict[EditTask, list[Path]] = {}
    for word in words:
        task, equals, folder = word.partition("=")
        if not equals or task not in TASKS:
            task, folder = Path(word).resolve().name, word
        if task not in TASKS or task == "reconstruct":
            raise UserError(
                f"--edited {word}: the folder's name must say the task{nearest(task, TASKS)}, or write TASK=DIR; tasks: "
                f"{', '.join(name for name in TASKS if name != 'reconstruct')}"
            )
        found.setdefault(cast("EditTask", task), []).append(Path(folder))
    for task, folders in found.items():
        if len(folders) != seeds:
            raise UserError(f"--edited: {len(folders)} folders of {task} for {seeds} of --images; give one a seed")
    return found
