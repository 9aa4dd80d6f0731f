import os
import subprocess
import sys

import pytest

from fooddit.training import huge_pages


@pytest.fixture
def linux(monkeypatch, tmp_path):
    """A machine whose kernel gives huge pages to those who ask."""
    switch = tmp_path / "enabled"
    switch.write_text("always [madvise] never\n")
    monkeypatch.setattr(huge_pages, "SWITCH", switch)
    monkeypatch.setattr(huge_pages.platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.delenv(huge_pages.TUNABLES, raising=False)
    return switch


def test_asks_for_huge_pages_and_keeps_other_tunables(linux, monkeypatch):
    assert huge_pages.environment() == {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=1")
    assert huge_pages.environment() == {"GLIBC_TUNABLES": "glibc.malloc.check=1:glibc.malloc.hugetlb=1"}


@pytest.mark.parametrize("state", ["[always] madvise never", "always madvise [never]"])
def test_leaves_a_kernel_that_decides_itself_alone(linux, state):
    linux.write_text(state)
    assert huge_pages.environment() == {}


def test_asks_once_and_only_where_it_has_an_effect(linux, monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0")
    assert huge_pages.environment() == {}
    monkeypatch.delenv("GLIBC_TUNABLES")
    monkeypatch.setattr(huge_pages.platform, "libc_ver", lambda: ("", ""))
    assert huge_pages.environment() == {}


def test_restarts_once_with_the_same_arguments_and_process_id(linux):
    program = f"""
import os, pathlib, sys
from fooddit.training import huge_pages
huge_pages.SWITCH = pathlib.Path({str(linux)!r})
huge_pages.platform.libc_ver = lambda: ("glibc", "2.36")
print(os.getpid(), sys.argv[1:], os.environ.get("GLIBC_TUNABLES"), flush=True)
huge_pages.restart_with_huge_pages()
"""
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    command = [sys.executable, "-c", program, "--config=a b", "x"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    first, second = result.stdout.splitlines()
    assert first.replace("None", "") == second.replace("glibc.malloc.hugetlb=1", "") and first != second
