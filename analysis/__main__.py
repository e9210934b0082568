"""The command line: records in, tables, figures, reports and verdicts out. Never imports torch.

Matplotlib and jinja2 only where drawn.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from pipeline.errors import RunFailed, UserError

# command -> module with `register(subparsers)`; only the module of the given command is imported
COMMANDS: dict[str, str] = {
    "table": "analysis.tables.cli",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; a user's mistake becomes one line on stderr and exit status 2."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        args = _parser(arguments).parse_args(arguments)
        return int(args.func(args))
    except (UserError, RunFailed) as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_status
    except BrokenPipeError:  # the reader (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m analysis",
        description="From run records to tables, figures, a report and verdicts on claims.",
        epilog="python -m analysis COMMAND --help describes a command.",
    )
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    wanted = next((word for word in arguments if not word.startswith("-")), None)
    modules = [COMMANDS[wanted]] if wanted in COMMANDS else list(COMMANDS.values())
    for module in dict.fromkeys(modules):
        importlib.import_module(module).register(subparsers)
    return parser


if __name__ == "__main__":
    sys.exit(main())
