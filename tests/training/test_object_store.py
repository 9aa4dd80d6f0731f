"""Folders on a store: removed and moved so that half of one never counts, and told apart from a store that is away."""

from pathlib import Path

import pytest
from etils import epath

from fooddit.training.object_store import absolute, is_away, is_local, move_folder, remove_folder

pytest_plugins = ["tests.gcs"]

NAMES = ("a/1", "a/b/2", "commit", "z")


def _folder(bucket, name="run/7"):
    folder = epath.Path(f"{bucket.url}/{name}")
    for child in NAMES:
        (folder / child).write_text(child)
    return folder


def _names(folder):
    return {path.relative_to(folder).as_posix() for path in _walk(folder)} if folder.is_dir() else set()


def _walk(folder):
    for path in folder.iterdir():
        yield from _walk(path) if path.is_dir() else [path]


def _deletes(bucket):
    return [request.rsplit("/o/", 1)[1].replace("%2F", "/") for request in bucket.requests if request.startswith("DEL")]


def test_a_url_stays_one(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert absolute("gs://a/b") == epath.Path("gs://a/b") and not is_local(absolute("gs://a/b"))
    assert absolute("a") == epath.Path(tmp_path / "a") and is_local(Path("a:b"))


def test_what_makes_a_folder_count_is_removed_first(gcs):
    folder = _folder(gcs)
    remove_folder(folder, first="commit")
    assert not folder.exists() and _deletes(gcs)[0] == "run/7/commit" and len(set(_deletes(gcs))) >= len(NAMES)
    remove_folder(folder, first="commit")


def test_a_folder_moves_without_what_makes_it_count(gcs):
    folder, target = _folder(gcs), epath.Path(f"{gcs.url}/run/damaged/7")
    move_folder(folder, target, first="commit")
    assert not folder.exists() and _names(target) == {"a/1", "a/b/2", "z"} and (target / "a/b/2").read_text() == "a/b/2"
    assert _deletes(gcs)[0] == "run/7/commit"


def test_away_is_not_damaged(gcs, impatient_gcs):
    folder, missing = _folder(gcs), epath.Path(f"{gcs.url}/run/none")
    with pytest.raises(FileNotFoundError) as error:
        missing.read_text()
    assert not is_away(missing, error.value)
    with gcs.forbidden(), pytest.raises(OSError, match="Forbidden") as error:
        (folder / "z").read_text()
    assert is_away(folder, error.value)
    with impatient_gcs.outage(), pytest.raises(Exception, match="connect") as error:
        (folder / "z").read_text()
    assert is_away(folder, error.value)
    assert is_away("gs://a", ValueError("PERMISSION_DENIED: Error reading x"))
    assert not is_away("gs://a", ValueError("DATA_LOSS: Error reading x"))
    assert not is_away("gs://a", ValueError("not JSON")) and not is_away("/a", OSError("disk"))
