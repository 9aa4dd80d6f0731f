"""References: another picture of the dish, never the target or its twin; the same ones on any host."""

import dataclasses

import numpy as np
import pytest

from fooddit.data.images import decode_image, encode_png, fit_image
from fooddit.data.pipeline import Batches, DataConfig, doubts
from fooddit.data.records import RecordError, open_dataset
from fooddit.data.references import Others, reference_share
from tests.data.made import dataset, picture, record

# Dish 0 has six pictures, 1 and 2 look the same; dish 1 is one picture twice; the others have one each.
DISHES = [(0, 0), (0, 1), (0, 1), (0, 3), (0, 4), (1, 5), (0, 6), (1, 5), *((n, n) for n in range(8, 24))]
OF_DISH = [0, 1, 2, 3, 4, 6]


@pytest.fixture
def folder(tmp_path):
    sizes = [(32, 32), (48, 32), (32, 48)]
    dataset(tmp_path / "made", [record(i, *sizes[i % 3]) for i in range(24)], shard_bytes=40000, dishes=DISHES)
    return tmp_path / "made"


def draw(folder, count, **options):
    config = DataConfig(str(folder), 8, image_size=32, reference_size=16)
    settings = {name: options.pop(name) for name in ("references", "max_damaged", "threads") if name in options}
    data = open_dataset(folder, "train")
    batches = Batches(data, dataclasses.replace(config, **settings), **({"seed": 0, "tokenizers": {}} | options))
    try:
        return [next(batches) for _ in range(count)]
    finally:
        batches.close()


def joined(batches):
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def assert_same(found, expected):
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def pictures(folder):
    """The record number of each picture as a reference."""
    data = open_dataset(folder, "train")
    fit = lambda image: fit_image(decode_image(image, min_height=16, min_width=16), 16, 16)  # noqa: E731
    return {fit(found.image).tobytes(): number for number, found in enumerate(data)}


def origins(known, batch):
    """The record that each reference is of, None for a black one."""
    return [known.get(image.tobytes()) for image in batch["reference"]]


def damage(folder, *numbers):
    records = open_dataset(folder, "train").read(numbers)
    for path in folder.glob("train-*.array_record"):
        data = bytearray(path.read_bytes())
        for found in records:
            if (at := data.find(found.image[-40:])) >= 0:
                data[at] ^= 4
        path.write_bytes(data)


def test_others_are_of_the_dish_and_no_twins():
    others = Others(*np.array(DISHES).T)
    for target, (dish, twin) in enumerate(DISHES):
        expected = {n for n, (d, t) in enumerate(DISHES) if d == dish and t != twin}
        found = [others.get(target, which) for which in range(others.count(target))]
        assert len(found) == len(expected) and {*found} == expected


def test_a_reference_is_another_picture_of_the_dish(folder):
    known, batch = pictures(folder), joined(draw(folder, 60))
    assert batch["reference"].shape == (480, 16, 16, 3) and batch["reference"].dtype == np.uint8
    assert batch["has_reference"].dtype == bool
    seen = {}
    for target, origin, has in zip(batch["record"].tolist(), origins(known, batch), batch["has_reference"]):
        assert has == (origin is not None) == (target in OF_DISH)
        if has:
            assert DISHES[origin][0] == 0 and DISHES[origin][1] != DISHES[target][1]
            seen.setdefault(target, set()).add(origin)
    # Every other picture is drawn, sooner or later.
    assert seen[0] == {1, 2, 3, 4, 6} and seen[1] == seen[2] == {0, 3, 4, 6}
    assert not batch["reference"][~batch["has_reference"]].any()


def test_the_same_ones_on_any_host_and_after_any_resume(folder):
    whole = draw(folder, 20)
    assert_same(joined(draw(folder, 20, threads=5)), joined(whole))
    for rows in ([0], [3, 7], [2, 4, 5, 6]):
        for part, batch in zip(draw(folder, 20, rows=np.array(rows)), whole, strict=True):
            assert_same(part, {name: array[rows] for name, array in batch.items()})
    assert_same(joined(draw(folder, 9, start=11)), joined(whole[11:]))


def test_nothing_else_depends_on_references(folder):
    config = DataConfig(str(folder), 8, image_size=32)
    batches = Batches(open_dataset(folder, "train"), config, seed=0, tokenizers={})
    without = [next(batches) for _ in range(10)]
    batches.close()
    assert "reference" not in without[0] and "has_reference" not in without[0]
    for references in ("other", "same"):
        assert_same(joined(draw(folder, 10, references=references)), joined(without))


def test_the_control_shows_the_target_itself(folder):
    known, batch = pictures(folder), joined(draw(folder, 12, references="same"))
    assert batch["has_reference"].all() and origins(known, batch) == batch["record"].tolist()


def test_a_damaged_reference_is_replaced_and_no_other_changes(folder):
    whole, known = joined(draw(folder, 60)), pictures(folder)
    damage(folder, 3, 6)
    batch = joined(draw(folder, 60))
    before, after = origins(known, whole), origins(known, batch)
    assert 3 in before and 6 in before and not {3, 6} & {*after}
    replaced = 0
    for row, (target, was, now) in enumerate(zip(whole["record"].tolist(), before, after, strict=True)):
        if target in (3, 6):
            continue
        assert batch["record"][row] == target
        assert batch["has_reference"][row] == whole["has_reference"][row]
        if was in (3, 6):
            replaced += 1
            assert DISHES[now][0] == 0 and DISHES[now][1] != DISHES[target][1]
        else:
            assert now == was
    assert replaced > 20
    assert_same(joined(draw(folder, 30, start=30)), joined(draw(folder, 60)[30:]))


def test_a_reference_that_has_no_replacement_is_dropped(folder, capfd):
    damage(folder, 1, 2, 3, 4, 6)
    batch = joined(draw(folder, 30))
    alone = batch["record"] == 0
    assert alone.any() and not batch["has_reference"][alone].any() and not batch["reference"][alone].any()
    assert capfd.readouterr().err.count("left out") == 5
    with pytest.raises(RecordError, match=r"more than config\.data\.max_damaged=2"):
        draw(folder, 30, max_damaged=2)


def test_a_reference_that_cannot_be_decoded_is_dropped(tmp_path, capfd):
    broken = dataclasses.replace(record(1), image=encode_png(picture(1, 32, 32))[:60])
    dataset(tmp_path, [record(0), broken, record(2)], dishes=[(0, 0), (0, 1), (0, 0)])
    batch = joined(draw(tmp_path, 6))
    assert not batch["has_reference"].any() and {*batch["record"].tolist()} == {0, 2}
    assert capfd.readouterr().err.count("(r1): its picture cannot be decoded") == 1


def test_the_share_with_a_reference_is_known_before(folder):
    data = open_dataset(folder, "train")
    assert reference_share(data) == len(OF_DISH) / 24
    batch = joined(draw(folder, 300))
    assert batch["has_reference"].mean() == pytest.approx(reference_share(data), abs=0.01)
    assert reference_share(open_dataset(folder, "holdout")) == 0
    config = DataConfig(str(folder), 8, image_size=32, reference_size=16)
    assert "6 of 24 pictures have another one of their dish; the others come without" in doubts(data, config)[-1]
    assert doubts(data, dataclasses.replace(config, references="same")) == []
