"""Commands on one run: train, config, model, doctor, sync, runs."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cli import add_out, add_overrides
from pipeline.records import RunStore
from pipeline.records.store import SHORT_ID

if TYPE_CHECKING:
    from pipeline.schema.run import RunConfig

UNFOLDED = 240  # columns of a table that goes into a file or a pipe: lines stay whole


def register(subparsers: Any) -> None:
    """Add the sub-commands of this module to `python -m pipeline`."""
    train = subparsers.add_parser(
        "train",
        help="train one run (or resume it, or find it finished)",
        description="Train one run. The same overrides name the same run: a finished one is reused, a killed one resumed.",
    )
    add_overrides(train)
    add_out(train)
    train.set_defaults(func=run_train)

    config = subparsers.add_parser(
        "config",
        help="print the resolved config and the run id it has; or what differs between two",
        description="Print the resolved config and the run id it has; with --diff the keys in which two differ, side by side.",
    )
    config.add_argument(
        "--diff",
        nargs=2,
        metavar=("A", "B"),
        help='each a run (id, or the beginning of one) or quoted overrides ("" for the defaults); KEY=VALUE go before such a list',
    )
    add_overrides(config)
    add_out(config)
    config.set_defaults(func=run_config)

    model = subparsers.add_parser("model", help="print the assembled network: parts, shapes, parameters, FLOPs")
    add_overrides(model)
    add_out(model)
    model.add_argument("--depth", type=int, default=2, metavar="N", help="levels of parts to list (default: 2)")
    model.set_defaults(func=run_model)

    doctor = subparsers.add_parser(
        "doctor", help="check this installation: versions, device, weights, a tiny forward pass"
    )
    add_out(doctor)
    doctor.set_defaults(func=run_doctor)

    sync = subparsers.add_parser("sync", help="rebuild W&B runs from finished records")
    sync.add_argument("runs", nargs="+", metavar="RUN", help="run ids, or the beginning of one")
    sync.add_argument("--mode", choices=("offline", "online"), default="offline")
    add_out(sync)
    sync.set_defaults(func=run_sync)


def run_train(args: argparse.Namespace) -> int:
    """`train`: one run in this process."""
    from pipeline.config import resolve

    store = RunStore(args.out / "runs")
    resolved = resolve(
        with_full_ids(args.overrides, store), args.out
    )  # before torch: a mistake in a key costs no start-up
    from pipeline.commands.rows import print_rows
    from pipeline.progress import shown
    from pipeline.runs.run import execute

    with shown() as progress:
        record = execute(resolved, store, progress=progress)
    trained, untrained = ([row for row in record.metrics if row.state == state] for state in ("trained", "untrained"))
    print_rows(trained, untrained)
    print(f"record: {record.path}")
    return 0


def run_config(args: argparse.Namespace) -> int:
    """`config`: what a run would be, or how two would differ."""
    from pipeline.config import compose, to_yaml

    if args.diff is not None:
        sides = [_config_of(side, args.overrides, args.out) for side in args.diff]
        sys.stdout.write(_side_by_side(*sides))
        return 0
    config = compose(args.overrides, args.out)
    sys.stdout.write(to_yaml(config))
    print(f"# run id: {_id_of(config)}")
    return 0


def _config_of(side: str, overrides: list[str], out: Path) -> RunConfig:
    """What one side of `--diff` names: a recorded run, or overrides after the common ones."""
    from pipeline.config import compose, from_yaml, last_wins

    if side and "=" not in side:
        return from_yaml(RunStore(out / "runs").find(side).config_yaml)
    return compose(last_wins((*overrides, *shlex.split(side))), out)


def _id_of(config: RunConfig) -> str:
    from pipeline.config import identify
    from pipeline.errors import UserError

    try:
        return identify(config).run_id
    except UserError as error:  # the config is sound, the data is not there
        return f"unknown until the data is there ({error})"


def _side_by_side(first: RunConfig, second: RunConfig) -> str:
    """Keys that differ, a line each; those that do not enter the run id are marked."""
    from pipeline.identity import without_nuisance
    from pipeline.schema.base import differing, flat

    values = [config.model_dump(mode="json") for config in (first, second)]
    found = differing(flat(values[0]), flat(values[1]))
    entering = {key for side in values for key in flat(without_nuisance(side))}
    rows = [(key if key in entering else f"{key} *", before, after) for key, before, after in found]
    rows.append(("run id", _id_of(first)[:SHORT_ID], _id_of(second)[:SHORT_ID]))
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    lines = [f"{key:<{widths[0]}}  {before:<{widths[1]}}  {after}" for key, before, after in rows]
    if not found:
        lines.insert(0, "no key differs")
    if any(key.endswith(" *") for key, _, _ in rows):
        lines.append("* does not enter the run id")
    return "\n".join(lines) + "\n"


def run_model(args: argparse.Namespace) -> int:
    """`model`: the network as a table."""
    from rich.console import Console

    from pipeline.cli import text_table
    from pipeline.config import compose
    from pipeline.data.build import space_of
    from pipeline.models.build import build_generator
    from pipeline.models.summary import as_texts, summarise

    config = compose(args.overrides, args.out)
    generator = build_generator(config.model, space_of(config.data).num_classes, config.data.hw)
    summary = summarise(generator, config.data.hw, depth=args.depth)
    columns, rows = as_texts(summary)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = UNFOLDED
    console.print(text_table(columns, rows, width=console.width, spare=("output",), right=("parameters", "MFLOPs")))
    for note in summary.notes:
        console.print(note, markup=False, soft_wrap=True)
    return 0


def run_doctor(args: argparse.Namespace) -> int:
    """`doctor`: is this installation sound?"""
    from pipeline.commands.doctor import examine

    findings = examine(args.out)
    for finding in findings:
        print(f"{finding.state:<7} {finding.what}: {finding.text}")
    return 1 if any(finding.state == "PROBLEM" for finding in findings) else 0


def run_sync(args: argparse.Namespace) -> int:
    """`sync`: W&B runs out of records."""
    from pipeline.config import from_yaml
    from pipeline.errors import RunFailed
    from pipeline.runs.tracking import mirror_record

    store = RunStore(args.out / "runs")
    for record in [store.find(prefix) for prefix in args.runs]:
        tracking = from_yaml(record.config_yaml).tracking.model_copy(update={"mode": args.mode})
        problem = mirror_record(record, tracking)
        if problem:
            raise RunFailed(f"run {record.id[:10]} could not be mirrored: {problem}")
        print(f"{record.id[:10]} mirrored ({args.mode})")
    return 0


def with_full_ids(overrides: list[str], store: RunStore) -> list[str]:
    """Overrides with `init_from=PREFIX` completed to the full id: identities hold no prefixes."""
    key = "init_from="
    return [key + store.find(item.removeprefix(key)).id if item.startswith(key) else item for item in overrides]
