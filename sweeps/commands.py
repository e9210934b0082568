"""The command line of sweeps."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli import OUT, Parser, add_out, text_table
from pipeline.errors import UserError
from pipeline.launch.job import TRAIN_ENTRY
from sweeps.find import find_started, find_sweep, storage_url

if TYPE_CHECKING:
    import optuna
    from rich.console import Console

    from sweeps.sweep import Sweep

EXIT_INCOMPLETE = 75  # stopped before the end: run again

SWEEP = "a sweep: the name of a shipped one or of one that has run, its file, or its folder OUT/sweeps/NAME"
METHOD = "ped-anova (default): what decides whether a trial is among the best; fanova: what makes the value vary"
DESCRIPTION = """\
Sweeps: search a space of config keys for the best value of a metric on the validation split.

  python -m sweeps list                         the shipped sweeps
  python -m sweeps run attention_loss --jobs 2  search, or continue after any crash
  python -m sweeps worker attention_loss --storage postgresql://user@host/db
                                                one more worker, on any machine
  python -m sweeps status attention_loss        trials, states, the best so far
  python -m sweeps best attention_loss          write the best as +best=attention_loss for train, studies, sweeps
  python -m sweeps importance attention_loss    which keys matter
"""


def build_parser() -> argparse.ArgumentParser:
    """All sub-commands."""
    parser = Parser(prog="python -m sweeps", description=DESCRIPTION)
    commands = parser.add_subparsers(metavar="COMMAND")

    listing = commands.add_parser("list", help="the shipped sweeps and their questions")
    listing.set_defaults(func=list_sweeps)

    run = commands.add_parser("run", help="start or continue a sweep", epilog=_STATUSES)
    _add_work(run)
    run.add_argument(
        "--import-trials", action="store_true", help="take over finished trials of older revisions that fit"
    )
    run.set_defaults(func=run_sweep, create=True)

    worker = commands.add_parser("worker", help="one more worker on a sweep that exists", epilog=_STATUSES)
    _add_work(worker)
    worker.set_defaults(func=run_sweep, create=False, import_trials=False)

    status = commands.add_parser("status", help="trials, states, the best so far")
    _add_sweep(status)
    status.add_argument("--watch", action="store_true", help="refresh until no trial is running")
    status.set_defaults(func=show_status)

    best = commands.add_parser("best", help="write the best trial's overrides for +best=SWEEP")
    _add_sweep(best)
    best.add_argument(
        "--trial", type=int, metavar="N", help="this trial instead (for instance another of the Pareto front)"
    )
    best.add_argument("--to", type=Path, metavar="FILE", help="where to write (default: OUT/sweeps/SWEEP/best.yaml)")
    best.set_defaults(func=show_best)

    importance = commands.add_parser("importance", help="which keys decide how good a trial is")
    _add_sweep(importance)
    importance.add_argument("--method", choices=["ped-anova", "fanova"], default="ped-anova", help=METHOD)
    importance.set_defaults(func=show_importance)

    plots = commands.add_parser("plots", help="history, slices, importances, ... as PNG files")
    _add_sweep(plots)
    plots.set_defaults(func=make_plots)
    return parser


_STATUSES = (
    "exit status: 0 the sweep has its trials, 1 none of them finished, 2 a mistake in the input, 75 stopped before the end "
    "(run again), 130 interrupted twice"
)


def _add_sweep(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sweep", metavar="SWEEP", help=SWEEP)
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="overrides added to the base"
    )
    parser.add_argument(
        "--storage", metavar="URL", help="journal:PATH or a database URL (default: a journal in OUT/sweeps/SWEEP)"
    )
    add_out(parser)


def _add_work(parser: argparse.ArgumentParser) -> None:
    _add_sweep(parser)
    parser.add_argument(
        "--trials", type=int, metavar="N", help="in all, over workers and restarts (default: the file's)"
    )
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="trials at once in this worker (default: one, or one a GPU slot)"
    )
    parser.add_argument("--per-gpu", type=int, default=1, metavar="N", help="trials that share one GPU (default: 1)")
    parser.add_argument("--max-hours", type=float, metavar="H", help="then stop cleanly at checkpoints")
    parser.add_argument(
        "--beat", type=float, default=10.0, metavar="S", help="seconds between signs of life (default: 10)"
    )
    parser.add_argument(
        "--silence",
        type=float,
        default=120.0,
        metavar="S",
        help="a worker elsewhere silent for so long is given up (default: 120)",
    )
    parser.add_argument(
        "--entry",
        default=TRAIN_ENTRY,
        metavar="MODULE:FUNCTION",
        help="what carries out a run in its process (default: training)",
    )
    parser.add_argument("--trainer", dest="entry", default=TRAIN_ENTRY, help=argparse.SUPPRESS)  # its older name


def list_sweeps(args: argparse.Namespace) -> int:
    """`sweeps list`."""
    from sweeps.sweep import load_sweep, shipped

    rows = []
    for sweep in (load_sweep(name) for name in shipped()):
        aims = ", ".join(f"{name} {direction}" for name, direction in sweep.objectives.items())
        rows.append((sweep.name, aims, sweep.sampler.kind, str(sweep.trials), " ".join(sweep.question.split())))
    console = _console()
    columns = ("sweep", "objectives", "sampler", "trials", "question")
    console.print(text_table(columns, rows, width=console.width, spare=("sampler", "trials", "objectives")))
    return 0


def run_sweep(args: argparse.Namespace) -> int:
    """`sweeps run` and `sweeps worker`."""
    from optuna.trial import TrialState

    from pipeline.launch.local import LocalExecutor, preload_for
    from pipeline.launch.resources import Resources
    from sweeps import report
    from sweeps.storage import import_trials, open_storage, open_study, refuse_change
    from sweeps.sweep import check, seen_by, unavailable
    from sweeps.worker import Limits, Worker

    console = _console()
    if args.max_hours is not None and args.max_hours <= 0:
        raise UserError(f"--max-hours {args.max_hours}: must be more than 0")
    if args.trials is not None and args.trials < 1:
        raise UserError(f"--trials {args.trials}: must be at least 1")
    if not 0 < args.beat < args.silence:
        raise UserError(
            f"--beat {args.beat}, --silence {args.silence}: silence must be longer than the time between beats"
        )
    sweep, args.out = find_sweep(args.sweep, args.out, args.storage, tuple(args.set))
    check(sweep)
    for line in unavailable(sweep):
        console.print(f"! {line}", style="yellow", highlight=False, markup=False, soft_wrap=True)
    resources = Resources.divide(args.jobs, per_gpu=args.per_gpu)
    url = storage_url(args.storage, args.out, sweep.name)
    storage = open_storage(url)
    study = open_study(storage, sweep, create=args.create)
    refuse_change(study, seen_by(sweep))
    _say_revision(console, study)
    if args.import_trials:
        taken, left = import_trials(study, sweep, storage)
        console.print(f"imported {taken} trials of older revisions, left out {left}", highlight=False)
    if resources.limit:
        console.print(resources.limit, highlight=False)
    executor = LocalExecutor(resources, preload=(*preload_for(args.entry, TRAIN_ENTRY), "optuna", "sweeps.trial"))
    seconds = None if args.max_hours is None else args.max_hours * 3600.0
    limits = Limits(args.trials or sweep.trials, seconds, args.beat, args.silence)

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    try:
        stopped = Worker(sweep, study, url, args.out, executor, limits, say, args.entry).run()
    finally:
        executor.close()
    console.print(report.status_table(study, sweep, console.width))
    _warn(console, study, sweep, args.out)
    if stopped:
        return EXIT_INCOMPLETE
    return 0 if any(trial.state == TrialState.COMPLETE for trial in report.proper(study)) else 1


def show_status(args: argparse.Namespace) -> int:
    """`sweeps status`."""
    from sweeps import report

    sweep, study = _started(args)
    console = _console()
    if not args.watch:
        console.print(report.status_table(study, sweep, console.width))
        _warn(console, study, sweep, args.out)
        return 0
    from rich.live import Live

    with Live(console=console, refresh_per_second=2) as live:
        while True:
            live.update(report.status_table(study, sweep, console.width))
            if all(report.state_of(trial) != "running" for trial in report.proper(study)):
                return 0
            time.sleep(2.0)


def show_best(args: argparse.Namespace) -> int:
    """`sweeps best`."""
    from pipeline.config import BEST
    from sweeps import report
    from sweeps.storage import folder_of

    sweep, study = _started(args)
    path = args.to or folder_of(args.out, sweep.name) / BEST
    trial = report.write_best(study, sweep, path, args.trial)
    console = _console()
    if len(sweep.objectives) > 1:
        for item in report.best_trials(study, sweep):
            values = ", ".join(f"{name} {value:.5g}" for name, value in zip(sweep.objectives, item.values, strict=True))
            console.print(f"front: trial {item.number}: {values}", highlight=False)
    values = ", ".join(f"{name} {value:.5g}" for name, value in zip(sweep.objectives, trial.values, strict=True))
    console.print(f"trial {trial.number}: {values} (validation split)", highlight=False)
    _warn(console, study, sweep, args.out)
    console.print(" ".join(trial.user_attrs["overrides"]), highlight=False, markup=False, soft_wrap=True)
    use = str(path) if args.to else sweep.name if args.out == OUT else f"{sweep.name} --out {args.out}"
    console.print(f"written: {path}; use it with +best={use}", highlight=False, soft_wrap=True)
    return 0


def show_importance(args: argparse.Namespace) -> int:
    """`sweeps importance`."""
    from sweeps import report

    sweep, study = _started(args)
    console = _console()
    for objective, shares in report.importances(study, sweep, args.method).items():
        console.print(f"{objective} ({args.method})", highlight=False)
        for key, share in shares.items():
            console.print(f"  {share:6.1%}  {key}", highlight=False, markup=False)
    return 0


def make_plots(args: argparse.Namespace) -> int:
    """`sweeps plots`."""
    from sweeps import report
    from sweeps.storage import folder_of

    sweep, study = _started(args)
    written, left = report.write_plots(study, sweep, folder_of(args.out, sweep.name) / "plots")
    console = _console()
    for path in written:
        console.print(str(path), highlight=False, soft_wrap=True)
    for reason in left:
        console.print(f"not drawn: {reason}", highlight=False, markup=False, soft_wrap=True)
    if not written:
        raise UserError(f"sweep {sweep.name}: nothing to plot yet")
    return 0


def _started(args: argparse.Namespace) -> tuple[Sweep, optuna.Study]:
    """The sweep a sub-command reads; `args.out` becomes its folder."""
    sweep, study, args.out = find_started(args.sweep, args.out, args.storage, tuple(args.set))
    return sweep, study


def _say_revision(console: Console, study: optuna.Study) -> None:
    revision = study.user_attrs.get("revision")
    if revision and revision > 1:
        text = f"revision {revision} of this sweep (space, objectives or base changed; older ones are kept)"
        console.print(text, highlight=False)


def _warn(console: Console, study: optuna.Study, sweep: Sweep, out: Path) -> None:
    """Say where the objective rests on a segmenter that cannot judge, as the first finished run's record shows."""
    from pipeline.records import RunStore
    from sweeps.outcome import cannot_rank
    from sweeps.report import proper

    ids = [trial.user_attrs["run_id"] for trial in proper(study) if trial.values and "run_id" in trial.user_attrs]
    records = (RunStore(out / "runs").record(run_id) for run_id in ids)
    record = next((record for record in records if record.exists), None)
    line = "" if record is None else cannot_rank(record, sweep)
    if line:
        console.print(f"! {line}", style="yellow", highlight=False, markup=False, soft_wrap=True)


def _console() -> Console:
    from rich.console import Console

    return Console()
