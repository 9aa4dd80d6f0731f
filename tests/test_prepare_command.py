"""`fooddit prepare`: options of pictures and options of caches are not mixed up."""

import pytest

from fooddit import cli


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--text"], "--text: only with --cache, which computes features of records; see --help"),
        (["--config=configs/stage1.py"], "--config=configs/stage1.py: only with --cache"),
        (["--wher", "a=b", "--unknown"], "--unknown: only with --cache"),
        (["--cache", "--size", "64", "--seed=3"], "--size, --seed: with --cache the records are there already"),
        (["--cache"], "expected --config=FILE once, with the equals sign, found it 0 times in: no flags"),
    ],
)
def test_options_that_do_not_go_together_are_named(tmp_path, capsys, arguments, message):
    out = tmp_path / "out"
    assert cli.main(["prepare", "scenes:4", str(out), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("fooddit prepare: ") and message in error and error.count("\n") == 1
    assert not out.exists()
