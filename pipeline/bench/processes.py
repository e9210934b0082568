"""Commands of the house and functions in processes of their own, timed from outside."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from statistics import median
from typing import Any

from pipeline.errors import RunFailed


def cpu() -> dict[str, Any]:
    """The processor that commands run on, for a result's head."""
    from pipeline.provenance import host_facts

    facts = host_facts()
    return {"device": f"cpu ({facts['processor']}), {facts['cores']} cores"}


def command(room: str, *arguments: str) -> str:
    """Standard output of `python -m ROOM ARGUMENTS`; raises RunFailed with the end of its complaint when it fails."""
    return python("-m", room, *arguments)


def python(*arguments: str) -> str:
    """Standard output of this Python with `arguments`; raises RunFailed when it fails."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RunFailed(f"{' '.join(arguments[:3])} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout


def timed(work: Callable[[], Any]) -> float:
    """Wall seconds of `work`."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def seconds(arguments: Sequence[str], repeats: int) -> float:
    """Median wall seconds of `python ARGUMENTS`."""
    return median(timed(lambda: python(*arguments)) for _ in range(repeats))


def in_own_process(function: Any, *arguments: Any) -> Any:
    """Call in a fresh interpreter: its memory is the function's alone."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()
