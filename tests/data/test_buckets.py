"""Buckets have a constant token count; the plan is pure and loses nothing."""

import collections

import numpy as np
import pytest

from fooddit.data.buckets import Bucket, Plan, bucket_table, table_hash

SQUARE = (Bucket(64, 64),)


def random_sizes(count, seed=0):
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(200, 640, count), rng.integers(200, 640, count)], 1)


def test_the_512_px_table():
    table = bucket_table(512, 16, 2.0)
    tokens = [b.height * b.width // 256 for b in table]
    assert len(table) == 19 and min(tokens) == 999 and max(tokens) == 1024
    assert Bucket(512, 512) in table and Bucket(368, 704) in table and Bucket(704, 368) in table
    assert all(b.height % 16 == 0 and b.width % 16 == 0 for b in table)


def test_squares_only_and_bad_arguments():
    assert bucket_table(64, 8, 1.0) == SQUARE
    assert table_hash(SQUARE) != table_hash(bucket_table(64, 8, 2.0))
    with pytest.raises(ValueError, match="multiple of grid"):
        bucket_table(60, 8, 1.0)
    with pytest.raises(ValueError, match="max_aspect"):
        bucket_table(64, 8, 0.5)


@pytest.mark.parametrize(("count", "batch_size"), [(100, 8), (64, 64), (5, 8), (1, 3), (97, 32)])
def test_every_record_is_used_equally(count, batch_size):
    plan = Plan(np.full((count, 2), 64), SQUARE, batch_size, seed=1)
    seen = collections.Counter()
    for position in range(60):
        seen.update(plan.batch(position)[1].tolist())
    assert set(seen) == set(range(count)) and max(seen.values()) - min(seen.values()) <= 1


def test_passes_are_whole_permutations_and_differ():
    plan = Plan(np.full((100, 2), 64), SQUARE, 10, seed=1)
    passes = [np.concatenate([plan.batch(10 * p + i)[1] for i in range(10)]) for p in range(2)]
    assert sorted(passes[0]) == sorted(passes[1]) == list(range(100))
    batches = [{frozenset(chunk.tolist()) for chunk in np.split(order, 10)} for order in passes]
    assert not batches[0] & batches[1] and frozenset(range(10)) not in batches[0]


def test_a_batch_is_one_bucket_and_nearest_in_aspect():
    table, sizes = bucket_table(256, 16, 2.0), random_sizes(3000)
    plan = Plan(sizes, table, 16, seed=0)
    for position in range(100):
        bucket, records = plan.batch(position)
        aspects = sizes[records, 0] / sizes[records, 1]
        others = np.array([b.width / b.height for b in table])
        nearest = np.abs(np.log(aspects[:, None] / others)).argmin(1)
        assert {table[i] for i in nearest} == {bucket} or bucket in (table[0], table[-1])


def test_a_small_bucket_joins_its_neighbour():
    wide, tall = (Bucket(32, 64), Bucket(40, 56)), (Bucket(56, 40), Bucket(64, 32))
    sizes = np.array([[200, 100]] * 3 + [[140, 100]] * 20 + [[100, 140]] * 20 + [[100, 200]] * 3)
    assert Plan(sizes, wide + tall, 8, seed=0).bucket_counts() == {wide[1]: 23, tall[0]: 23}


def test_small_buckets_are_merged_and_nothing_is_lost():
    table, sizes = bucket_table(256, 16, 2.0), random_sizes(300)
    plan = Plan(sizes, table, 32, seed=0)
    counts = plan.bucket_counts()
    assert sum(counts.values()) == 300 and min(counts.values()) >= 32
    seen = collections.Counter()
    for position in range(plan.epoch_start(8)):
        seen.update(plan.batch(position)[1].tolist())
    assert set(seen) == set(range(300)) and max(seen.values()) <= 8 and min(seen.values()) >= 7


def test_epochs_are_found_and_shuffled():
    plan = Plan(random_sizes(1000), bucket_table(256, 16, 2.0), 32, seed=0)
    starts = [plan.epoch_start(e) for e in range(20)]
    assert starts == sorted(starts)
    for position in range(starts[-1]):
        epoch = plan.epoch(position)
        assert starts[epoch] <= position < plan.epoch_start(epoch + 1)
    first, second = ([plan.batch(p)[0] for p in range(starts[e], starts[e + 1])] for e in (0, 1))
    assert first != second


def test_pure_and_seeded():
    sizes, table = random_sizes(500), bucket_table(256, 16, 2.0)
    forward, other = Plan(sizes, table, 16, seed=3), Plan(sizes, table, 16, seed=4)
    order = [forward.batch(p)[1] for p in range(50)]
    backward = Plan(sizes, table, 16, seed=3)
    for position in reversed(range(50)):
        np.testing.assert_array_equal(backward.batch(position)[1], order[position])
    assert any((other.batch(p)[1] != order[p]).any() for p in range(50))


def test_a_million_records_are_planned_at_once():
    plan = Plan(random_sizes(1_000_000), bucket_table(512, 16, 2.0), 256, seed=0)
    assert len(set(plan.batch(12_345_678)[1].tolist())) == 256


def test_no_records_is_an_error():
    with pytest.raises(ValueError, match="0 records"):
        Plan(np.zeros((0, 2)), SQUARE, 4, seed=0)
