"""`fooddit standard`: all texts of a language, or one line for what is wrong."""

import pytest

from fooddit.cli import main
from fooddit.standards import load_standard


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_text_is_printed(language, capsys):
    assert main(["standard", "generated", "--language", language]) == 0
    said = capsys.readouterr().out
    for sub in load_standard("generated").subs.values():
        assert f"{sub.name[language]} [{sub.id}]  {sub.asks[language]}" in said
        assert all(text[language] in said for text in sub.levels.values())
    assert "generated, version 1" in said


def test_a_file_that_is_none_is_one_line(tmp_path, capsys):
    path = tmp_path / "own.yaml"
    path.write_text("id: own\nversion: 1\nname: {en: Own}\n")
    assert main(["standard", str(path)]) == 2
    assert capsys.readouterr().err == f"fooddit standard: {path}: name.zh: missing\n"
