"""Damaged and missing records: never read wrong, named once, counted, replaced by the same ones everywhere."""

import dataclasses
import os

import numpy as np
import pytest

from fooddit.data.images import encode_png
from fooddit.data.pipeline import Batches, DataConfig, TextInput
from fooddit.data.records import RecordError, open_dataset
from fooddit.data.shards import Shards
from tests.data.faults import REGIONS, faults_found, made_dataset
from tests.data.made import dataset, picture, record

LENGTH = 4
BAD = (7, 8, 30, 59)


def tokenize(text):
    return np.full(LENGTH, len(text), np.int32), np.ones(LENGTH, bool)


def config(folder, **options):
    options = {"image_size": 32, "max_aspect": 2.0} | options
    return DataConfig(str(folder), 8, **options)


def draw(folder, count, *, options=None, **arguments):
    """Batches of a dataset that is opened anew, and how many damaged records were met."""
    arguments = {"seed": 0} | arguments
    arguments |= {"tokenizers": {"text": TextInput(tokenize, LENGTH)}}
    batches = Batches(open_dataset(folder, "train"), config(folder, **(options or {})), **arguments)
    try:
        return [next(batches) for _ in range(count)], batches.damaged
    finally:
        batches.close()


def assert_same(found, expected):
    for a, b in zip(found, expected, strict=True):
        for name in b:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.fixture
def whole(tmp_path):
    return made_dataset(tmp_path / "records")


@pytest.fixture
def damaged(whole):
    """One bit of each record in BAD is another one."""
    records = open_dataset(whole, "train").read(BAD)
    for path in whole.glob("train-*.array_record"):
        data = bytearray(path.read_bytes())
        for found in records:
            if (at := data.find(found.image[-40:])) >= 0:
                data[at] ^= 4
        path.write_bytes(data)
    return whole


def test_a_wrong_record_is_never_read(whole, capfd):
    flips = faults_found(whole, 3 * len(REGIONS), 1, "flip")
    outcomes = {region: {outcome for place, outcome in flips if place == region} for region in REGIONS}
    assert outcomes["record"] == outcomes["between records"] == {"one record"}
    assert outcomes["index"] == outcomes["manifest"] == {"refused"}
    assert outcomes["file header"] == outcomes["padding"] == {"no effect"}
    assert outcomes["footer"] <= {"a shard", "no effect"}
    cuts = faults_found(whole, 20, 2, "truncate")
    assert {outcome for _, outcome in cuts} == {"a shard", "refused"}
    assert "its footer is damaged" in capfd.readouterr().err


def test_every_reader_leaves_damaged_records_out(damaged, capfd):
    found = open_dataset(damaged, "train")
    records = list(found)
    assert [r.id for r in records] == [f"r{i}" for i in range(60) if i not in BAD]
    assert len(list(found.captions())) == 3 * 56
    assert found.read_whole([8, 9]) == [None, records[7]]
    assert len(found.damage) == 4 and 8 in found.damage and 9 not in found.damage
    with pytest.raises(RecordError, match=r"train-00000\.array_record record 8: .*hash mismatch"):
        found.read([9, 8])
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("damaged:")]
    assert len(lines) == len(set(lines)) == 4


def test_a_failing_request_is_asked_again_once(damaged, monkeypatch):
    found, asked = open_dataset(damaged, "train"), []
    read = Shards._read
    monkeypatch.setattr(Shards, "_read", lambda *a: (asked.append(len(a[2])), read(*a))[1])
    first = found.read_whole(range(12))
    assert asked == [12] + [1] * 12
    asked.clear()
    assert found.read_whole(range(12)) == first and asked == [10]


def test_replacements_are_the_same_everywhere(damaged):
    expected, count = draw(damaged, 24)
    assert count == 4
    assert not {*np.concatenate([batch["record"] for batch in expected])} & {*BAD}
    assert_same(draw(damaged, 24, options={"threads": 5, "prefetch": 1})[0], expected)
    for shards in (2, 4):
        parts = [draw(damaged, 24, rows=rows)[0] for rows in np.split(np.arange(8), shards)]
        joined = [{name: np.concatenate([p[b][name] for p in parts]) for name in expected[0]} for b in range(24)]
        assert_same(joined, expected)
    for start in (1, 13):
        assert_same(draw(damaged, 24 - start, start=start)[0], expected[start:])


def test_only_damaged_records_are_replaced(damaged, tmp_path):
    found, _ = draw(damaged, 24)
    undamaged, none = draw(made_dataset(tmp_path / "whole"), 24)
    assert none == 0
    for a, b in zip(found, undamaged, strict=True):
        bad = np.isin(b["record"], BAD)
        assert_same([{name: a[name][~bad] for name in a}], [{name: b[name][~bad] for name in b}])
        assert a["image"].shape == b["image"].shape and (a["record"] != b["record"])[bad].all()


def test_a_picture_that_cannot_be_decoded_is_named_and_replaced(tmp_path, capfd):
    bad = dataclasses.replace(record(3), image=encode_png(picture(3, 32, 32))[:60])
    dataset(tmp_path, [record(0), bad, record(2)])
    batches, count = draw(tmp_path, 6)
    assert count == 1 and {*np.concatenate([batch["record"] for batch in batches])} == {0, 2}
    assert capfd.readouterr().err.count("array_record record 1 (r3): its picture cannot be decoded") == 1
    dataset(tmp_path, [bad])
    with pytest.raises(RecordError, match="every record of shape 32 x 32 is damaged or missing"):
        draw(tmp_path, 1)


def test_more_than_the_limit_is_an_error(damaged):
    with pytest.raises(
        RecordError, match=r"more than config\.data\.max_damaged=2:\n(  train-0.*\n){3}Copy those files again"
    ):
        draw(damaged, 24, options={"max_damaged": 2})
    assert draw(damaged, 24, options={"max_damaged": 4})[1] == 4


def test_a_missing_shard_counts_all_its_records(whole, capfd):
    shards = open_dataset(whole, "train")._shards
    (whole / shards[1]["name"]).unlink()
    lost = range(shards[0]["records"], shards[0]["records"] + shards[1]["records"])
    message = rf"{len(lost)} records are .*max_damaged=1:\n  train-00001\.array_record, {len(lost)} records: missing"
    with pytest.raises(RecordError, match=message):
        draw(whole, 0, options={"max_damaged": 1})
    batches, count = draw(whole, 30, options={"max_damaged": 60})
    drawn = np.concatenate([batch["record"] for batch in batches])
    assert count == len(lost) and not np.isin(drawn, lost).any()
    # The pictures of a lost shard are made up for by many others, not by one.
    assert np.bincount(drawn).max() < 16
    assert capfd.readouterr().err.count("train-00001") == 2


def test_shards_of_the_same_size_in_each_others_place_are_noticed(whole):
    first, second, *_ = sorted(whole.glob("train-*.array_record"))
    assert first.stat().st_size == second.stat().st_size
    other = whole / "other"
    first.rename(other), second.rename(first), other.rename(second)
    found = open_dataset(whole, "train")
    assert len(list(found)) + len(found.damage) == 60 and len(found.damage) == sum(
        shard["records"] for shard in found._shards[:2]
    )


def test_a_file_that_shrinks_while_it_is_open_gives_no_empty_record(whole):
    found = open_dataset(whole, "train")
    os.truncate(whole / found._shards[0]["name"], 70)
    assert found.read_whole([0, 1]) == [None, None] and "checksum" in str(found.damage.get(0))
