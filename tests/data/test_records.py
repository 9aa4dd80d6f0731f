"""Records: what is written is read, in any order, and damage is named."""

import dataclasses
import json

import numpy as np
import pytest

from fooddit.data.captions import Caption
from fooddit.data.records import RecordError, decode_record, encode_record, open_dataset
from tests.data.made import dataset, record

RECORDS = [record(i, width=32 + i, height=24) for i in range(20)]


def test_a_record_comes_back_whole():
    for found in (RECORDS[3], dataclasses.replace(RECORDS[4], attributes={"kind": "pizza", "count": 3})):
        assert decode_record(encode_record(found)) == found


def test_random_access_over_shards(tmp_path):
    dataset(tmp_path, RECORDS, RECORDS[:2], shard_bytes=8000)
    found = open_dataset(tmp_path, "train")
    assert len(list(tmp_path.glob("train-*.array_record"))) > 2
    assert len(found) == 20 and len(open_dataset(tmp_path, "holdout")) == 2
    assert found.read([19, 0, 7, 7]) == [RECORDS[19], RECORDS[0], RECORDS[7], RECORDS[7]]
    assert found[5] == RECORDS[5] and found[-1] == RECORDS[19]
    assert list(found) == RECORDS
    assert found.sizes.tolist() == [[r.width, r.height] for r in RECORDS]
    assert next(iter(found.captions())) == Caption("dish 0", "short", "en")
    with pytest.raises(IndexError, match="has 20"):
        found[20]


def test_same_records_same_bytes_and_fingerprint(tmp_path):
    assert dataset(tmp_path / "a", RECORDS) == dataset(tmp_path / "b", RECORDS)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


@pytest.mark.parametrize("change", ["order", "caption", "image", "split"])
def test_fingerprint_sees_every_change(tmp_path, change):
    train, holdout = list(RECORDS), []
    if change == "order":
        train = train[::-1]
    if change == "caption":
        train[0] = dataclasses.replace(train[0], captions=train[1].captions)
    if change == "image":
        train[0] = dataclasses.replace(train[0], image=train[1].image)
    if change == "split":
        train, holdout = train[:-1], train[-1:]
    assert dataset(tmp_path / "a", RECORDS) != dataset(tmp_path / "b", train, holdout)


def test_what_is_no_dataset_is_named(tmp_path):
    with pytest.raises(RecordError, match=r"no dataset\.json; make one: fooddit prepare"):
        open_dataset(tmp_path, "train")
    dataset(tmp_path, RECORDS)
    with pytest.raises(RecordError, match="no split 'test'"):
        open_dataset(tmp_path, "test")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda manifest: manifest | {"version": 99}, "format version 99, expected 3; use the fooddit that wrote it"),
        (
            lambda manifest: manifest | {"version": 1},
            "older fooddit .format version 1, without checksums; .* prepare the dataset again: remove",
        ),
        (
            lambda manifest: manifest | {"version": 2},
            "older fooddit .format version 2, without the groups of dishes; expected 3.; prepare the dataset again: ",
        ),
        (lambda manifest: manifest | {"version": [2]}, r"format version \[2\], expected 3"),
        (lambda manifest: manifest | {"format": "tar"}, "not the manifest of a dataset"),
        (lambda manifest: manifest | {"source": "other"}, "damaged or edited, its content is not what its checksum"),
        (lambda manifest: manifest | {"fingerprint": "0" * 64}, "damaged or edited"),
        (lambda manifest: [manifest], "not the manifest of a dataset"),
    ],
)
def test_an_edited_manifest_is_refused(tmp_path, change, message):
    dataset(tmp_path, RECORDS[:2])
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(RecordError, match=message):
        open_dataset(tmp_path, "train")
    path.write_text("{")
    with pytest.raises(RecordError, match="damaged, it is not JSON"):
        open_dataset(tmp_path, "train")


def test_an_edited_index_is_refused(tmp_path):
    dataset(tmp_path, RECORDS[:2], RECORDS[2:3])
    path = tmp_path / "train-index.npy"
    rows = np.load(path)
    rows["width"][0] += 1
    np.save(path, rows)
    with pytest.raises(RecordError, match=r"train-index\.npy: damaged or edited"):
        open_dataset(tmp_path, "train")
    assert open_dataset(tmp_path, "holdout")[0] == RECORDS[2]
    path.unlink()
    with pytest.raises(RecordError, match=r"train-index\.npy: missing"):
        open_dataset(tmp_path, "train")
