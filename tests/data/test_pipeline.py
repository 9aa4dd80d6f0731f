"""Batches: the same ones on any number of shards and threads, from any position."""

import dataclasses

import numpy as np
import pytest

from fooddit.data.examples import MakeBatch, example_draws
from fooddit.data.pipeline import Batches, DataConfig, TextInput, doubts, open_dataset
from fooddit.data.records import RecordError
from fooddit.data.tokenizer import train_tokenizer
from tests.data.made import dataset, picture, record

LENGTH = 12


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records") / "made"
    sizes = [(32, 32), (48, 32), (32, 48), (80, 40), (40, 40)]
    dataset(folder, [record(i, *sizes[i % 5]) for i in range(60)], [record(60)])
    return open_dataset(folder, "train")


@pytest.fixture(scope="module")
def tokenize(data):
    tokenizer = train_tokenizer((caption.text for caption in data.captions()), 300)
    return lambda text: tokenizer.encode(text, LENGTH)


@pytest.fixture
def config(data):
    return DataConfig(str(data.folder), 8, image_size=32, grid=8, max_aspect=2.0, flip=True)


def draw(data, config, tokenize, count, **options):
    tokenizers = {"text": TextInput(tokenize, LENGTH)}
    batches = Batches(data, config, **({"seed": 0, "tokenizers": tokenizers} | options))
    found = [next(batches) for _ in range(count)]
    assert batches.position == options.get("start", 0) + count
    batches.close()
    return found


def assert_same(found, expected):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_what_is_hardly_meant_is_said(data, config):
    assert doubts(data, config) == []
    large = dataclasses.replace(config, batch_size=64, image_size=64, max_aspect=1.0)
    repeated, enlarged = doubts(data, large)
    assert "batch_size 64 is more than all 60 pictures" in repeated
    assert "60 of 60 pictures are smaller than config.data.image_size 64 and are enlarged" in enlarged


def test_shapes_and_types(data, config, tokenize):
    for number, batch in enumerate(draw(data, config, tokenize, 12)):
        _, h, w, _ = batch["image"].shape
        assert batch["image"].shape == (8, h, w, 3) and h * w <= 32 * 32 and h % 8 == w % 8 == 0
        assert batch["image"].dtype == np.uint8 and batch["record"].dtype == np.int64
        assert batch["text"].shape == batch["text_mask"].shape == (8, LENGTH)
        assert batch["text"].dtype == np.int32 and batch["text_mask"].dtype == bool
        assert batch["index"].dtype == batch["caption"].dtype == np.int32
        assert batch.keys() == {"image", "text", "text_mask", "index", "record", "caption"}
        assert batch["index"].tolist() == list(range(8 * number, 8 * number + 8))


@pytest.mark.parametrize("rows", [[0], [7], [2, 3], [0, 1, 6, 7], [*range(8)]])
def test_a_host_draws_its_rows_of_the_global_batch(data, config, tokenize, rows, monkeypatch):
    read, gather = [], MakeBatch._gather

    def watched(self, numbers, *a):
        # Threads of another test may still make batches ahead: of all rows.
        if self._rows.tolist() == rows:
            read.append(len(numbers))
        return gather(self, numbers, *a)

    with monkeypatch.context() as patch:
        patch.setattr(MakeBatch, "_gather", watched)
        part = draw(data, config, tokenize, 10, rows=np.array(rows))
    assert {*read} == {len(rows)}
    whole = draw(data, config, tokenize, 10)
    assert_same(part, [{name: array[rows] for name, array in batch.items()} for batch in whole])


def test_resumes_at_any_position(data, config, tokenize):
    whole = draw(data, config, tokenize, 12)
    for start in (1, 7):
        assert_same(draw(data, config, tokenize, 12 - start, start=start), whole[start:])


def test_threads_do_not_matter(data, config, tokenize):
    whole = draw(data, config, tokenize, 12)
    assert_same(draw(data, dataclasses.replace(config, threads=5, prefetch=1), tokenize, 12), whole)


def test_seeds_and_epochs_differ(data, config, tokenize):
    records = np.concatenate([batch["record"] for batch in draw(data, config, tokenize, 15)])
    other = np.concatenate([batch["record"] for batch in draw(data, config, tokenize, 15, seed=1)])
    assert (records != other).any()
    assert set(records.tolist()) == set(range(60))


def test_pictures_and_captions_are_those_of_the_record(data, tokenize):
    config = DataConfig(str(data.folder), 6, image_size=32, short=1.0, dense=0.0, dropped=0.0)
    for batch in draw(data, config, tokenize, 10):
        for row, number in enumerate(batch["record"]):
            found = data[int(number)]
            np.testing.assert_array_equal(batch["text"][row], tokenize(found.captions[0].text)[0])
            assert batch["caption"][row] == 0
            if (found.width, found.height) == (32, 32):
                np.testing.assert_array_equal(batch["image"][row], picture(int(number), 32, 32))


