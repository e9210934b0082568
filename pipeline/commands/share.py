"""`python -m pipeline pack RUN` and `unpack FILE`: a run as one file to share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pipeline.cli import add_out
from pipeline.errors import UserError
from pipeline.records.store import SHORT_ID


def register(subparsers: Any) -> None:
    """Add the commands to the sub-parsers of `python -m pipeline`."""
    packing = subparsers.add_parser(
        "pack",
        help="a finished run as one file: record, weights, config, model card",
        description="Write a finished run as one archive: record, weights (safetensors), config, and a model card (README.md in\n"
        "Hugging Face's format). Paths and hosts of this machine are left out. The same run gives the same bytes.",
    )
    packing.add_argument("run", metavar="RUN", help="id of a finished run, or its beginning")
    packing.add_argument("--to", type=Path, metavar="FILE.zip", help="default: the beginning of the id, .zip")
    packing.add_argument(
        "--licence", default="unknown", metavar="ID", help="of the weights, for the model card (default: unknown)"
    )
    add_out(packing)
    packing.set_defaults(func=run_pack)
    unpacking = subparsers.add_parser(
        "unpack",
        help="take a packed run into the output folder",
        description="Take a packed run into OUT/runs. The file is not trusted: nothing in it is executed, nothing is written\n"
        "elsewhere, and it must be what its run id says.",
    )
    unpacking.add_argument("file", type=Path, metavar="FILE.zip", help="what `pack` has written")
    unpacking.add_argument("--data-root", type=Path, metavar="DIR", help="where the run's photos lie here")
    add_out(unpacking)
    unpacking.set_defaults(func=run_unpack)


def run_pack(args: argparse.Namespace) -> int:
    """`pack`: one file out of a record."""
    from pipeline.records import RunStore
    from pipeline.runs.sharing import pack

    record = RunStore(args.out / "runs").find(args.run)
    file = args.to or Path(f"{record.id[:SHORT_ID]}.zip")
    if file.suffix != ".zip":
        raise UserError(f"--to {file}: the name must end in .zip")
    pack(record, file, args.licence)
    print(f"packed: {file} ({file.stat().st_size / 2**20:.1f} MiB)")
    return 0


def run_unpack(args: argparse.Namespace) -> int:
    """`unpack`: a record out of one file."""
    from pipeline.records import RunStore
    from pipeline.runs.sharing import unpack

    if args.data_root is not None and not args.data_root.is_dir():
        raise UserError(f"--data-root {args.data_root}: no such folder")
    record = unpack(args.file, RunStore(args.out / "runs"), args.data_root)
    print(f"record: {record.path}")
    return 0
