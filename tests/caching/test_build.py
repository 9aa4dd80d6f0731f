"""Caches: what they hold is what the encoders make; whole shards only, whatever happens; stale ones are refused."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fooddit.caching.build import build_cache
from fooddit.data.feature_cache import FeatureStream, moments_key
from fooddit.data.images import decode_image, fit_image
from fooddit.data.manifest import RecordError
from fooddit.data.records import open_dataset
from tests.caching import fakes
from tests.data.faults import made_dataset
from tests.data.made import dataset, record

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return made_dataset(tmp_path_factory.mktemp("records") / "made")


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("cache") / "out"
    return out, build_cache(str(folder), out, fakes.config(folder), fakes.encoders(), progress=False)


def test_moments_are_of_the_middle_and_mirrored(folder, whole):
    for split in ("train", "holdout"):
        data, stream = open_dataset(folder, split), FeatureStream(whole[0] / "moments", split)
        assert len(stream) == len(data)
        for number, found in enumerate(data):
            h, w = np.array(stream.shapes[number]) * fakes.FACTOR
            assert h * w <= 32 * 32 and (h < w) == (found.height < found.width)
            image = fit_image(decode_image(found.image, min_height=h, min_width=w), h, w)
            plain, mirrored = stream.read([number, number], [0, 1])
            expected = fakes.moments_of(image[None])[0]
            assert plain.dtype == np.float16
            np.testing.assert_array_equal(plain, expected.astype(np.float16))
            np.testing.assert_array_equal(mirrored, fakes.moments_of(image[None, :, ::-1])[0].astype(np.float16))


def test_captions_have_features_of_their_tokens_alone(folder, whole):
    data = open_dataset(folder, "train")
    streams = {name: FeatureStream(whole[0] / name, "train") for name in ("t5", "eclip", "eclip_pooled")}
    for number, found in enumerate(data):
        for item, caption in enumerate(found.captions):
            ids, mask = fakes.tokenize(caption.text)
            expected = fakes.features_of(ids[None], mask[None])[0][mask]
            for name in ("t5", "eclip"):
                [array] = streams[name].read([number], [item])
                assert array.dtype == expected.dtype and array.shape == (mask.sum(), 1, fakes.WIDTH)
                np.testing.assert_array_equal(array[:, 0], expected)
            [vector] = streams["eclip_pooled"].read([number], [item])
            np.testing.assert_array_equal(vector[0, 0], fakes.pooled_of(ids[None], mask[None])[0])


def test_a_text_is_encoded_once_a_shard(tmp_path):
    dataset(tmp_path / "r", [record(i) for i in (1, 1, 1, 2)])
    batches = []
    encoders = fakes.encoders(space=None, towers={"t5": fakes.TOWERS["t5"]}, before=batches.append)
    summary = build_cache(str(tmp_path / "r"), tmp_path / "c", fakes.config(tmp_path / "r"), encoders, progress=False)
    assert summary.streams["t5"].arrays == 6 and len(batches) == 1


def test_the_summary_says_what_is_there(folder, whole):
    out, summary = whole
    assert {name: found.records for name, found in summary.streams.items()} == dict.fromkeys(
        ("moments", "t5", "eclip", "eclip_pooled"), 72
    )
    assert summary.streams["moments"].arrays == 144 and summary.streams["t5"].arrays == 3 * 72
    assert summary.sums.pictures == 60
    again = build_cache(str(folder), out, fakes.config(folder), fakes.encoders(before=lambda what: 1 / 0))
    assert "was there already" in str(again) and again.streams["t5"].records == 0
    np.testing.assert_array_equal(again.sums.first, summary.sums.first)


def test_a_stream_is_added_to_others(folder, whole, tmp_path):
    out, options = tmp_path / "c", {"progress": False}
    build_cache(str(folder), out, fakes.config(folder), fakes.encoders(towers={}), **options)
    asked = set()
    build_cache(str(folder), out, fakes.config(folder), fakes.encoders(before=asked.add), **options)
    assert asked == {"t5", "eclip"} and fakes.checksums(out) == fakes.checksums(whole[0])


def test_a_killed_run_goes_on_with_what_is_missing(folder, whole, tmp_path):
    out, mark = tmp_path / "c", tmp_path / "mark"
    child = subprocess.Popen([sys.executable, "-m", "tests.caching.fakes", folder, out, mark], cwd=ROOT)
    while not mark.exists():
        assert child.poll() is None
        time.sleep(0.05)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    named = {name for name in fakes.checksums(out) if not name.startswith("moments/.")}
    assert {"moments/train-00000.array_record", "moments/train-00001.npz", "moments/key.json"} <= named
    assert not any("00002" in name for name in named)
    assert "moments/.train-00002.array_record.partial" in fakes.checksums(out)
    with pytest.raises(RecordError, match="moments: unfinished; run the same fooddit prepare --cache again"):
        FeatureStream(out / "moments", "train")
    before = (out / "moments/train-00000.array_record").stat().st_mtime_ns
    build_cache(str(folder), out, fakes.config(folder), fakes.encoders(), progress=False)
    assert (out / "moments/train-00000.array_record").stat().st_mtime_ns == before
    assert fakes.checksums(out) == fakes.checksums(whole[0])


def test_an_error_leaves_no_part_of_a_shard(folder, tmp_path):
    def fail(what):
        if list((tmp_path / "c").rglob("train-00001.npz")):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_cache(str(folder), tmp_path / "c", fakes.config(folder), fakes.encoders(before=fail), progress=False)
    assert not [name for name in fakes.checksums(tmp_path / "c") if "partial" in name or "00002" in name]


def test_statistics_that_come_on_top_make_no_cache_stale(folder):
    later = fakes.SPACE | {"statistics": {"mean": [0.0]}}
    assert moments_key("f1", fakes.config(folder), later) == moments_key("f1", fakes.config(folder), fakes.SPACE)


@pytest.mark.parametrize(
    ("change", "options", "lines"),
    [
        ({}, {"image_size": 40}, ["image_size: was 32, is 40"]),
        ({}, {"flip": False, "max_aspect": 1.0}, ["max_aspect: was 2.0, is 1.0", "flip: was True, is False"]),
        ({"space": {"sha256": "a2"}}, {}, ["encoder.sha256: was 'a1', is 'a2'"]),
        ({"towers": {"t5": {"model": "bytes", "fingerprint": "b3"}}}, {}, ["encoder.fingerprint: was 'b2', is 'b3'"]),
    ],
)
def test_a_stale_cache_is_not_gone_on_with(folder, whole, change, options, lines):
    encoders = fakes.encoders(**({"before": lambda what: 1 / 0} | change))
    message = "stale, these features were made of something else:\n  " + "\n  ".join(lines) + "\nRemove .* and run this"
    with pytest.raises(RecordError, match=message):
        build_cache(str(folder), whole[0], fakes.config(folder, **options), encoders, progress=False)


def test_weights_that_moved_are_the_same_weights(folder, whole):
    towers = {"t5": fakes.TOWERS["t5"] | {"source": "elsewhere"}}
    encoders = fakes.encoders(fakes.SPACE | {"autoencoder": "elsewhere"}, towers, before=lambda what: 1 / 0)
    build_cache(str(folder), whole[0], fakes.config(folder), encoders, progress=False)


def test_other_records_and_other_folders_are_refused(folder, whole, tmp_path):
    dataset(tmp_path / "r", [record(0)])
    with pytest.raises(RecordError, match="  dataset: was '"):
        build_cache(str(tmp_path / "r"), whole[0], fakes.config(folder), fakes.encoders(), progress=False)
    with pytest.raises(FileExistsError, match=r"holds .*, which is no part of a cache; choose another OUT"):
        build_cache(str(folder), folder, fakes.config(folder), fakes.encoders(), progress=False)
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError, match="no folder"):
        build_cache(str(folder), tmp_path / "file", fakes.config(folder), fakes.encoders(), progress=False)


def test_features_that_are_no_numbers_are_refused(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(fakes, "moments_of", lambda images: np.full((len(images), 4, 4, 6), 1e6))
    with pytest.raises(ValueError, match=r"record r0: its moments do not fit float16 \(largest 1000000\.0\)"):
        build_cache(str(folder), tmp_path / "c", fakes.config(folder), fakes.encoders(), progress=False)
    monkeypatch.setattr(fakes, "features_of", lambda ids, mask: np.full((*ids.shape, 6), np.nan, np.float32))
    with pytest.raises(ValueError, match="caption 'dish 0': features that are no finite numbers"):
        build_cache(str(folder), tmp_path / "d", fakes.config(folder), fakes.encoders(space=None), progress=False)


def test_an_edited_manifest_or_index_is_refused(folder, tmp_path):
    out = tmp_path / "c"
    build_cache(str(folder), out, fakes.config(folder), fakes.encoders(towers={}), progress=False)
    manifest = json.loads((out / "moments/stream.json").read_text())
    (out / "moments/stream.json").write_text(json.dumps(manifest | {"width": 7}))
    with pytest.raises(RecordError, match=r"stream\.json: damaged or edited; remove .*moments and run"):
        FeatureStream(out / "moments", "train")
    (out / "moments/stream.json").write_text(json.dumps(manifest))
    index = out / "moments/train-00001.npz"
    index.write_bytes(index.read_bytes()[:-1] + b"x")
    with pytest.raises(RecordError, match=r"train-00001\.npz: damaged or edited"):
        FeatureStream(out / "moments", "train")
    (out / "moments/train-00000.array_record").unlink()
    # Making it again makes those two.
    build_cache(str(folder), out, fakes.config(folder), fakes.encoders(towers={}), progress=False)
    assert len(FeatureStream(out / "moments", "train")) == 60
    (out / "moments/train-00000.array_record").unlink()
    with pytest.raises(RecordError, match=r"train-00000\.array_record: missing; remove"):
        FeatureStream(out / "moments", "train")
