"""Where a number came from: code, versions, machine. Recorded with every run and compared by tables."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "torchvision", "numpy", "torchmetrics", "hydra-core", "pillow")


@functools.cache
def code_version() -> dict[str, Any]:
    """Commit and dirty flag of the checkout (None where there is none), and a digest of this package's own sources.

    The digest tells two versions apart where there is no git, and two dirty trees from each other.
    """
    package = Path(__file__).parent
    sources = hashlib.sha256()
    for path in sorted([*package.rglob("*.py"), *package.rglob("*.yaml")]):
        sources.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    commit = _git(package, "rev-parse", "HEAD")
    dirty = bool(_git(package, "status", "--porcelain", "--", ".")) if commit else None
    return {"commit": commit, "dirty": dirty, "code_digest": sources.hexdigest()[:16]}


def versions() -> dict[str, str]:
    """Versions of what computes: interpreter and the packages numbers depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def host_facts() -> dict[str, Any]:
    """The machine: processor, cores this process may use, memory, operating system."""
    pages, page_bytes = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "hostname": platform.node(),
        "system": f"{platform.system()} {platform.release()}",
        "processor": processor(),
        "cores": cpu_count(),
        "memory_gib": round(pages * page_bytes / 2**30, 1),
    }


def cpu_count() -> int:
    """CPUs this process may run on: those a Slurm job or `taskset` binds it to. A container's quota of time is no part of it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """The processor's own name; its architecture where it does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
