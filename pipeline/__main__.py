"""`python -m pipeline`: one run of semantic image synthesis, from config to record."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from pipeline.cli import Parser, run_main

# Modules of the command line, in the order help lists them. Each module's `register(subparsers)` adds its sub-commands and
# imports what is heavy only when one of them runs.
COMMANDS = (
    "pipeline.commands.run",
    "pipeline.commands.data",
    "pipeline.commands.evaluate",
    "pipeline.commands.edit",
    "pipeline.commands.export",
    "pipeline.commands.import_images",
    "pipeline.commands.share",
    "pipeline.commands.paint",
    "pipeline.commands.weights",
    "pipeline.commands.bench",
)

DESCRIPTION = """\
Semantic image synthesis, one run at a time: a label map and a style photo go in, a photo comes out.

  python -m pipeline train                          train (CA)2-SIS on procedural faces, CPU minutes
  python -m pipeline train model=spade seed=1       another family, another seed
  python -m pipeline config model=sean preset=small the resolved config of a run
  python -m pipeline evaluate RUN --protocol paper  more numbers for a finished run (hours without a GPU)
  python -m pipeline paint RUN RUN2                 paint a label map, see both runs' pictures

Every KEY=VALUE is a Hydra override; `python -m pipeline config` prints all keys with their values."""


def parser() -> argparse.ArgumentParser:
    """The command line of `python -m pipeline`."""
    root = Parser(prog="python -m pipeline", description=DESCRIPTION)
    subparsers = root.add_subparsers(title="commands", metavar="COMMAND", parser_class=Parser)
    for module in COMMANDS:
        import_module(module).register(subparsers)
    return root


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    return run_main(parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
