"""The command line of studies."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ablations import view
from ablations.adhoc import grid_study, parse_seeds
from ablations.plan import Plan, lock, make_plan, unavailable
from ablations.study import Study, changed, find_study, keep_study, load_study, shipped
from pipeline.cli import Parser, add_only, add_out
from pipeline.errors import UserError
from pipeline.launch.executor import Executor
from pipeline.launch.job import TRAIN_ENTRY
from pipeline.launch.scheduler import Outcome, Policy, run_tasks
from pipeline.launch.watch import observer_for
from pipeline.records.manifest import Cell, StudyManifest
from pipeline.schema.files import find_folder

if TYPE_CHECKING:
    from rich.console import Console

EXIT_FAILED = 1
EXIT_INCOMPLETE = 75  # nothing failed, but a time limit or an interruption left cells to run: run again

QUIET_LOOKS = 3  # of `status --watch`, in a row without a running cell: nobody carries out the study

STUDY = "a study: the name of a shipped one or of one that has run, its file, or its folder OUT/NAME"
DESCRIPTION = """\
Ablation studies: a study file (factors, levels, design, seeds) becomes a plan of runs; what is missing of it is run.

  python -m ablations list                      the shipped studies
  python -m ablations plan demo                 cells, what is new, what is reused, what it will cost
  python -m ablations run demo --jobs 2         run what is missing; again after any crash
  python -m ablations status demo --watch       a live table
  python -m ablations run --grid model=ca2sis,spade --seeds 0,1,2 --set preset=tiny
