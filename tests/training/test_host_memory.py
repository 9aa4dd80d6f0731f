import platform
import subprocess
import sys

import pytest

from fooddit.training import host_memory

# Pages that the kernel has to find for the second of two blocks of 64 MiB, the first one freed before.
PROGRAM = """
import ctypes, resource, sys
from fooddit.training.host_memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
libc, size = ctypes.CDLL(None), 64 << 20
libc.malloc.restype, libc.free.argtypes, libc.memset.argtypes = (
    ctypes.c_void_p, [ctypes.c_void_p], [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
)
libc.malloc.argtypes = [ctypes.c_size_t]
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc(size)
    libc.memset(block, 1, size)
    libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode: str) -> int:
    result = subprocess.run([sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True, check=True)
    return int(result.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_a_freed_block_is_used_again():
    assert faults("default") > 20
    assert faults("keep") <= 5


def test_says_so_where_the_library_is_another(monkeypatch):
    monkeypatch.setattr(host_memory.platform, "libc_ver", lambda: ("", ""))
    assert host_memory.keep_freed_memory() is False


def test_a_machine_with_an_accelerator_keeps_its_ways(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "tpu,cpu")
    assert host_memory.keep_freed_memory() is False
    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.setattr(host_memory.importlib.util, "find_spec", lambda name: name == "jax_cuda13_plugin" or None)
    assert host_memory.keep_freed_memory() is False
    monkeypatch.setattr(host_memory.importlib.util, "find_spec", lambda name: name == "libtpu" or None)
    monkeypatch.setattr(host_memory.glob, "glob", lambda pattern: ["/dev/vfio/0"] if "vfio" in pattern else [])
    assert host_memory.keep_freed_memory() is False
