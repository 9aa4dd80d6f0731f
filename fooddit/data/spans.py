"""Span corruption: batches of texts with spans missing, and the spans, as T5 is trained."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from fooddit.data.positions import PositionBatches
from fooddit.data.unigram import SENTINELS

# The second word of the Philox key; records' draws have 1.
_TAG = 2


@dataclass(frozen=True)
class SpanDataConfig:
    """What is read, and how it is corrupted.

    Attributes:
      source: a folder that `fooddit prepare` wrote, "scenes:N" or "styles:N": its captions; "" for none.
      files: text files in UTF-8 besides, with commas between; each line is a text.
      batch_size: global, over all hosts.
      length: tokens of a text before any is taken out; of a longer one a part is taken, another one at each turn.
      density: the share of tokens that are taken out; mean_span: how many together, on average.
      threads: that make batches; prefetch: batches kept ready; cache: where remote records are copied to.
    """

    source: str = field(default="scenes:12000", metadata={"operational": True})
    files: str = field(default="", metadata={"operational": True})
    batch_size: int = 64
    length: int = 48
    density: float = 0.15
    mean_span: float = 3.0
    threads: int = field(default=2, metadata={"operational": True})
    prefetch: int = field(default=4, metadata={"operational": True})
    cache: str = field(default="", metadata={"operational": True})

    def __post_init__(self):
        for name, least in (("batch_size", 1), ("length", 4), ("threads", 1), ("prefetch", 1), ("mean_span", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"data.{name} must be at least {least}, found {getattr(self, name)}")
        if not 0 < self.density < 1:
            raise ValueError(f"data.density must be above 0 and below 1, found {self.density}")
        if not self.source and not self.files:
            raise ValueError("data.source and data.files are empty; give records, scenes:N or text files")
        if span_counts(self.length, self)[1] > SENTINELS:
            raise ValueError(f"data.length, density and mean_span: more than {SENTINELS} spans in a text")


class Spans(NamedTuple):
    """A corrupted text: what is left, with a sentinel for each span, and each span after its sentinel; both end."""

    input: Int[np.ndarray, "input"]
    target: Int[np.ndarray, "target"]


def span_counts(length: int, config: SpanDataConfig) -> tuple[int, int]:
    """(tokens taken out, spans) of a text of `length` tokens: at least one of each, and one token is left of two."""
    taken = min(max(round(length * config.density), 1), max(length - 1, 1))
    return taken, min(max(round(taken / config.mean_span), 1), length - taken + 1)


def corrupted_lengths(config: SpanDataConfig) -> tuple[int, int]:
    """The most tokens that an input and a target can have, their ends included."""
    pairs = [(length, *span_counts(length, config)) for length in range(1, config.length + 1)]
    return max(n - taken + spans for n, taken, spans in pairs) + 1, max(taken + spans for _, taken, spans in pairs) + 1


def corrupt(
    ids: Sequence[int], rng: np.random.Generator, config: SpanDataConfig, *, sentinels: Sequence[int], end: int = 1
) -> Spans:
    """Takes spans out of token ids, all ways to place them equally likely (Raffel et al. 2020, section 3.1.4, 3.3.4).

    Unlike the published code, which always keeps the first token and takes the last one: these texts are short.
    """
    taken, spans = span_counts(len(ids), config)
    sizes = _parts(taken - spans, spans, rng) + 1
    # Between two spans one token is kept at least, before the first and after the last none need be.
    gaps = _parts(len(ids) - taken - (spans - 1), spans + 1, rng)
    gaps[1:-1] += 1
    left, out, place = [], [], 0
    for i, (gap, size) in enumerate(zip(gaps.tolist(), sizes.tolist())):
        start = place + gap
        left += [*ids[place:start], sentinels[i]]
        out += [sentinels[i], *ids[start : start + size]]
        place = start + size
    return Spans(np.array([*left, *ids[place:], end], np.int32), np.array([*out, end], np.int32))


def span_batch_shapes(config: SpanDataConfig) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of the global batch that `SpanBatches` gives."""
    shape, found = jax.ShapeDtypeStruct, {"index": jax.ShapeDtypeStruct((config.batch_size,), np.int32)}
    for name, length in zip(("input", "target"), corrupted_lengths(config)):
        found[name] = shape((config.batch_size, length), np.int32)
        found[f"{name}_mask"] = shape((config.batch_size, length), np.bool_)
    return found


class SpanBatches(PositionBatches):
    """Batches {"input", "target": int32 (b, T), "input_mask", "target_mask": bool (b, T), "index": int32 (b,)}.

    An example is a text drawn from all, a part of it if it is long, and its spans: by Philox keyed by (seed, example
    number), so that it depends on no other. The state is `position`, the number of global batches drawn; of each the
    `rows` that a host wants, all if None.
    """

    def __init__(
        self,
        texts: Sequence[str],
        config: SpanDataConfig,
        *,
        seed: int,
        encode: Callable[[str], list[int]],
        sentinels: Sequence[int],
        fingerprint: str,
        start: int = 0,
        rows: np.ndarray | None = None,
    ):
        rows = np.arange(config.batch_size) if rows is None else rows
        lengths = dict(zip(("input", "target"), corrupted_lengths(config)))
        encode = functools.lru_cache(maxsize=1 << 17)(encode)

        def example(number: int) -> Spans:
            # The counter's first word is what numpy turns; the second one is the example's.
            rng = np.random.Generator(np.random.Philox(key=[seed, _TAG], counter=[0, number, 0, 0]))
            ids = encode(texts[int(rng.integers(len(texts)))])
            first = int(rng.integers(max(len(ids) - config.length, 0) + 1))
            return corrupt(ids[first : first + config.length], rng, config, sentinels=sentinels)

        def make(position: int) -> dict[str, np.ndarray]:
            numbers = position * config.batch_size + rows
            examples = [example(number) for number in numbers.tolist()]
            batch = {"index": (numbers % 2**31).astype(np.int32)}
            for name, length in lengths.items():
                batch |= _padded(name, [getattr(example, name) for example in examples], length)
            return batch

        super().__init__(
            make,
            start=start,
            fingerprint={"dataset": fingerprint, "seed": seed, "batch_size": config.batch_size},
            threads=config.threads,
            prefetch=config.prefetch,
        )


def _parts(total: int, count: int, rng: np.random.Generator) -> Int[np.ndarray, "count"]:
    """`total` as a sum of `count` numbers of at least 0, all such sums equally likely."""
    bars = np.sort(rng.choice(total + count - 1, count - 1, replace=False))
    return np.diff(np.concatenate([[-1], bars, [total + count - 1]])) - 1


def _padded(name: str, rows: Sequence[np.ndarray], length: int) -> dict[str, np.ndarray]:
    ids, mask = np.zeros((len(rows), length), np.int32), np.zeros((len(rows), length), bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)], mask[i, : len(row)] = row, True
    return {name: ids, f"{name}_mask": mask}
