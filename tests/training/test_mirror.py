"""The mirror: what is on the store is what is in the local folder, and no failure of the store reaches the run."""

import json
import time

import pytest
from etils import epath

from fooddit.training.mirror import SCHEMES, Mirror, check_url, is_url, local_copy, local_workdir

pytest_plugins = ["tests.gcs"]


@pytest.fixture
def local(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "local"


def _write(folder, **files):
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _objects(bucket):
    """Names and texts on the store, seen with fresh eyes."""
    import fsspec

    store = fsspec.filesystem("gcs")
    store.invalidate_cache()
    return {path.split("/", 2)[2]: store.cat_file(path).decode() for path in store.find(f"{bucket.url}/run")}


def _mirror(bucket, local):
    return Mirror(epath.Path(f"{bucket.url}/run"), local)


def _wait_until(condition, seconds=20):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


def test_a_run_is_uploaded_and_comes_back_on_another_machine(gcs, local, tmp_path):
    _write(local, metrics_dot_jsonl="{}\n", samples__一步="饺子", _dot_lock="1", report="r", checkpoints__1="no")
    _write(local, **{"report.html.tmp": "half", "records-x/a": "no", "deep/records-x/b": "yes"})
    mirror = _mirror(gcs, local)
    mirror.fetch()
    mirror.start(interval=60)
    assert mirror.close() == []
    files = {"metrics.jsonl": "{}\n", "samples/一步": "饺子", "report": "r", "deep/records-x/b": "yes"}
    assert _objects(gcs) == files

    there = tmp_path / "other machine"
    # What a store may hold beside them: checkpoints, a folder's placeholder.
    for name in ("checkpoints/1/state/d/0", "samples/"):
        mirror._store.pipe_file(f"{mirror._root}/{name}", b"")
    assert sorted(_mirror(gcs, there).fetch()) == sorted(files)
    assert {p.relative_to(there).as_posix() for p in there.rglob("*") if p.is_file()} == {*files, ".mirror.json"}
    assert (there / "samples/一步").read_text(encoding="utf-8") == "饺子"
    assert _mirror(gcs, there).fetch() == []


def test_a_changed_file_is_uploaded_again_and_no_other(gcs, local):
    _write(local, a="1", b="1")
    mirror = _mirror(gcs, local)
    mirror.fetch()
    mirror.start(interval=0.05)
    _wait_until(lambda: _objects(gcs) == {"a": "1", "b": "1"})
    seen = len(gcs.requests)
    with (local / "a").open("a") as file:
        file.write("2")
    _wait_until(lambda: _objects(gcs) == {"a": "12", "b": "1"})
    assert mirror.close() == []
    uploads = [request for request in gcs.requests[seen:] if request.startswith("POST")]
    assert len(uploads) == 1


def test_a_name_that_leads_out_of_the_folder_is_not_followed(gcs, local, monkeypatch):
    mirror = _mirror(gcs, local)
    info = {"size": 1, "generation": "1"}
    folders = [(mirror._root, {"..": info}, {"..": info})]
    monkeypatch.setattr(mirror._store, "walk", lambda *args, **kwargs: iter(folders))
    assert mirror._list_remote() == {} and folders[0][1] == {}


def test_which_side_is_newer(gcs, local, tmp_path):
    here, there = _mirror(gcs, local), _mirror(gcs, tmp_path / "there")
    _write(local, ahead="1", behind="1", both="1", deleted="1", local_only="1")
    here.upload()
    there.fetch()
    _write(local, ahead="2", both="2")
    _write(there.local, behind="3", both="3")
    there.upload()
    here._store.rm_file(f"{here._root}/deleted")
    _write(local, never_uploaded="1")

    again = _mirror(gcs, local)  # A restart on the first machine.
    assert sorted(again.fetch()) == ["behind", "both"]
    found = {path.name: path.read_text() for path in local.iterdir() if not path.name.startswith(".")}
    assert found == {"ahead": "2", "behind": "3", "both": "3", "local_only": "1", "never_uploaded": "1"}
    again.upload()
    assert _objects(gcs) == found


def test_an_outage_is_told_once_and_made_up_for(impatient_gcs, local, capfd):
    _write(local, **{f"file{i}": "1" for i in range(10)})
    mirror = _mirror(impatient_gcs, local)
    mirror.fetch()
    with impatient_gcs.outage():
        mirror.start(interval=0.05)
        _wait_until(lambda: mirror._troubled)
        time.sleep(0.5)
        assert mirror._thread.is_alive()
    _wait_until(lambda: len(_objects(impatient_gcs)) == 10)
    assert mirror.close() == []
    warnings = [line for line in capfd.readouterr().err.splitlines() if line.startswith("WARNING")]
    assert len(warnings) == 2
    assert f"{impatient_gcs.url}/run/file0 cannot be uploaded" in warnings[0] and "again" in warnings[1]


def test_what_was_not_uploaded_is_named_at_the_end(impatient_gcs, local, capfd):
    with local_workdir(f"{impatient_gcs.url}/run", interval=60) as (workdir, checkpoints):
        assert checkpoints == epath.Path(f"{impatient_gcs.url}/run/checkpoints")
        assert workdir == local_copy(epath.Path(f"{impatient_gcs.url}/run"))
        outage = impatient_gcs.outage()
        outage.__enter__()
        _write(workdir, lost="1")
    outage.__exit__(None, None, None)
    said = capfd.readouterr().err
    assert f"not uploaded to {impatient_gcs.url}/run: lost; they are in {workdir}" in said
    # They are not lost: the next start takes them along.
    with local_workdir(f"{impatient_gcs.url}/run") as (workdir, _):
        pass
    assert _objects(impatient_gcs) == {"lost": "1"}


def test_one_refused_file_holds_up_no_other(gcs, local, monkeypatch):
    mirror = _mirror(gcs, local)
    _write(local, a="1", b="1", c="1", d="1", e="1")
    write = mirror._store.pipe_file

    def refuse_b(path, data):
        if path.endswith("/b"):
            raise OSError("Forbidden")
        return write(path, data)

    monkeypatch.setattr(mirror._store, "pipe_file", refuse_b)
    mirror.upload()
    assert sorted(_objects(gcs)) == ["a", "c", "d", "e"] and mirror._changed() == ["b"]


def test_close_does_not_wait_for_ever(gcs, local, monkeypatch):
    mirror = _mirror(gcs, local)
    _write(local, a="1")
    monkeypatch.setattr(mirror, "_upload", lambda name: time.sleep(3))
    mirror.start()
    began = time.monotonic()
    assert mirror.close(timeout=0.1) == ["a"] and time.monotonic() - began < 2


def test_a_store_that_cannot_be_used_is_said_before_training(gcs, local):
    with gcs.forbidden("POST"), pytest.raises(OSError, match=f"{gcs.url}/run cannot be written.*Forbidden"):
        with local_workdir(f"{gcs.url}/run"):
            pass
    with gcs.forbidden(), pytest.raises(OSError, match=f"{gcs.url}/run cannot be read.*Forbidden"):
        with local_workdir(f"{gcs.url}/run"):
            pass
    with pytest.raises(OSError, match="gs://no-such-bucket/run cannot be written"):
        with local_workdir("gs://no-such-bucket/run"):
            pass
    with local_workdir(f"{gcs.url}/run"):
        pass
    assert _objects(gcs) == {}


def test_a_state_that_was_cut_off_only_costs_a_download(gcs, local):
    mirror = _mirror(gcs, local)
    _write(local, a="1")
    mirror.upload()
    state = (local / ".mirror.json").read_text()
    for text in (state[:10], "[]", "{}", json.dumps({mirror.remote.as_posix(): {"a": 1}})):
        (local / ".mirror.json").write_text(text)
        assert _mirror(gcs, local).fetch() == ["a"]


@pytest.mark.parametrize(
    "workdir", ["ftp://a/b", "gcs://a/b", "s3://a/b", "gs:/a/b", "gs://a", "gs://a/", "gs:///a", "file:///a/b"]
)
def test_unknown_urls(workdir):
    assert is_url(workdir)
    expected = f"found '{workdir}', expected a local folder or gs://BUCKET/FOLDER; other stores"
    with pytest.raises(ValueError, match=expected), local_workdir(workdir):
        pass


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs the package gcsfs: pip install gcsfs"):
        check_url("gs://bucket/run")


def test_a_local_workdir_is_itself(tmp_path):
    for workdir in (str(tmp_path), "runs/a:b", "C:/runs", "runs/gs/a"):
        assert not is_url(workdir)
    with local_workdir(str(tmp_path / "run")) as (workdir, checkpoints):
        assert workdir == tmp_path / "run" and checkpoints == epath.Path(tmp_path / "run" / "checkpoints")
    assert list(tmp_path.iterdir()) == []


def test_local_copies_differ_by_address(monkeypatch):
    monkeypatch.setitem(SCHEMES, "gs", "json")  # Whether gcsfs is installed or not.
    copies = {local_copy(check_url(url)) for url in ("gs://a/run", "gs://b/run", "gs://a/x/run")}
    assert len(copies) == 3 and all(copy.name.startswith("run-") for copy in copies)
    assert local_copy(check_url("gs://a//run/")) == local_copy(check_url("gs://a/run"))
