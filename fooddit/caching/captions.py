"""Features of a dataset's captions by a frozen text tower: one of the dataset's shards at a time, each text once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from fooddit.caching.stream_writer import StreamWriter
from fooddit.data.records import Dataset


class CaptionEncoder(NamedTuple):
    """A text tower on the devices.

    tokenize: text to ids int32 (length,) and mask bool (length,). features: ids and masks (batch_size, length) to
    (batch_size, length, width) and, if the tower has it, a vector (batch_size, width) a caption, else None.
    """

    tokenize: Callable[[str], tuple[np.ndarray, np.ndarray]]
    features: Callable[[np.ndarray, np.ndarray], tuple[jax.Array, jax.Array | None]]
    batch_size: int


def write_captions(
    tokens: StreamWriter, pooled: StreamWriter | None, dataset: Dataset, number: int, encoder: CaptionEncoder
) -> None:
    """Writes what a tower makes of the captions in the dataset's shard `number`: vectors of tokens, none of padding,
    and the caption's own vector where there is one. They have the type that the tower gives: nothing is rounded."""
    texts = [[c.text for c in record.captions] if record else [] for record in _records(dataset, number)]
    numbers = {text: i for i, text in enumerate(dict.fromkeys(itertools.chain.from_iterable(texts)))}
    items = [[numbers[text] for text in captions] for captions in texts]
    # What is written in order of `numbers` has its number in the shard.
    with tokens.shard(dataset.split, number) as token_shard:
        if pooled is None:
            for found, _ in _features(encoder, [*numbers]):
                token_shard.add(found)
            token_shard.close(items)
            return
        with pooled.shard(dataset.split, number) as pooled_shard:
            for found, vector in _features(encoder, [*numbers]):
                token_shard.add(found)
                pooled_shard.add(vector[None, None])
            pooled_shard.close(items)
        # Last: where the tokens are, the vectors are too.
        token_shard.close(items)


def _records(dataset: Dataset, number: int):
    numbers = dataset.shards[number]
    for start in range(0, len(numbers), 64):
        yield from dataset.read_whole(numbers[start : start + 64])


def _features(encoder: CaptionEncoder, texts: Sequence[str]) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Of each text (tokens, 1, width), and its vector (width,)."""
    for start in range(0, len(texts), encoder.batch_size):
        part = list(texts[start : start + encoder.batch_size])
        filled = part + part[:1] * (encoder.batch_size - len(part))
        ids, masks = map(np.stack, zip(*map(encoder.tokenize, filled), strict=True))
        features, pooled = encoder.features(ids, masks)
        features = np.asarray(features)
        vectors = [None] * len(filled) if pooled is None else np.asarray(pooled)
        for text, mask, found, vector in zip(part, masks, features, vectors, strict=False):
            kept = found[mask]
            if not np.isfinite(kept.astype(np.float32)).all():
                raise ValueError(f"caption {text!r}: features that are no finite numbers; compute them in float32")
            yield kept[:, None], vector
