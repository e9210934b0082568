"""`python -m pipeline edit RUN --task ...`: picture grids of edits by a finished run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, get_args

from pipeline.cli import add_out, add_tuning
from pipeline.errors import RunFailed, UserError
from pipeline.schema.evaluation import EditTask

TASKS: tuple[EditTask, ...] = get_args(EditTask)


def register(subparsers: Any) -> None:
    """Add the command to the sub-parsers of `python -m pipeline`."""
    parser = subparsers.add_parser(
        "edit",
        help="picture grids of edits by a finished run",
        description="Carry out edit tasks with a finished run and write one picture grid a task.\n"
        "The evaluator turns the same tasks into numbers: python -m pipeline evaluate RUN --protocol standard\n"
        "With --from, repeat a painting instead: bit for bit, or it says so and the exit status is 1.",
    )
    parser.add_argument("run", nargs="?", metavar="RUN", help="id of a finished run, or its beginning")
    parser.add_argument(
        "--from",
        dest="painting",
        type=Path,
        metavar="FILE",
        help="instead of RUN: repeat the pictures of a painting (painting.json, saved by `paint`)",
    )
    parser.add_argument(
        "--task", action="append", choices=TASKS, metavar="TASK", help=f"one of {', '.join(TASKS)} (default: all)"
    )
    parser.add_argument(
        "--region",
        action="append",
        metavar="NAME",
        help="class or class group to edit, repeatable; absent_style takes out the first",
    )
    parser.add_argument("--images", type=int, default=6, metavar="N", help="rows of a grid (default: 6)")
    parser.add_argument("--split", choices=("train", "val", "test"), default="test")
    parser.add_argument(
        "--steps",
        type=int,
        default=5,
        metavar="N",
        help="positions of an interpolation, samples of a layout (default: 5)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the choice of images and of sampled styles")
    parser.add_argument(
        "--cell", type=int, default=128, metavar="PX", help="height of a picture in the grid (default: 128)"
    )
    add_tuning(parser)
    add_out(parser)
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Write the grids; returns the exit status (2 when a task named with --task cannot be done by the family)."""
    if (args.run is None) == (args.painting is None):
        raise UserError("name a RUN, or a painting with --from FILE, and not both")
    if args.painting is not None:
        return _repeat(args.painting, args.out)
    return _edit(args)


def _repeat(path: Path, out: Path) -> int:
    """Make the pictures of a painting again; the exit status is 1 when one is not what was saved, bit for bit."""
    from pipeline.paint.saving import repeat

    painting, pictures = repeat(path, out, out / "edits" / "repeated" / path.resolve().parent.name)
    for picture in pictures:
        print(f"{picture.path}  {'bit for bit as saved' if picture.equal else 'DIFFERS from what was saved'}")
    if all(picture.equal for picture in pictures):
        return 0
    raise RunFailed(
        f"{path}: pictures differ from the saved ones, which were made with torch {painting.torch} on {painting.device}, "
        f"code {painting.code}"
    )


def _edit(args: argparse.Namespace) -> int:
    from pipeline.config import load_protocol
    from pipeline.data import build_dataset
    from pipeline.editing.cases import choose_cases, no_cases
    from pipeline.editing.grids import edit_grid
    from pipeline.editing.tasks import refusal
    from pipeline.evaluation.inversion import inverting
    from pipeline.evaluation.samples import write_png
    from pipeline.runs.checkpoint import finished_run

    for option in ("images", "cell"):
        if getattr(args, option) < 1:
            raise UserError(f"--{option} must be at least 1, not {getattr(args, option)}")
    if args.steps < 2 or args.seed < 0:
        raise UserError("--steps must be at least 2 and --seed at least 0")
    protocol = load_protocol("standard", tuning_steps=args.tuning_steps)
    record, generator, config, device = finished_run(args.out, args.run)
    dataset = build_dataset(config.data.model_copy(update={"cache": "memory"}), args.split)
    standard, generator = protocol.editing, inverting(generator, protocol, device)
    regions = tuple(args.region) if args.region else standard.regions
    for name in args.region or ():
        dataset.label_space.members(name)  # an unknown name is an error that lists the near ones
    absent = args.region[0] if args.region else standard.absent
    cfg = standard.model_copy(update={"pairs": args.images, "regions": regions, "absent": absent, "seed": args.seed})
    folder = args.out / "edits" / record.id[:10]
    chosen: tuple[EditTask, ...] = tuple(args.task) if args.task else TASKS
    for task in chosen:
        reason = refusal(task, generator.capabilities)
        if reason and args.task:
            raise UserError(f"task {task}: {reason} (run {record.id[:10]})")
        cases = [] if reason else choose_cases(task, cfg, dataset, len(dataset))
        if not cases:
            print(f"{task:<26} not applicable: {reason or no_cases(len(dataset))}")
            continue
        grid = edit_grid(
            task, generator, dataset, cases, device=device, steps=args.steps, seed=args.seed, cell=args.cell
        )
        write_png(folder / f"{task}.png", grid.picture)
        print(f"{task:<26} {folder / f'{task}.png'}")
    return 0
