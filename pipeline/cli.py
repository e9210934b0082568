"""What every command shares: errors as one line with an exit status, help that reads well, output folder, progress."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.errors import RunFailed, UserError

OUT = Path("out")  # the output folder where none is named


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps paragraphs and examples of descriptions as written, with room for option names."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32, width=min(110, _columns()))


class Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are one line and exit status 2."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        kwargs.setdefault("formatter_class", HelpFormatter)
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]

    def error(self, message: str) -> None:  # type: ignore[override]
        raise UserError(f"{message} (see {self.prog} --help)")


def run_main(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> int:
    """Parse, call the sub-command's `func(args) -> int`, and turn errors into one line on stderr.

    Exit status: 0 done, 1 something that ran has failed, 2 the user's input is wrong, 130 interrupted.
    """
    try:
        args = parser.parse_args(argv)
        if not hasattr(args, "func"):
            parser.print_help()
            return 2
        func: Callable[[argparse.Namespace], int] = args.func
        return func(args)
    except (UserError, RunFailed) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def add_out(parser: argparse.ArgumentParser) -> None:
    """The option every command has: where runs, studies and reports lie."""
    parser.add_argument(
        "--out",
        type=Path,
        default=OUT,
        metavar="DIR",
        help="folder of runs, studies and reports (default: out)",
    )


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Hydra overrides as the rest of the command line."""
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="config overrides, for instance model=spade preset=small seed=1",
    )


def _columns() -> int:
    import shutil

    return shutil.get_terminal_size((100, 24)).columns
