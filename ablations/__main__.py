"""`python -m ablations plan|run|status|list`: from a study file to finished runs."""

from __future__ import annotations

import sys

from ablations.commands import build_parser
from pipeline.cli import run_main

if __name__ == "__main__":
    sys.exit(run_main(build_parser()))
