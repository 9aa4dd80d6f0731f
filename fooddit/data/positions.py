"""Endless batches as a function of their position, made ahead by threads: one integer is all there is to resume."""

from collections.abc import Callable, Iterator

import grain
import numpy as np


class PositionBatches(Iterator[dict[str, np.ndarray]]):
    """Batches make(start), make(start + 1), ...; `position` counts those drawn, `close` ends the threads.

    `make` is called from several threads and must be pure. `fingerprint` says what a position is a position in; a
    checkpoint keeps both. `damaged` counts records that were left out; what is made here has none.
    """

    damaged = 0

    def __init__(
        self,
        make: Callable[[int], dict[str, np.ndarray]],
        *,
        start: int,
        fingerprint: dict,
        threads: int,
        prefetch: int,
    ):
        self.position, self.fingerprint = start, fingerprint
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(prefetch, threads))
        self._batches = iter(grain.MapDataset.range(start, 1 << 60).map(make).to_iter_dataset(read_options=options))

    def __next__(self) -> dict[str, np.ndarray]:
        batch = next(self._batches)
        self.position += 1
        return batch

    def close(self) -> None:
        """Ends the threads; no batch can be drawn after."""
        self._batches.close()
