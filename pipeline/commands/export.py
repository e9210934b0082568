"""`python -m pipeline export RUN --to DIR`: a finished run's pictures as files for other code."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pipeline.cli import add_out
from pipeline.errors import UserError


def register(subparsers: Any) -> None:
    """Add the command to the sub-parsers of `python -m pipeline`."""
    parser = subparsers.add_parser(
        "export",
        help="a finished run's pictures as PNG files, with masks and references",
        description="Write the pictures of a finished run for other code: DIR/WHAT/NAME.png, DIR/masks/WHAT/NAME.png\n"
        "(class indices), DIR/references/WHAT/NAME.png and DIR/manifest.json. NAME is a sample's key; an edit's is\n"
        "CONTENT__REFERENCE__REGION. Interrupted, the same command goes on;\n"
        "`import-images` reads such folders back (docs/exchange.md).",
    )
    parser.add_argument("run", metavar="RUN", help="id of a finished run, or its beginning")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="the folder to write")
    parser.add_argument(
        "--split", choices=("train", "val", "test"), help="whose images (default: the split the protocol measures)"
    )
    parser.add_argument(
        "--what",
        default="reconstruction",
        metavar="KIND,...",
        help="reconstruction (default), and edit tasks: style_transfer, shape_transfer, ...",
    )
    parser.add_argument(
        "--protocol", default="standard", metavar="P", help="which images and which edits (default: standard)"
    )
    add_out(parser)
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Write the folder and say what is in it."""
    from pipeline.config import load_protocol
    from pipeline.data import build_dataset
    from pipeline.evaluation.export import export_pictures
    from pipeline.progress import shown
    from pipeline.runs.checkpoint import finished_run
    from pipeline.schema.families import family_of

    kinds = [kind.strip() for kind in args.what.split(",") if kind.strip()]
    if not kinds:
        raise UserError("--what: name at least one kind of picture, for instance reconstruction")
    protocol = load_protocol(args.protocol)
    split = args.split or protocol.split
    record, generator, config, device = finished_run(args.out, args.run)
    about = {"run": record.id, "family": family_of(config.model), "data": record.provenance["data"]["summary"]}
    with shown() as progress:
        counts = export_pictures(
            generator,
            build_dataset(config.data, split, record.cache),
            protocol,
            split,
            kinds,
            args.to,
            about,
            device=device,
            cache=record.cache,
            progress=progress,
        )
    for kind, count in counts.items():
        print(f"{count} pictures: {args.to / kind}")
    print(f"manifest: {args.to / 'manifest.json'}")
    return 0
