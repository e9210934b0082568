"""Where a number came from: code, versions, machine. Recorded with every run and compared by tables."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import resource
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

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
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(pages * page_bytes / 2**30, 1),
    }


def peak_memory_gib(device_type: str) -> float:
    """Most memory so far in GiB: tensors on the CUDA device if `device_type` is "cuda", else what this process had resident.

    On Linux from /proc: getrusage also counts the process that started this one, whose memory is none of this one's.
    """
    if device_type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / 2**30
    resident = resident_gib("VmHWM")
    if resident is not None:
        return resident
    scale = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 2**30


def resident_gib(key: Literal["VmHWM", "VmRSS"]) -> float | None:
    """Resident memory of this process in GiB, at its highest (VmHWM) or now (VmRSS); None where /proc does not say."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) for line in lines if line.startswith(f"{key}:")]
    return found[0] / 2**20 if found else None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        return platform.processor()
    return platform.processor()


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
