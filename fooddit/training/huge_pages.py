"""Large arrays in huge pages (Linux, glibc): on a CPU, XLA takes a step's whole working memory anew at each step."""

import os
import platform
import sys
from pathlib import Path

TUNABLES, HUGE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"
SWITCH = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def environment() -> dict[str, str]:
    """What to add to the environment of a process that trains on a CPU; {} where it is there already or has no effect.

    A fresh page costs the kernel about a microsecond, and a small DiT's step touches 160,000 of them: a third of its
    time. glibc reads the setting once, when a process starts. Memory use stays the same.
    """
    given = os.environ.get(TUNABLES, "")
    if "glibc.malloc.hugetlb" in given or platform.libc_ver()[0] != "glibc" or not SWITCH.exists():
        return {}
    # "[never]" is the administrator's word; under "[always]" large blocks are in huge pages without us.
    if "[madvise]" not in SWITCH.read_text():
        return {}
    return {TUNABLES: f"{given}:{HUGE}" if given else HUGE}


def restart_with_huge_pages() -> None:
    """Replaces this process with itself under that environment (same process id); call it before anything is done."""
    added = environment()
    if added:
        os.environ.update(added)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
