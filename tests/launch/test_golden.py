"""What launch/run.py prints, letter by letter: a change of it is seen and meant."""

import shlex

import pytest

from launch import run
from tests.launch.cases import CASES, GOLDEN, REFUSED


@pytest.mark.parametrize("file", CASES)
def test_rendering(file, capsys, monkeypatch):
    monkeypatch.chdir(run.ROOT)
    assert run.main(CASES[file]) == 0
    command = f"python launch/run.py {shlex.join(CASES[file])}"
    expected = (GOLDEN / file).read_text(encoding="utf-8")
    assert capsys.readouterr().out == expected, (
        f"{file} is not what is rendered now; for the difference: {command} | diff tests/launch/golden/{file} -"
    )


def test_nothing_else_is_kept():
    assert {path.name for path in GOLDEN.iterdir()} == set(CASES)


@pytest.mark.parametrize("case", REFUSED)
def test_a_target_refuses_what_it_cannot_run(case, capsys):
    arguments, words = REFUSED[case]
    assert run.main(arguments) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.count("\n") == 1
    assert error.startswith("launch: topology: found ") and words in error
