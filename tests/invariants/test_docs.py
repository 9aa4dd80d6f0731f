"""Invariant 6: the commands of every page run as they are written, from the top of the page to its end."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import FAST_COMPILING

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))
# Pages whose commands need the TPU compiler.
COMPILING = ("docs/compile.md",)
_BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The commands a reader has: `python` and `fooddit` of this interpreter. All pages share compiled programs."""
    folder = tmp_path_factory.mktemp("bin")
    for name, arguments in (("python", ""), ("fooddit", " -m fooddit")):
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}"{arguments} "$@"\n')
        script.chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": " ".join(FAST_COMPILING),
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run(page, environment, tmp_path):
    if page in COMPILING and importlib.util.find_spec("libtpu") is None:
        pytest.skip("the TPU compiler is not installed: pip install 'fooddit[aot]'")
    if page in COMPILING:
        # The suite's flags are of the CPU's compiler; the others end the process at a flag that they do not know.
        environment = {name: value for name, value in environment.items() if name != "XLA_FLAGS"}
    for name in ("main.py", "configs", "fooddit", "launch"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "docs").mkdir()
    blocks = _BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
    assert blocks, f"{page} has no command"
    for language, code in blocks:
        command = ["bash", "-euo", "pipefail", "-c", code] if language == "bash" else ["python", "-c", code]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{page}:\n{code}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
