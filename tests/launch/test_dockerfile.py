"""The image's versions are those that `fooddit compile` compiles with: of constraints.txt, by setup.py's extras."""

import json
import re

import pytest

from launch.run import ROOT

TEXT = (ROOT / "launch" / "Dockerfile").read_text(encoding="utf-8")
LINES = re.sub(r"\\\n", " ", "\n".join(line for line in TEXT.split("\n") if not line.startswith("#"))).split("\n")
PINS = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").split("\n") if "==" in line
)
SETUP = (ROOT / "setup.py").read_text(encoding="utf-8")


def test_every_install_is_pinned_by_the_constraints():
    installs = [line for line in LINES if "pip install" in line]
    assert installs and all("-c constraints.txt" in line for line in installs)
    # No second place where a version could be another one.
    assert not re.search(r"(==|>=|~=)\s*\d", TEXT)
    assert any(re.match(r"COPY .*\bconstraints.txt\b", line) for line in LINES)


def test_the_pins_are_those_of_the_compiler():
    assert PINS["jax"] == PINS["jaxlib"] == PINS["jax-cuda13-plugin"] == PINS["jax-cuda13-pjrt"]
    assert PINS["libtpu"] in re.search(r'"aot": \["libtpu>=([\d.]+)"\]', SETUP)[1]
    assert PINS["jax"] in re.search(r'"jax>=([\d.]+)', SETUP)[1]


@pytest.mark.parametrize("accelerator, package", [("tpu", "libtpu"), ("cuda", "jax\\[cuda13\\]")])
def test_the_extras_bring_the_accelerator(accelerator, package):
    extras = re.search(rf"\b{accelerator}\) extras=([\w,]+)", TEXT)[1].split(",")
    found = [re.search(rf'^ *"{extra}": \[(.*)\]', SETUP, re.M)[1] for extra in extras]
    assert any(re.search(package, packages) for packages in found)
    # Workdirs at gs://.
    assert any("gcsfs" in packages for packages in found)


def test_python_is_the_one_of_the_suite():
    version = re.search(r"^FROM python:([\d.]+)-", TEXT, re.M)[1]
    assert f"on Python {version} " in (ROOT / "constraints.txt").read_text(encoding="utf-8")


def test_signals_reach_python_and_nobody_is_root():
    *_, entrypoint = (line for line in LINES if line.startswith("ENTRYPOINT"))
    # As a list: no shell in between. tini as process 1 passes signals on, and a child's end as it was.
    assert json.loads(entrypoint.removeprefix("ENTRYPOINT ")) == ["/usr/bin/tini", "--", "python", "main.py"]
    assert [line for line in LINES if line.startswith("USER")] == ["USER fooddit"]


def test_what_main_needs_is_copied():
    kept = (ROOT / "launch" / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    assert kept[0] == "*"
    for name in ("main.py", "configs", "fooddit", "launch", "setup.py", "pyproject.toml", "constraints.txt"):
        assert f"!{name}" in kept and (ROOT / name).exists()