def test_every_tower_reads_the_same_caption(data, config, tokenize):
    length = 200
    spell = TextInput(
        lambda text: (
            np.resize(np.frombuffer(text.encode() or b" ", np.uint8), length).astype(np.int32),
            np.arange(length) < len(text.encode()),
        ),
        length,
    )
    both = {"text": TextInput(tokenize, LENGTH), "bytes": spell}
    for batch in draw(data, config, tokenize, 6, tokenizers=both):
        assert batch["bytes"].shape == batch["bytes_mask"].shape == (8, length)
        for row, (number, caption) in enumerate(zip(batch["record"], batch["caption"], strict=True)):
            text = data[int(number)].captions[caption].text if caption >= 0 else ""
            assert bytes(batch["bytes"][row][batch["bytes_mask"][row]].astype(np.uint8)).decode() == text
            np.testing.assert_array_equal(batch["text"][row], tokenize(text)[0])
    assert all("text" not in batch for batch in draw(data, config, tokenize, 1, tokenizers={}))


def test_odds_flip_and_dropped(data, tokenize):
    base = DataConfig(str(data.folder), 60, image_size=32, short=0.5, dense=0.25, dropped=0.25)
    plain = draw(data, base, tokenize, 20)
    dropped = np.concatenate([~batch["text_mask"].any(1) for batch in plain])
    assert dropped.mean() == pytest.approx(0.25, abs=0.05)
    np.testing.assert_array_equal(np.concatenate([batch["caption"] for batch in plain]) == -1, dropped)
    flipped = draw(data, dataclasses.replace(base, flip=True), tokenize, 20)
    pairs = [(a, b) for x, y in zip(plain, flipped, strict=True) for a, b in zip(x["image"], y["image"], strict=True)]
    mirrored = [(a[:, ::-1] == b).all() for a, b in pairs]
    assert np.mean(mirrored) == pytest.approx(0.5, abs=0.07)
    assert all(m or (a == b).all() for m, (a, b) in zip(mirrored, pairs, strict=True))


def test_draws_depend_on_the_example_alone():
    whole = example_draws(5, 0, 64)
    np.testing.assert_array_equal(example_draws(5, 40, 8), whole[40:48])
    assert (example_draws(6, 0, 64) != whole).all() and 0 <= whole.min() and whole.max() < 1
    assert example_draws(5, 2**31 + 7, 1).shape == (1, 8)


def test_draws_stay_what_they_were():
    expected = [[0.05259061, 0.15772675, 0.03727771, 0.06221224, 0.60724282, 0.86122674, 0.28295309, 0.50123159]]
    np.testing.assert_allclose(example_draws(5, 40, 1), expected, atol=1e-8)
    # The first four are from before there were eight: the same crop, flip and caption.
    four = np.random.Generator(np.random.Philox(key=[5, 1], counter=[40, 0, 0, 0])).random((3, 4))
    np.testing.assert_array_equal(example_draws(5, 40, 3)[:, :4], four)
    assert np.unique(example_draws(5, 0, 64)).size == 64 * 8


def test_fingerprint_says_what_the_position_means(data, config, tokenize):
    def fingerprint(seed=0, **changes):
        tokenizers = {"text": TextInput(tokenize, LENGTH)}
        batches = Batches(data, dataclasses.replace(config, **changes), seed=seed, tokenizers=tokenizers)
        batches.close()
        return batches.fingerprint

    assert fingerprint() == fingerprint(threads=7, prefetch=2)
    assert fingerprint()["dataset"] == data.fingerprint
    for other in (fingerprint(seed=1), fingerprint(batch_size=16), fingerprint(max_aspect=1.0)):
        assert other != fingerprint()
    # Reference pictures are what the model is shown: another size or kind of them is another run.
    kinds = [{}, {"reference_size": 16}, {"reference_size": 32}, {"reference_size": 16, "references": "same"}]
    found = [fingerprint(**kind) for kind in kinds]
    assert all(a != b for i, a in enumerate(found) for b in found[:i])
    assert fingerprint(references="same") == fingerprint()


def test_errors_say_what_to_change(data, config, tokenize, tmp_path):
    with pytest.raises(ValueError, match="sum to 1"):
        dataclasses.replace(config, short=0.9)
    with pytest.raises(ValueError, match=r"data\.threads is 0"):
        dataclasses.replace(config, threads=0)
    with pytest.raises(ValueError, match=r"data\.max_damaged is -1"):
        dataclasses.replace(config, max_damaged=-1)
    for name, wrong in (("reference_size", -1), ("references", "another")):
        with pytest.raises(ValueError, match=rf"data\.{name} is {wrong!r}"):
            dataclasses.replace(config, **{name: wrong})
    with pytest.raises(ValueError, match=r"tokenizer of 'text' gave ids of shape \(12,\), expected \(99,\)"):
        next(Batches(data, config, seed=0, tokenizers={"text": TextInput(tokenize, 99)}))
    dataset(tmp_path, [record(0)])
    with pytest.raises(RecordError, match="'holdout' has no records"):
        Batches(open_dataset(tmp_path, "holdout"), config, seed=0, tokenizers={"text": TextInput(tokenize, LENGTH)})
