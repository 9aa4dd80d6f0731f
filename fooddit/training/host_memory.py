"""What a CPU does with the memory of a finished step: keeps it for the next one, or gives it back and asks again."""

import ctypes
import glob
import importlib.util
import os
import platform

# Parameters of mallopt(3), from glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


# What JAX loads for a GPU, and where a TPU shows itself.
_GPUS = tuple(f"jax_{kind}_plugin" for kind in ("cuda12", "cuda13", "rocm7", "rocm60"))
_TPUS = ("/dev/accel*", "/dev/vfio/[0-9]*")


def keep_freed_memory() -> bool:
    """Tells glibc to keep freed memory for this process, if JAX will compute on the CPU; whether it does from now on.

    XLA on a CPU takes a step's whole working memory in one piece and frees it at the end of the step. By default glibc
    maps such a piece anew each time, and the kernel clears every page of it again: a quarter of a small DiT's step.
    The price is memory: small blocks that land in the gap make the next piece go elsewhere, so that up to twice a
    step's working memory stays in use. Call it before JAX is imported: what other threads took remains as it was.
    """
    if platform.libc_ver()[0] != "glibc" or not _computes_on_cpu():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # One arena: in any other a piece above 32 MB is mapped anew whatever the other settings say.
    return all([mallopt(_ARENA_MAX, 1), mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, -1)])


def _computes_on_cpu() -> bool:
    """What JAX will choose, without importing it."""
    chosen = os.environ.get("JAX_PLATFORMS")
    if chosen:
        return chosen == "cpu"
    if any(map(importlib.util.find_spec, _GPUS)):
        return False
    # libtpu alone may be there to compile for a TPU.
    return importlib.util.find_spec("libtpu") is None or not any(glob.glob(path) for path in _TPUS)
