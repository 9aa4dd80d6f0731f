"""The records of a split that cannot be used: each named once, and counted."""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass

from fooddit.data.manifest import RecordError

# A shard of garbage must not fill a log; what comes after so many is only counted.
_NAMED = 1000


@dataclass(frozen=True)
class Damage:
    """`numbers`: a single record, or all of a shard; `where`: file and place; `id`: of the record, if known."""

    numbers: range
    where: str
    why: str
    id: str = ""

    def __str__(self) -> str:
        return f"{self.where}{f' ({self.id})' if self.id else ''}: {self.why}"


class DamageLog:
    """What was found damaged or missing in a split; `len` counts records. Safe to use from several threads.

    A new one is a line on stderr, once; so one look at a record is enough for everybody who reads the same dataset.
    """

    def __init__(self, name: str, advice: str):
        """`name`: of the dataset and split, `advice`: what to do about it."""
        self._name, self._advice = name, advice
        self._lock = threading.Lock()
        self._records: dict[int, Damage] = {}
        self._shards: list[Damage] = []
        self._lost = 0

    def __len__(self) -> int:
        return len(self._records) + self._lost

    def __contains__(self, number: int) -> bool:
        return self.get(number) is not None

    def get(self, number: int) -> Damage | None:
        """What is known to be wrong with a record."""
        if number in self._records:
            return self._records[number]
        return next((shard for shard in self._shards if number in shard.numbers), None)

    def add(self, damage: Damage) -> None:
        with self._lock:
            if damage.numbers.start in self:
                return
            if len(damage.numbers) == 1:
                self._records[damage.numbers.start] = damage
            else:
                self._shards.append(damage)
                self._lost += len(damage.numbers)
            named = len(self._records) + len(self._shards)
            if named <= _NAMED:
                print(f"damaged: {self._name}: {damage}; left out", file=sys.stderr, flush=True)
            if named == _NAMED:
                print(f"damaged: {self._name}: any more are counted, not named", file=sys.stderr, flush=True)

    def check(self, limit: int) -> None:
        """Raises RecordError if more than `limit` records are damaged or missing."""
        with self._lock:
            if len(self) <= limit:
                return
            known = [*self._shards, *self._records.values()]
            lines = "\n  ".join(map(str, known[:5]))
            more = f"\n  and {len(known) - 5} more" if len(known) > 5 else ""
        raise RecordError(
            f"{self._name}: {len(self):,} records are damaged or missing, more than config.data.max_damaged={limit}:\n"
            f"  {lines}{more}\n{self._advice}, or raise config.data.max_damaged to train without them"
        )
