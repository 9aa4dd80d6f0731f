"""What a training run reads, and how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from fooddit.data.buckets import bucket_table
from fooddit.data.records import Dataset
from fooddit.data.references import REFERENCES, reference_share


@dataclass(frozen=True)
class DataConfig:
    """Settings of the input pipeline.

    source: a folder that `fooddit prepare` wrote. batch_size: global, over all hosts. image_size: the side of the
    square that sets the token count; grid: the side of one token in pixels; max_aspect: 1 for squares only, else
    buckets of other aspects with the same token count. flip: mirror half of the pictures; off, since captions may say
    left and right. short, dense, dropped: odds of the caption styles and of none. reference_size: the side of the
    square reference picture that comes with each example; 0: none. references: "other", another picture of the dish
    that is no near-duplicate, where there is one; "same", the target itself, which teaches to copy (the control of an
    experiment). features: a folder that `fooddit prepare --cache` wrote: what it holds is read instead of computed; ""
    is none. threads: decoding threads. prefetch: batches kept ready. max_damaged: records that may be damaged or
    missing, for each process; others of the same shape take their place. cache: where the files of a source such as
    gs://bucket/records are copied to; "" is a folder of the user's.
    """

    source: str = field(metadata={"operational": True})
    batch_size: int
    image_size: int = 64
    grid: int = 8
    max_aspect: float = 1.0
    flip: bool = False
    short: float = 0.3
    dense: float = 0.6
    dropped: float = 0.1
    reference_size: int = 0
    references: str = "other"
    features: str = field(default="", metadata={"operational": True})
    threads: int = field(default=2, metadata={"operational": True})
    prefetch: int = field(default=4, metadata={"operational": True})
    max_damaged: int = field(default=16, metadata={"operational": True})
    cache: str = field(default="", metadata={"operational": True})

    def __post_init__(self):
        odds = (self.short, self.dense, self.dropped)
        if min(odds) < 0 or abs(sum(odds) - 1) > 1e-6:
            raise ValueError(f"data.short, data.dense, data.dropped are {odds}: expected odds that sum to 1")
        for name in ("batch_size", "threads", "prefetch"):
            if getattr(self, name) < 1:
                raise ValueError(f"data.{name} is {getattr(self, name)}: expected at least 1")
        if self.max_damaged < 0:
            raise ValueError(f"data.max_damaged is {self.max_damaged}: expected at least 0 (none may be damaged)")
        if self.reference_size < 0:
            raise ValueError(f"data.reference_size is {self.reference_size}: expected a side in pixels, or 0 for none")
        if self.references not in REFERENCES:
            raise ValueError(f"data.references is {self.references!r}: expected one of {', '.join(REFERENCES)}")
        bucket_table(self.image_size, self.grid, self.max_aspect)


def doubts(dataset: Dataset, config: DataConfig) -> list[str]:
    """What works, but is hardly meant: pictures that are enlarged, a batch that holds a picture twice."""
    found, count = [], len(dataset)
    if config.batch_size > count:
        found.append(f"config.data.batch_size {config.batch_size} is more than all {count} pictures: it repeats some")
    # No bucket has a shorter side.
    shortest = config.image_size / config.max_aspect**0.5
    enlarged = int((dataset.sizes.min(axis=1) < shortest).sum())
    if enlarged * 10 > count:
        size = f"config.data.image_size {config.image_size}"
        found.append(f"{enlarged} of {count} pictures are smaller than {size} and are enlarged")
    if config.reference_size and config.references == "other" and (share := reference_share(dataset)) < 0.5:
        found.append(
            f"{round(share * count)} of {count} pictures have another one of their dish; the others come without a "
            "reference picture (config.data.reference_size)"
        )
    return found


class TextInput(NamedTuple):
    """How a text tower reads captions: text to ids int32 (length,) and mask bool (length,). "" is no caption.

    An encoder that has these two attributes will do in its place.
    """

    tokenize: Callable[[str], tuple[np.ndarray, np.ndarray]]
    length: int
