"""Pictures and datasets made by code, for the tests of data."""

import numpy as np

from fooddit.data.captions import Caption
from fooddit.data.images import encode_jpeg, encode_png
from fooddit.data.records import Record, RecordWriter, write_manifest


def picture(seed, width=64, height=64):
    """A smooth random picture: uint8 (height, width, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    waves = [np.sin(2 * np.pi * (rng.uniform(-3, 3) * x + rng.uniform(-3, 3) * y + rng.random())) for _ in range(9)]
    channels = [sum(waves[3 * c : 3 * c + 3]) for c in range(3)]
    return (127.5 + 42 * np.stack(channels, -1)).astype(np.uint8)


def jpeg(seed, width=64, height=64, quality=92):
    return encode_jpeg(picture(seed, width, height), quality)


def record(index, width=32, height=32):
    captions = (
        Caption(f"dish {index}", "short", "en"),
        Caption(f"a dense text about dish {index}", "dense", "en"),
        Caption(f"第{index}道菜", "dense", "zh"),
    )
    return Record(
        f"r{index}", f"d{index}", index, encode_png(picture(index, width, height)), width, height, captions, "dish"
    )


def dataset(folder, records, holdout=(), shard_bytes=256 << 20, dishes=None):
    """Writes a dataset folder and returns its fingerprint. `dishes`: (dish, twin) of each record of the first split."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = {}
    for split, rows in (("train", records), ("holdout", holdout)):
        writer = RecordWriter(folder, split, shard_bytes)
        for number, row in enumerate(rows):
            dish, twin = dishes[number] if dishes and split == "train" else (number, number)
            writer.write(row, dish=dish, twin=twin)
        entries[split] = writer.close()
    return write_manifest(folder, "made", entries)