"""


def build_parser() -> argparse.ArgumentParser:
    """All sub-commands."""
    parser = Parser(prog="python -m ablations", description=DESCRIPTION)
    commands = parser.add_subparsers(metavar="COMMAND")

    listing = commands.add_parser("list", help="the shipped studies and their questions")
    listing.set_defaults(func=list_studies)

    plan = commands.add_parser("plan", help="check a study and show its cells; runs nothing, writes nothing")
    _add_study(plan)
    plan.add_argument(
        "--diff", action="store_true", help="show for each arm which config keys differ from the reference"
    )
    plan.set_defaults(func=show_plan)

    run = commands.add_parser(
        "run",
        help="run what is missing of a study",
        epilog="exit status: 0 every cell is finished, 1 some run failed or diverged, 2 a mistake in the input, "
        "75 stopped before the end (run again), 130 interrupted twice",
    )
    _add_study(run)
    run.add_argument("--jobs", type=int, metavar="N", help="runs at once (default: one, or one a GPU slot)")
    run.add_argument("--per-gpu", type=int, default=1, metavar="N", help="runs that share one GPU (default: 1)")
    run.add_argument(
        "--on-error", default="continue", metavar="WHAT", help="continue (default), stop, or retry=K further attempts"
    )
    run.add_argument("--max-hours", type=float, metavar="H", help="then stop cleanly at checkpoints")
    run.add_argument(
        "--again",
        action="append",
        default=[],
        choices=["diverged"],
        help="run cells in this state once more, not only missing ones",
    )
    run.add_argument(
        "--executor", default="local", choices=["local", "slurm"], help="where runs happen (default: local processes)"
    )
    run.add_argument(
        "--slurm",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of the Slurm executor, e.g. slurm_partition=gpu",
    )
    run.add_argument(
        "--entry",
        default=TRAIN_ENTRY,
        metavar="MODULE:FUNCTION",
        help="what carries out a run in its process (default: training)",
    )
    run.set_defaults(func=run_study)

    status = commands.add_parser("status", help="where the cells of a study stand")
    status.add_argument("study", metavar="STUDY", help=STUDY)
    status.add_argument(
        "--watch", action="store_true", help="refresh until every cell has ended, or nothing runs any more"
    )
    add_out(status)
    status.set_defaults(func=show_status)
    return parser


def _add_study(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", nargs="?", metavar="STUDY", help=STUDY)
    parser.add_argument(
        "--grid", nargs="+", metavar="KEY=A,B", help="a full factorial without a file; first value = reference"
    )
    parser.add_argument("--name", help="name of an ad hoc study (default: made from the grid)")
    parser.add_argument("--seeds", metavar="LIST", help="replaces the study's seeds: 0,1,2 or 0-4")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="overrides added to the study's base"
    )
    add_only(parser)
    parser.add_argument(
        "--budget", metavar="REASON", help="declare why arms may see different numbers of training images"
    )
    add_out(parser)


def list_studies(args: argparse.Namespace) -> int:
    """`ablations list`."""
    view.studies(_console(), [load_study(name) for name in shipped()])
    return 0


def show_plan(args: argparse.Namespace) -> int:
    """`ablations plan`."""
    _, plan = _plan(args)
    _warn(plan)
    view.plan(_console(), plan, _chosen(plan, args.only), args.out, diff=args.diff)
    return 0


def run_study(args: argparse.Namespace) -> int:
    """`ablations run`."""
    console = _console()
    policy = Policy.parse(args.on_error, max_hours=args.max_hours, again=args.again)
    study, plan = _plan(args)
    cells = _chosen(plan, args.only)
    _warn(plan)
    executor = make_executor(args, plan.manifest.name, len(cells), console)
    plan, said = lock(plan, args.out / plan.manifest.name)
    keep_study(study, args.out / plan.manifest.name)
    if said:
        console.print(said, highlight=False)
    began = time.monotonic()
    try:
        outcomes = run_tasks(plan.tasks(cells), args.out, executor, policy, observer_for(console), entry=args.entry)
    finally:
        executor.close()
    journal(args.out / plan.manifest.name, outcomes)
    view.summary(console, plan, cells, outcomes, args.out, time.monotonic() - began)
    return exit_status(outcomes)


def show_status(args: argparse.Namespace) -> int:
    """`ablations status`."""
    args.out, name = find_folder(args.study, args.out)
    if (args.out / name / "plan.json").exists():
        manifest = StudyManifest.load(args.out / name)
    else:
        manifest = make_plan(find_study(args.study, args.out)[1], out=args.out).manifest
    console = _console()
    if not args.watch:
        console.print(view.status_table(manifest, args.out, console.width))
        return 0
    from rich.live import Live

    with Live(console=console, refresh_per_second=2) as live:
        quiet = 0  # looks in a row; between two runs of a study there is a moment without one
        while not view.all_ended(manifest, args.out) and quiet < QUIET_LOOKS:
            live.update(view.status_table(manifest, args.out, console.width))
            quiet = 0 if view.any_live(manifest, args.out) else quiet + 1
            time.sleep(1.0)
        live.update(view.status_table(manifest, args.out, console.width))
    return 0


def exit_status(outcomes: Sequence[Outcome]) -> int:
    """0 all finished, 1 some failed or diverged, 75 only stopped."""
    hows = {outcome.how for outcome in outcomes}
    if hows & {"failed", "diverged"}:
        return EXIT_FAILED
    return EXIT_INCOMPLETE if hows & {"preempted", "left"} else 0


def journal(folder: Path, outcomes: Sequence[Outcome]) -> None:
    """Keep how cells ended that have no record of their own saying so (a run that could not even start)."""
    from pipeline.records import atomic

    for outcome in outcomes:
        if outcome.how in ("failed", "diverged", "preempted"):
            run_id = outcome.task.resolved.run_id
            row = {"run_id": run_id, "cell": outcome.task.name, "how": outcome.how, "reason": outcome.reason}
            atomic.append_json_line(folder / "outcomes.jsonl", row)


def make_executor(args: argparse.Namespace, study: str, cells: int, console: Console) -> Executor:
    """The executor the command line asks for, for at most `cells` runs at once."""
    if args.executor == "slurm":
        from pipeline.launch.slurm import SlurmExecutor

        return SlurmExecutor.from_settings(args.slurm, folder=args.out / "slurm" / study, jobs=args.jobs)
    if args.slurm:
        raise UserError("--slurm settings need --executor slurm")
    from pipeline.launch.local import LocalExecutor, preload_for
    from pipeline.launch.resources import Resources

    resources = Resources.divide(args.jobs, most=cells, per_gpu=args.per_gpu)
    if resources.limit:
        console.print(resources.limit, highlight=False)
    return LocalExecutor(resources, preload=preload_for(args.entry, TRAIN_ENTRY))


def _plan(args: argparse.Namespace) -> tuple[Study, Plan]:
    seeds = parse_seeds(args.seeds) if args.seeds is not None else None
    study = _study(args)
    if args.budget is not None:
        study = changed(study, "--budget", budget={"rule": "declared", "reason": args.budget})
    return study, make_plan(study, extra=args.set, seeds=seeds, out=args.out)


def _study(args: argparse.Namespace) -> Study:
    if args.grid is not None:
        if args.study is not None:
            raise UserError(f"give a study ({args.study}) or --grid, not both")
        return grid_study(args.grid, name=args.name)
    if args.study is None:
        raise UserError(f"name a study ({', '.join(shipped())}) or give --grid")
    args.out, study = find_study(args.study, args.out)
    return study


def _warn(plan: Plan) -> None:
    for line in unavailable(plan):
        _console().print(f"! {line}", style="yellow", highlight=False, markup=False, soft_wrap=True)


def _chosen(plan: Plan, only: Sequence[str]) -> list[Cell]:
    """Cells of the arms that `--only` chooses."""
    arms = plan.manifest.matching(only)
    return [cell for cell in plan.manifest.cells if cell.arm in arms]


def _console() -> Console:
    from rich.console import Console

    return Console()
