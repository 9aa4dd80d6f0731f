"""What a run makes of its data at the start."""

import pytest

from fooddit.config import ConfigError
from fooddit.tasks import run_data


def test_a_run_without_a_tokenizer_is_nothing_to_start_from(monkeypatch):
    monkeypatch.setattr(run_data, "source_metadata", lambda _: {"task": {}})
    with pytest.raises(ConfigError, match="config.init_from: runs/reader is a run without a tokenizer"):
        run_data.run_tokenizer([], 300, None, "runs/reader")


def test_folders_and_addresses_are_taken_as_they_are(tmp_path):
    assert run_data.records_folder("gs://bucket/records", 64, tmp_path) == "gs://bucket/records"


@pytest.mark.parametrize("source", ["scenes:8", "styles:8"])
def test_what_is_rendered_is_rendered_once(source, tmp_path):
    folder = run_data.records_folder(source, 32, tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.joinpath(folder).iterdir()}
    assert run_data.records_folder(source, 32, tmp_path) == folder
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.joinpath(folder).iterdir()} == before
