"""The command line: records in, tables, figures, reports and verdicts out.

Never imports torch; matplotlib and jinja2 are loaded only by the commands that draw, so that `table` starts in a
second.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from pipeline.cli import Parser, run_main

# command -> module with `register(subparsers)`; only the module of the given command is imported
COMMANDS: dict[str, str] = {
    "table": "analysis.commands.table",
    "figures": "analysis.commands.figures",
    "report": "analysis.commands.report",
    "compare": "analysis.commands.compare",
    "claims": "analysis.commands.claims",
    "trace": "analysis.commands.trace",
    "diff": "analysis.commands.diff",
    "stale": "analysis.commands.stale",
    "frame": "analysis.commands.frame",
    "keep": "analysis.commands.keep",
    "import-csv": "analysis.commands.import_csv",
    "import-wandb": "analysis.commands.import_wandb",
}
DESCRIPTION = """From run records to tables, figures, a report, and verdicts on claims.

STUDY is the name of a study in the output folder (default: out), as `python -m ablations run STUDY` leaves it.
`python -m analysis COMMAND --help` describes a command."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; a user's mistake becomes one line on stderr and exit status 2."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return run_main(_parser(arguments), arguments)


def _parser(arguments: Sequence[str]) -> Parser:
    parser = Parser(prog="python -m analysis", description=DESCRIPTION)
    subparsers = parser.add_subparsers(metavar="COMMAND")
    wanted = next((word for word in arguments if not word.startswith("-")), "")
    modules = [COMMANDS[wanted]] if wanted in COMMANDS else list(COMMANDS.values())
    for module in modules:
        importlib.import_module(module).register(subparsers)
    return parser


if __name__ == "__main__":
    sys.exit(main())
