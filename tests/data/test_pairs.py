"""Pairs for contrastive training: hard negatives, the same order for any hosts and from any position, names."""

import numpy as np
import pytest

from fooddit.data.captions import Caption
from fooddit.data.pairs import (
    MOST_CAPTIONS,
    NO_NAME,
    PairBatches,
    PairDataConfig,
    PairPlan,
    caption_names,
    cluster_name,
    number_categories,
    read_categories,
)
from fooddit.data.pipeline import TextInput, open_dataset
from fooddit.data.prepare import prepare

COUNT, BATCH, GROUP = 600, 40, 8


def plan(hard: float, seed: int = 0, categories=None) -> PairPlan:
    config = PairDataConfig(source="x", batch_size=BATCH, hard=hard, group=GROUP)
    categories = np.arange(COUNT) % 12 if categories is None else categories
    sizes = np.full((COUNT, 2), 64)
    return PairPlan(sizes, config.examples(8), seed, categories=categories, hard=hard, group=GROUP)


def order(plan: PairPlan, batches: int) -> np.ndarray:
    return np.concatenate([plan.batch(i)[1] for i in range(batches)])


@pytest.mark.parametrize("hard", [0.0, 0.5, 1.0])
def test_every_picture_comes_once_an_epoch_in_another_order(hard):
    found = order(plan(hard), 2 * COUNT // BATCH).reshape(2, COUNT)
    for epoch in found:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(COUNT))
    assert (found[0] != found[1]).mean() > 0.9
    assert (order(plan(hard, seed=1), 15) != found[0]).mean() > 0.9


def runs(records: np.ndarray) -> list[int]:
    """Lengths of runs of one category."""
    category = records % 12
    ends = np.nonzero(np.r_[np.diff(category) != 0, True])[0]
    return np.diff(np.r_[-1, ends]).tolist()


def test_a_share_of_the_pictures_comes_in_groups_of_one_category():
    share = lambda hard: sum(n for n in runs(order(plan(hard), 15)) if n >= GROUP // 2) / COUNT
    assert share(0.0) == 0
    assert 0.35 < share(0.5) < 0.65
    assert share(1.0) > 0.9


def test_a_picture_without_a_category_comes_alone():
    none = np.full(COUNT, -1)
    assert max(runs(order(plan(1.0, categories=none), 15))) < GROUP // 2


def test_numbers_of_categories():
    assert number_categories(["soup", "", "cake", "soup"]).tolist() == [1, -1, 0, 1]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records") / "scenes"
    prepare("scenes:48", folder, size=32, progress=False)
    return open_dataset(folder, "train")


CONFIG = PairDataConfig(source="x", batch_size=16, image_size=32, hard=0.5, group=4, short=0.5)


def stream(dataset, **options) -> PairBatches:
    def tokenize(text: str):
        ids = np.zeros(8, np.int32)
        ids[: len(text)] = [ord(letter) % 100 for letter in text[:8]]
        return ids, np.arange(8) < len(text)

    categories = number_categories(read_categories(dataset))
    return PairBatches(dataset, CONFIG, grid=8, seed=3, text=TextInput(tokenize, 8), categories=categories, **options)


def draw(dataset, count: int, **options) -> list[dict]:
    batches = stream(dataset, **options)
    found = [next(batches) for _ in range(count)]
    batches.close()
    return found


def test_categories_are_the_kinds_of_scenes(dataset):
    found = read_categories(dataset)
    assert len(found) == 48 and found[7] == dataset[7].attributes["kind"].replace("_", " ")


def test_hosts_share_one_order_and_a_run_goes_on_from_any_position(dataset):
    whole = draw(dataset, 4)
    assert {name: value.shape for name, value in whole[0].items()} == {
        "image": (16, 32, 32, 3),
        "text": (16, 8),
        "text_mask": (16, 8),
        "image_names": (16, 1 + MOST_CAPTIONS),
        "text_names": (16, 2),
        "index": (16,),
        "record": (16,),
        "caption": (16,),
    }
    for rows in np.split(np.arange(16), 4):
        for found, expected in zip(draw(dataset, 4, rows=rows), whole):
            for name, value in expected.items():
                np.testing.assert_array_equal(found[name], value[rows], err_msg=name)
    for found, expected in zip(draw(dataset, 2, start=2), whole[2:]):
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_a_caption_shares_a_name_with_exactly_the_pictures_that_it_is_true_of(dataset):
    """And each example has a caption: none is dropped."""
    some = 0
    for batch in draw(dataset, 6):
        records = dataset.read(batch["record"])
        assert (batch["caption"] >= 0).all()
        for i, text in enumerate(record.captions[c].text for record, c in zip(records, batch["caption"])):
            for j, other in enumerate(records):
                true = text in {caption.text for caption in other.captions} or other.cluster == records[i].cluster
                names = set(batch["image_names"][j].tolist()) & set(batch["text_names"][i].tolist()) - {NO_NAME}
                assert bool(names) == true
                some += true and i != j
    assert some > 10


def test_more_captions_than_there_is_place_for_lose_the_last_ones():
    captions = [Caption(f"dish {i}", "short", "en") for i in range(40)]
    names = caption_names(captions)
    assert len(set(names.tolist())) == MOST_CAPTIONS == len(names) and (names >= 0).all()
    assert (caption_names(captions[:2])[2:] == NO_NAME).all() and cluster_name(3) >= 0


def test_what_a_position_is_one_in_names_the_grouping(dataset):
    first = stream(dataset)
    first.close()
    assert first.fingerprint["hard"][:2] == [0.5, 4] and first.fingerprint["dataset"] == dataset.fingerprint


@pytest.mark.parametrize(
    "change, message",
    [
        ({"source": ""}, "data.source is empty"),
        ({"batch_size": 1}, "data.batch_size is 1"),
        ({"hard": 1.5}, "data.hard is 1.5: expected a share from 0 to 1"),
        ({"group": 1}, "data.group is 1"),
    ],
)
def test_configs_that_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        PairDataConfig(**{"source": "x", "batch_size": 8} | change)
