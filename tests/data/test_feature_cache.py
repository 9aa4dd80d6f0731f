"""Batches with a cache: features in place of what they were made of, for the same examples in the same order."""

import dataclasses
import shutil

import numpy as np
import pytest

from fooddit.caching.build import build_cache
from fooddit.data.examples import example_draws
from fooddit.data.images import decode_image, fit_image
from fooddit.data.pipeline import Batches
from fooddit.data.records import RecordError, open_dataset
from tests.caching import fakes
from tests.data.faults import made_dataset


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return made_dataset(tmp_path_factory.mktemp("records") / "made")


@pytest.fixture(scope="module")
def cache(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("cache") / "out"
    build_cache(str(folder), out, fakes.config(folder), fakes.encoders(), progress=False)
    return out


@pytest.fixture
def copy(cache, tmp_path):
    return shutil.copytree(cache, tmp_path / "copy")


def batches(folder, cache, **options):
    """Batches of the records with a cache's features, the config's `options` among others."""
    changes = {name: options.pop(name) for name in ("batch_size", "flip", "image_size", "threads") if name in options}
    config = dataclasses.replace(fakes.config(folder), features=str(cache or ""), **changes)
    arguments = {"seed": 3, "tokenizers": fakes.texts(), "encoders": fakes.descriptions()} | options
    return Batches(open_dataset(folder, "train"), config, **arguments)


def draw(folder, cache, count, **options):
    found = batches(folder, cache, **options)
    try:
        return [next(found) for _ in range(count)]
    finally:
        found.close()


def assert_same(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert a.keys() == b.keys()
        for name in b:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_features_take_the_place_of_what_they_were_made_of(folder, cache):
    data = open_dataset(folder, "train")
    online = draw(folder, None, 20)
    for number, (batch, plain) in enumerate(zip(draw(folder, cache, 20), online, strict=True)):
        kept = {"index", "record", "caption", "t5_mask", "eclip_mask"}
        assert batch.keys() == kept | {"moments", "t5_features", "eclip_features", "eclip_pooled"}
        for name in kept:
            np.testing.assert_array_equal(batch[name], plain[name], err_msg=name)
        mirrored = example_draws(3, 8 * number, 8)[:, 3] < 0.5
        _, height, width, _ = plain["image"].shape
        for row, record in enumerate(data.read(batch["record"])):
            image = fit_image(decode_image(record.image, min_height=height, min_width=width), height, width)
            image = image[:, ::-1] if mirrored[row] else image
            expected = fakes.moments_of(image[None])[0].astype(np.float16)
            np.testing.assert_array_equal(batch["moments"][row], expected)
        for name in ("t5", "eclip"):
            features, mask = batch[f"{name}_features"], batch[f"{name}_mask"]
            expected = fakes.features_of(plain[name], plain[f"{name}_mask"])
            assert features.dtype == expected.dtype
            np.testing.assert_array_equal(features[mask], expected[mask])
            assert not features[~mask].any()
        np.testing.assert_array_equal(batch["eclip_pooled"], fakes.pooled_of(plain["eclip"], plain["eclip_mask"]))


def test_the_same_ones_on_any_host_and_after_any_resume(folder, cache):
    whole = draw(folder, cache, 16)
    assert_same(draw(folder, cache, 16, threads=5), whole)
    for rows in ([0], [3, 7], [2, 4, 5, 6]):
        expected = [{name: array[rows] for name, array in batch.items()} for batch in whole]
        assert_same(draw(folder, cache, 16, rows=np.array(rows)), expected)
    assert_same(draw(folder, cache, 9, start=7), whole[7:])


def test_a_part_of_a_cache_will_do(folder, cache, copy):
    shutil.rmtree(copy / "moments")
    [batch], [plain] = draw(folder, copy, 1), draw(folder, None, 1)
    np.testing.assert_array_equal(batch["image"], plain["image"])
    assert "t5_features" in batch and "t5" not in batch
    # A tower that the run does not have is left where it is; one that the cache does not have reads ids.
    [batch] = draw(folder, cache, 1, tokenizers=fakes.texts(["t5", "other"]))
    assert {"moments", "t5_features", "other"} <= batch.keys() and "eclip_features" not in batch


def test_without_mirroring_the_plain_ones_are_read(folder, tmp_path):
    config = fakes.config(folder, flip=False)
    build_cache(str(folder), tmp_path / "c", config, fakes.encoders(towers={}), progress=False)
    online, cached = (draw(folder, source, 4, flip=False) for source in (None, tmp_path / "c"))
    squares = [(a, b) for a, b in zip(online, cached, strict=True) if a["image"].shape[1:3] == (32, 32)]
    assert squares
    for plain, batch in squares:
        # Records of this very shape are cut nowhere, so that the crop cannot differ.
        same = [row for row, n in enumerate(plain["record"]) if n % 5 == 0]
        expected = fakes.moments_of(plain["image"])[same].astype(np.float16)
        np.testing.assert_array_equal(batch["moments"][same], expected)


def test_damaged_features_are_left_out_like_a_damaged_record(folder, cache, copy, capfd):
    whole = draw(folder, cache, 24)
    path = copy / "moments/train-00000.array_record"
    data, at = bytearray(path.read_bytes()), 0
    moments = [batch["moments"][row] for batch in whole for row in np.nonzero(batch["record"] == 4)[0]]
    for array in moments:
        if (at := data.find(array.tobytes())) >= 0:
            data[at] ^= 4
    path.write_bytes(data)
    batch_list = draw(folder, copy, 24)
    assert not any((batch["record"] == 4).any() for batch in batch_list)
    for a, b in zip(batch_list, whole, strict=True):
        good = b["record"] != 4
        assert_same([{name: a[name][good] for name in a}], [{name: b[name][good] for name in b}])
    assert_same(draw(folder, copy, 12, start=12), batch_list[12:])
    assert "record 4 (r4): of moments in " in capfd.readouterr().err


def test_a_record_that_was_damaged_has_no_features_and_is_left_out(tmp_path, capfd):
    folder = made_dataset(tmp_path / "records")
    path, found = folder / "train-00000.array_record", open_dataset(folder, "train")[7]
    data = path.read_bytes()
    path.write_bytes(data.replace(found.image[-40:], b"\0" * 40))
    summary = build_cache(str(folder), tmp_path / "c", fakes.config(folder), fakes.encoders(), progress=False)
    assert "1 records of train are damaged: they have no features" in str(summary)
    path.write_bytes(data)
    drawn = np.concatenate([batch["record"] for batch in draw(folder, tmp_path / "c", 24)])
    assert 7 not in drawn and {*drawn} == {*range(60)} - {7}
    assert "record 7 (r7): it could not be read when the features were made" in capfd.readouterr().err


def test_a_stale_cache_is_refused_by_what_differs(folder, cache):
    advice = r"\nMake them anew in another folder, or remove .*; or empty config\.data\.features"
    with pytest.raises(RecordError, match=rf"moments: stale.*\n  image_size: was 32, is 40{advice}"):
        batches(folder, cache, image_size=40)
    for name, about in (("space", {"sha256": "a9"}), ("t5", {"fingerprint": "b9"}), ("eclip", {"fingerprint": "c9"})):
        described = fakes.descriptions() | {name: about}
        with pytest.raises(
            RecordError, match=rf"stale(.*\n)*  encoder\.(sha256|fingerprint): was '..', is '.9'{advice}"
        ):
            batches(folder, cache, encoders=described)
    moved = fakes.descriptions() | {"t5": fakes.TOWERS["t5"] | {"source": "elsewhere"}}
    batches(folder, cache, encoders=moved).close()


def test_buckets_that_are_merged_otherwise_are_noticed(folder, cache):
    with pytest.raises(
        RecordError, match=r"moments: \d+ of 60 records are in other buckets, since config\.data\.batch"
    ):
        batches(folder, cache, batch_size=32)


def test_what_is_no_cache_or_of_no_use_is_said(folder, cache, copy, tmp_path):
    with pytest.raises(
        RecordError, match=r"config\.data\.features: .* is no cache of features; make one: fooddit prep"
    ):
        batches(folder, tmp_path / "none")
    with pytest.raises(RecordError, match=r"has eclip, eclip_pooled, moments, t5, of which this run uses none \(umt5"):
        batches(folder, cache, tokenizers=fakes.texts(["umt5"]), encoders={"umt5": {"fingerprint": "d"}})
    (copy / "eclip_pooled/stream.json").unlink()
    with pytest.raises(RecordError, match="eclip_pooled: unfinished; run the same fooddit prepare --cache again"):
        batches(folder, copy)


def test_a_run_goes_on_with_the_same_features_only(folder, cache, copy):
    def fingerprint(source):
        found = batches(folder, source)
        found.close()
        return found.fingerprint["features"]

    shutil.rmtree(copy / "moments")
    assert fingerprint(cache) and fingerprint(None) is None
    assert fingerprint(cache) not in (fingerprint(copy), fingerprint(None))
