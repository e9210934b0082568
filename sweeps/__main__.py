"""`python -m sweeps run|worker|status|best|importance|plots|list`: from a search space to the best overrides."""

from __future__ import annotations

import sys

from pipeline.cli import run_main
from sweeps.commands import build_parser

if __name__ == "__main__":
    sys.exit(run_main(build_parser()))
