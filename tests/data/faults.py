"""Random faults in the files of a dataset, and the one rule for all of them: a wrong record is never read.

`faults_found` is also for long runs: python -m tests.data.faults COUNT SEED.
"""

import collections
import random
import sys
import tempfile
from pathlib import Path

from fooddit.data.manifest import SPLITS
from fooddit.data.records import Record, RecordError, encode_record, open_dataset
from tests.data.made import dataset, record

REGIONS = ("record", "between records", "file header", "footer", "padding", "index", "manifest")


def faults_found(folder: Path, count: int, seed: int, kind: str) -> collections.Counter:
    """Injects faults of a kind ("flip", "truncate") into a whole dataset folder, one at a time, each mended after.

    Returns how many of each (place, outcome) there were; asserts the rule at every one. Flips go round all REGIONS.
    """
    expected = {split: list(open_dataset(folder, split)) for split in SPLITS}
    rng, outcomes = random.Random(seed), collections.Counter()
    files = sorted(path for path in folder.iterdir() if path.suffix in (".array_record", ".npy", ".json"))
    places = {region: _places(files, region, expected) for region in REGIONS} if kind == "flip" else {}
    for number in range(count):
        if kind == "flip":
            region = REGIONS[number % len(REGIONS)]
            path, at = rng.choice(places[region])
        else:
            path = files[number % len(files)]
            region, at = f"{path.suffix[1:]} cut short", rng.randrange(path.stat().st_size)
        before = path.read_bytes()
        if kind == "flip":
            path.write_bytes(before[:at] + bytes([before[at] ^ 1 << rng.randrange(8)]) + before[at + 1 :])
        else:
            path.write_bytes(before[:at])
        outcomes[region, _outcome(folder, expected)] += 1
        path.write_bytes(before)
    assert _outcome(folder, expected) == "no effect"
    return outcomes


def _outcome(folder: Path, expected: dict[str, list[Record]]) -> str:
    """What a reader makes of the folder: refused, so many records left out, or every record as it was."""
    lost = 0
    try:
        datasets = [open_dataset(folder, split) for split in SPLITS]
    except RecordError as error:
        assert str(folder) in str(error)
        return "refused"
    for found in datasets:
        for number, (read, whole) in enumerate(
            zip(found.read_whole(range(len(found))), expected[found.split], strict=True)
        ):
            assert read == whole or read is None and number in found.damage, (folder, found.split, number)
        lost += len(found.damage)
        assert len(list(found)) == len(found) - len(found.damage)
    return {0: "no effect", 1: "one record"}.get(lost, "a shard")


def _places(files: list[Path], region: str, expected: dict[str, list[Record]]) -> list[tuple[Path, int]]:
    """Every byte of a region of a dataset's files."""
    if region in ("index", "manifest"):
        suffix = ".npy" if region == "index" else ".json"
        return [(path, at) for path in files if path.suffix == suffix for at in range(path.stat().st_size)]
    places = []
    for path in files:
        if path.suffix != ".array_record":
            continue
        data, split = path.read_bytes(), path.name.partition("-")[0]
        encoded = [encode_record(record) for record in expected[split]]
        # A record that one of the format's block headers cuts in two is not found in one piece.
        spans = sorted((start, start + len(record)) for record in encoded if (start := data.find(record)) >= 0)
        end = spans[-1][1]
        last = len(data.rstrip(b"\0"))
        # The first 64 bytes are the format's signature; the first chunk's header follows.
        parts = {
            "record": [range(*span) for span in spans],
            "between records": [range(64, spans[0][0]), *(range(a[1], b[0]) for a, b in zip(spans, spans[1:]))],
            "file header": [range(64)],
            "footer": [[at for at in range(end, last) if data[at]]],
            "padding": [[at for at in range(end, len(data)) if not data[at]]],
        }
        places += [(path, at) for part in parts[region] for at in part]
    return places


def made_dataset(folder: Path) -> Path:
    """Several shards a split, records of several shapes."""
    sizes = [(32, 32), (48, 32), (32, 48), (80, 40), (40, 40)]
    dataset(folder, [record(i, *sizes[i % 5]) for i in range(60)], [record(i) for i in range(60, 72)], 60000)
    return folder


def main(count: int, seed: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = made_dataset(Path(scratch) / "records")
        for kind in ("flip", "truncate"):
            found = faults_found(folder, count, seed, kind)
            for (place, outcome), times in sorted(found.items()):
                print(f"{kind:9} {place:24} {outcome:11} {times:6}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
