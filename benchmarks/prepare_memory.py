"""Peak memory of `fooddit prepare` on 1,000 and on 10,000 photos: python benchmarks/prepare_memory.py

Photos of 320 x 240 are made by code, one dish each, and prepared in a process of its own; what is measured is that
process's peak resident memory. The aim is a ratio of 1: what is kept for a row are a few hundred bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from fooddit.data.images import encode_jpeg


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs=2, default=(1_000, 10_000), metavar=("FEW", "MANY"))
    arguments = parser.parse_args()
    few, many = arguments.rows
    with tempfile.TemporaryDirectory() as folder:
        make_photos(Path(folder) / "photos", many)
        # Twice each: the first run of all warms up what the others find warm.
        peaks = {count: min(measure(Path(folder), count) for _ in range(2)) for count in (few, many)}
    grown = (peaks[many] - peaks[few]) / (many - few)
    for count, peak in peaks.items():
        print(f"{count:>7,} rows: {peak / 1e6:6.1f} MB at the peak")
    print(f"ratio {peaks[many] / peaks[few]:.3f}, {grown:,.0f} bytes a row")


def make_photos(folder: Path, count: int) -> None:
    """JPEGs of smooth noise, all of them different, without metadata."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        cells = rng.integers(0, 256, (12, 16, 3), np.uint8)
        photo = cv2.resize(cells, (320, 240), interpolation=cv2.INTER_CUBIC)
        (folder / f"{number:06d}.jpg").write_bytes(encode_jpeg(photo, 90))


def measure(folder: Path, count: int) -> int:
    """The peak in bytes of a `fooddit prepare` of the first `count` photos."""
    rows = ({"file_name": f"{n:06d}.jpg", "title": f"dish {n}", "category": "made"} for n in range(count))
    (folder / "photos/metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    out = folder / f"records-{count}-{time.monotonic_ns()}"
    command = [sys.executable, "-m", "fooddit", "prepare", str(folder / "photos"), str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)}: exit status {status}")
    return usage.ru_maxrss * 1024


if __name__ == "__main__":
    main()
