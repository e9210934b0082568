"""`python -m pipeline paint RUN [RUN2 ...]`: paint a label map in a browser and see what finished runs make of it."""

from __future__ import annotations

import argparse
import contextlib
from typing import Any

from pipeline.cli import add_out
from pipeline.errors import UserError


def register(subparsers: Any) -> None:
    """Add the command to the sub-parsers of `python -m pipeline`."""
    parser = subparsers.add_parser(
        "paint",
        help="paint a label map in a browser and see what finished runs make of it",
        description="Serve a page on this machine: paint a label map, put a style together from photos, and see the pictures of\n"
        "every run named side by side. Ctrl-C ends it. What is saved goes to OUT/edits/painted and is repeated bit for bit by\n"
        "python -m pipeline edit --from OUT/edits/painted/NAME/painting.json",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="ids of finished runs, or their beginnings")
    parser.add_argument(
        "--split", choices=("train", "val", "test"), default="test", help="of the samples (default: test)"
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to listen on (default: 127.0.0.1, which this machine alone reaches)",
    )
    parser.add_argument("--port", type=int, default=0, metavar="N", help="port to listen on (default: any free one)")
    parser.add_argument("--open", action="store_true", help="open the page in this machine's browser")
    add_out(parser)
    parser.set_defaults(func=run, serves=True)


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C; returns the exit status."""
    if not 0 <= args.port < 65536:
        raise UserError(f"--port must be 0 to 65535, not {args.port}")
    try:
        from pipeline.paint.server import serve
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise UserError(f"paint needs the package {error.name}: pip install 'ca2sis-lab[paint]'") from error
    from pipeline.paint.studio import open_studio

    studio = open_studio(args.out, args.runs, args.split)

    def announce(address: str) -> None:
        print(f"paint: {address}", flush=True)
        print("Ctrl-C ends it", flush=True)
        if args.open:
            import webbrowser

            webbrowser.open(address)

    with contextlib.suppress(KeyboardInterrupt):  # the one way to end it
        serve(studio, args.out, args.host, args.port, announce)
    return 0
