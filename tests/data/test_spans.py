"""Spans: nothing is lost, the shares are those asked for, and a batch is a function of its position alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fooddit.data.spans import (
    SpanBatches,
    SpanDataConfig,
    corrupt,
    corrupted_lengths,
    span_batch_shapes,
    span_counts,
)

CONFIG = SpanDataConfig(batch_size=6, length=30)
SENTINELS = list(range(999, 899, -1))
TEXTS = [" ".join(str(10 + (7 * i + j) % 80) for j in range(1 + 3 * i)) for i in range(20)]


def encode(text: str) -> list[int]:
    return [int(word) for word in text.split()]


def batches(config: SpanDataConfig = CONFIG, **options):
    return SpanBatches(TEXTS, config, seed=3, encode=encode, sentinels=SENTINELS, fingerprint="x", **options)


def restored(spans) -> list[int]:
    """The text again: what follows a sentinel in the target, in its place in the input."""
    found: dict[int, list[int]] = {}
    for token in spans.target[:-1].tolist():
        if token >= 900:
            found[token] = []
            last = found[token]
        else:
            last.append(token)
    assert list(found) == SENTINELS[: len(found)] and all(found.values())
    return [t for token in spans.input[:-1].tolist() for t in (found[token] if token >= 900 else [token])]


@given(st.integers(1, 200), st.floats(0.05, 0.6), st.floats(1, 5), st.integers(0, 2**32 - 1))
@settings(max_examples=150, deadline=None)
def test_input_and_target_together_are_the_text(length, density, mean_span, seed):
    config = SpanDataConfig(length=200, density=min(density, 0.4), mean_span=mean_span)
    ids = list(range(2, length + 2))
    spans = corrupt(ids, np.random.default_rng(seed), config, sentinels=SENTINELS)
    assert spans.input[-1] == spans.target[-1] == 1 and restored(spans) == ids
    taken, count = span_counts(length, config)
    assert len(spans.target) == taken + count + 1 and len(spans.input) == length - taken + count + 1
    # No two sentinels touch: a span would be two.
    assert not np.any((spans.input[1:] >= 900) & (spans.input[:-1] >= 900))
    assert (len(spans.input) <= corrupted_lengths(config)[0]) and len(spans.target) <= corrupted_lengths(config)[1]


def test_a_text_of_512_tokens_loses_what_the_papers_does():
    # 15 % in spans of 3 tokens: 114 tokens of target with its sentinels and its end at 568 tokens (T5's own figures).
    assert span_counts(568, SpanDataConfig(length=568)) == (85, 28)


def test_every_token_is_taken_out_as_often_but_near_the_ends():
    ids, rng, count = list(range(2, 22)), np.random.default_rng(0), np.zeros(22)
    for _ in range(4000):
        target = corrupt(ids, rng, CONFIG, sentinels=SENTINELS).target
        count[target[(target > 1) & (target < 900)]] += 1 / 4000
    assert count.sum() == pytest.approx(3) and count[2] > 0.03 and count[21] > 0.03
    np.testing.assert_allclose(count[5:19], count[5:19].mean(), atol=0.03)


def test_a_batch_has_its_shapes_and_masks_and_no_two_are_alike():
    stream = batches()
    first, second = next(stream), next(stream)
    stream.close()
    assert {name: (x.shape, x.dtype) for name, x in first.items()} == {
        name: (x.shape, x.dtype) for name, x in span_batch_shapes(CONFIG).items()
    }
    for name in ("input", "target"):
        mask = first[f"{name}_mask"]
        assert not first[name][~mask].any() and (first[name][mask] > 0).all()
        assert (np.take_along_axis(first[name], mask.sum(axis=1)[:, None] - 1, axis=1) == 1).all()
    assert second["index"].tolist() == list(range(6, 12)) and not np.array_equal(first["input"], second["input"])


def test_the_position_and_the_rows_are_all_there_is():
    stream = batches()
    made = [next(stream) for _ in range(4)]
    assert stream.position == 4
    stream.close()
    later, part = batches(start=3), batches(rows=np.array([1, 4]))
    for name, value in next(later).items():
        np.testing.assert_array_equal(value, made[3][name])
    for step in range(2):
        for name, value in next(part).items():
            np.testing.assert_array_equal(value, made[step][name][[1, 4]])
    # The example, not its place in a batch: of batches of two the fourth begins with the seventh example.
    small = batches(SpanDataConfig(batch_size=2, length=30), start=3)
    np.testing.assert_array_equal(next(small)["input"], made[1]["input"][:2])
    for stream in (later, part, small):
        stream.close()


def test_long_texts_are_read_in_parts_from_any_place():
    config = SpanDataConfig(batch_size=40, length=10)
    stream = SpanBatches(
        [" ".join(map(str, range(10, 60)))], config, seed=0, encode=encode, sentinels=SENTINELS, fingerprint=""
    )
    batch = next(stream)
    stream.close()
    starts = {int(row[row < 900].min()) for row in np.where(batch["input"] > 1, batch["input"], 999)}
    assert len(starts) > 15 and min(starts) < 15 and max(starts) > 45


@pytest.mark.parametrize(
    "change, says",
    [
        ({"length": 3}, "data.length must be at least 4"),
        ({"density": 1.0}, "data.density must be above 0 and below 1"),
        ({"length": 4000}, "more than 100 spans"),
        ({"source": ""}, "data.source and data.files are empty"),
    ],
)
def test_a_config_that_cannot_be_is_refused(change, says):
    with pytest.raises(ValueError, match=says):
        SpanDataConfig(**change)
