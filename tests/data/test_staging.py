"""Records at a remote address: copied here once, whole or not at all."""

import shutil
import threading

import pytest

from fooddit.data import staging
from fooddit.data.prepare import prepare
from fooddit.data.records import RecordError, open_dataset
from fooddit.data.staging import default_cache, upload
from tests.data.faults import made_dataset

pytest_plugins = ["tests.gcs"]


@pytest.fixture
def folder(tmp_path):
    return made_dataset(tmp_path / "records")


@pytest.fixture
def remote(gcs, folder):
    upload(folder, f"{gcs.url}/records")
    return f"{gcs.url}/records"


def staged(remote, tmp_path, split="train"):
    return open_dataset(remote, split, cache=str(tmp_path / "cache"))


def downloads(requests):
    """Names of the files whose content was asked for."""
    return {
        r.split("?")[0].rpartition("%2F")[2].rpartition("/")[2]
        for r in requests
        if r.startswith("GET") and "alt=media" in r
    }


def test_the_staged_copy_is_the_original(folder, remote, gcs, tmp_path, capfd):
    original = open_dataset(folder, "train")
    found = staged(remote, tmp_path)
    assert found.folder.parent == tmp_path / "cache" and found.fingerprint.startswith(found.folder.name)
    assert list(found) == list(original)
    names = {path.name for path in found.folder.iterdir()}
    assert names == {path.name for path in folder.iterdir() if not path.name.startswith("holdout")} | {".lock"}
    for name in names - {".lock"}:
        assert (found.folder / name).read_bytes() == (folder / name).read_bytes()
    assert f"of {remote} to {found.folder}" in capfd.readouterr().err
    before = len(gcs.requests)
    assert list(staged(remote, tmp_path)) == list(original)
    assert downloads(gcs.requests[before:]) <= {"dataset.json"}
    assert list(staged(remote, tmp_path, "holdout")) == list(open_dataset(folder, "holdout"))


def test_a_killed_copy_goes_on_and_what_is_damaged_is_copied_again(folder, remote, tmp_path):
    found = staged(remote, tmp_path).folder
    shards = sorted(found.glob("*.array_record"))
    halves = {path: path.read_bytes()[: path.stat().st_size // 2] for path in shards}
    for path, half in halves.items():
        path.unlink()
        path.with_name(f".{path.name}.partial").write_bytes(half)
    (found / "train-index.npy").write_bytes((found / "train-index.npy").read_bytes()[::-1])
    (found / "dataset.json").unlink()
    assert list(staged(remote, tmp_path)) == list(open_dataset(folder, "train"))
    assert not list(found.glob(".*.partial"))
    # Of the right size, but not the right bytes: found at the record.
    data = bytearray(shards[0].read_bytes())
    data[200] ^= 1
    shards[0].write_bytes(data)
    again = staged(remote, tmp_path)
    assert len(list(again)) == 59 and len(again.damage) == 1
    with pytest.raises(RecordError, match=f"Remove those files from {found}, they are then copied from {remote}"):
        again.damage.check(0)
    shards[0].unlink()
    assert len(list(staged(remote, tmp_path))) == 60


def test_two_at_once_copy_each_file_once(folder, remote, gcs, tmp_path, capfd):
    found, before = [], len(gcs.requests)
    threads = [threading.Thread(target=lambda: found.append(list(staged(remote, tmp_path)))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [list(open_dataset(folder, "train"))] * 2
    assert capfd.readouterr().err.count("copying ") == 1
    assert len(downloads(gcs.requests[before:])) == 2 + len(list(folder.glob("train-*.array_record")))


def test_what_is_missing_at_the_address_is_counted(folder, gcs, tmp_path, capfd):
    (folder / "train-00001.array_record").unlink()
    cut = folder / "train-00002.array_record"
    cut.write_bytes(cut.read_bytes()[:-9])
    upload(folder, f"{gcs.url}/records")
    found = staged(f"{gcs.url}/records", tmp_path)
    assert len(list(found)) + len(found.damage) == 60 and len(found.damage) > 1
    errors = capfd.readouterr().err
    assert "train-00001.array_record is missing" in errors and "train-00002.array_record has " in errors


def test_a_full_disk_says_so(remote, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(OSError, match=r"the disk is full .*config\.data\.cache"):
        staged(remote, tmp_path)
    monkeypatch.undo()
    assert len(staged(remote, tmp_path)) == 60


def test_what_cannot_be_reached_is_named(impatient_gcs, folder, tmp_path):
    address = f"{impatient_gcs.url}/records"
    with pytest.raises(RecordError, match=f"{address}: not a dataset, it has no dataset.json"):
        staged(address, tmp_path)
    upload(folder, address)
    with pytest.raises(FileExistsError, match="a dataset exists there already"):
        upload(folder, address)
    with impatient_gcs.forbidden(("GET",)), pytest.raises(RecordError, match=f"{address}.*: the store cannot be used"):
        staged(address, tmp_path)
    with impatient_gcs.forbidden(("POST", "PUT")), pytest.raises(RecordError, match="the store cannot be used"):
        upload(folder, f"{impatient_gcs.url}/other")
    with pytest.raises(RecordError, match="no dataset.json"):
        staged(f"{impatient_gcs.url}/other", tmp_path)
    with pytest.raises(RecordError, match="ftp://host/records: no store of that kind"):
        staged("ftp://host/records", tmp_path)


def test_prepare_writes_to_an_address(gcs, tmp_path, monkeypatch):
    address = f"{gcs.url}/scenes"
    summary = prepare("scenes:3", address, size=32, progress=False)
    assert f"look at {address}/contact_sheet.png" in str(summary)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    found = open_dataset(address, "train")
    assert len(list(found)) == 3 and found.fingerprint == summary.fingerprint
    assert found.folder.parent == default_cache() == tmp_path / "home/fooddit/records"
    with pytest.raises(FileExistsError, match="a dataset exists there already"):
        prepare("scenes:3", address, size=32, progress=False)


def test_only_addresses_are_remote():
    assert staging.is_remote("gs://bucket/records") and not staging.is_remote("/data/records")
