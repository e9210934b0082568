"""`python -m pipeline evaluate RUN... --protocol P`: more numbers for finished runs, without touching those there."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cli import add_out, add_tuning
from pipeline.commands.rows import print_rows
from pipeline.config import choices, load_protocol
from pipeline.errors import UserError
from pipeline.records import RunStore
from pipeline.runs.checkpoint import finished_run

if TYPE_CHECKING:
    from pipeline.schema.evaluation import ProtocolConfig


def register(subparsers: Any) -> None:
    """Add the command to the sub-parsers of `python -m pipeline`."""
    parser = subparsers.add_parser(
        "evaluate",
        help="measure finished runs under a protocol, adding rows to their records",
        description="Measure finished runs under a protocol. Rows of other protocols stay as they are; an interrupted\n"
        "evaluation goes on where it stopped when started again. Under torchrun, several processes share the images:\n"
        "the numbers are those of one process, bit for bit.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="ids of finished runs, or their beginnings")
    parser.add_argument(
        "--protocol",
        default="standard",
        metavar="P",
        help=f"one of {', '.join(choices('protocol'))} (default: standard)",
    )
    parser.add_argument("--weights-dir", metavar="DIR", help="folder with weight files (see `weights list`)")
    parser.add_argument(
        "--segmenter", metavar="FILE", help="TorchScript segmenter to judge with instead of the own one"
    )
    add_tuning(parser)
    parser.add_argument("--batch-size", type=int, metavar="N", help="images at once (default: the protocol's)")
    add_out(parser)
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Evaluate one run after the other; returns the exit status."""
    protocol = load_protocol(args.protocol, tuning_steps=args.tuning_steps)
    if args.weights_dir is not None:
        if not Path(args.weights_dir).is_dir():
            raise UserError(f"--weights-dir {args.weights_dir}: no such folder")
        protocol = protocol.model_copy(update={"weights_dir": args.weights_dir})
    if args.segmenter is not None:
        segmenter = protocol.segmenter.model_copy(update={"external": args.segmenter})
        protocol = protocol.model_copy(update={"segmenter": segmenter})
    if args.batch_size is not None:
        if args.batch_size < 1:
            raise UserError(f"--batch-size must be at least 1, not {args.batch_size}")
        protocol = protocol.model_copy(update={"batch_size": args.batch_size})
    store = RunStore(args.out / "runs")
    for run_id in [store.find(prefix).id for prefix in args.runs]:  # every name is checked before any work
        _evaluate(args.out, run_id, protocol)
    return 0


def _evaluate(out: Path, run_id: str, protocol: ProtocolConfig) -> None:
    from pipeline.progress import Quiet, shown
    from pipeline.runs.evaluation import evaluate_record
    from pipeline.training.distributed import join

    record, generator, config, device = finished_run(out, run_id)
    world = join(device)
    if not world.main:
        evaluate_record(record, config, generator, protocol, device, Quiet(), world=world)
        world.barrier()
        return
    with record.writing(), shown() as progress:
        progress.say(f"run {run_id[:10]}: protocol {protocol.name}")
        rows = evaluate_record(record, config, generator, protocol, device, progress, world=world)
    world.barrier()
    print_rows(rows)
