"""What the C library does with freed memory: kept for the next step, or given back and fetched anew, page by page.

Feature maps at 256x256 are tens of MiB each. By default glibc returns such blocks to the system when they are freed; the next
step gets them back as empty pages, which the kernel clears one by one: 7 % of a training step of (CA)²-SIS on a CPU, a quarter
of SEAN's. Keeping them costs a few per cent of peak memory. The numbers do not change.
"""

from __future__ import annotations

import ctypes
import platform

# Parameters of mallopt(3).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -2, -3, -4
_MIB = 2**20


def keep_freed_memory() -> bool:
    """From now on this process keeps what it frees; False where the C library is not glibc, and nothing changes."""
    return _set({_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: -1, _M_TOP_PAD: 256 * _MIB})


def return_freed_memory() -> bool:
    """glibc's own way, as it settles after the first large blocks: these come from the system and go back to it."""
    changed = _set(
        {_M_MMAP_MAX: 65536, _M_MMAP_THRESHOLD: 32 * _MIB, _M_TRIM_THRESHOLD: 64 * _MIB, _M_TOP_PAD: 128 * 1024}
    )
    if changed:
        ctypes.CDLL(None).malloc_trim(0)
    return changed


def _set(values: dict[int, int]) -> bool:
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return all(libc.mallopt(parameter, value) == 1 for parameter, value in values.items())
