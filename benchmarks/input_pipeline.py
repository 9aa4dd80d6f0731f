"""Pictures a second of the input pipeline, against three others on the same photos and the same two cores.

    FOODDIT_PHOTOS=DIR python benchmarks/input_pipeline.py [--rounds 5] [--seconds 5] [--records 4000]

DIR holds metadata.jsonl and images/. Each side decodes JPEGs, resizes them to cover 256 x 256, cuts a random square
out, mirrors half of them and gives uint8 batches (64, 256, 256, 3) in random order; the photos are repeated to
`--records`. A peer first tries 0, 1 and 2 worker processes (grain: threads) and keeps the best; then all sides run in
turn, round after round, each in a new process and warmed up; a ratio is the median of ours over the peer's in the same
round. Rows whose name begins with "also" are not peers but parts: they say what comes from the decoding and what from
the pipeline. The peers are in input_peers.py.
"""

import argparse
import concurrent.futures
import functools
import json
import multiprocessing
import operator
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

# Before what starts threads: each side gets these two cores, workers included.
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
os.environ.update(OMP_NUM_THREADS="1", TF_CPP_MIN_LOG_LEVEL="3")

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import simplejpeg  # noqa: E402
import torch  # noqa: E402
from input_peers import (  # noqa: E402
    BATCH,
    SIZE,
    tfds_grain,
    tfds_loader,
    webdataset,
    with_fooddit,
    with_pillow,
    with_simplejpeg,
    with_torch,
    write_tars,
    write_tfds,
)
from PIL import Image  # noqa: E402

from fooddit.data.captions import Caption  # noqa: E402
from fooddit.data.images import decode_image, fit_image  # noqa: E402
from fooddit.data.pipeline import Batches, DataConfig, TextInput, open_dataset  # noqa: E402
from fooddit.data.records import Record, RecordWriter, write_manifest  # noqa: E402

# Batches drawn before the clock starts: more than any side keeps ready, so that none is timed emptying its buffer.
WARM = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each side in each round")
    parser.add_argument("--records", type=int, default=4000)
    arguments = parser.parse_args()
    photos = load_photos()
    with tempfile.TemporaryDirectory() as folder:
        stored = [photos[i % len(photos)] for i in range(arguments.records)]
        sides = make_sides(Path(folder), stored)
        chosen = {name: tune(make, counts) for name, (make, counts) in sides.items()}
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(arguments.rounds):
            for name, (make, _) in sides.items():
                rates[name].append(measure(make, chosen[name], arguments.seconds))
    report(rates, chosen)
    print(f"pixels against a full decode and Pillow's antialiased bicubic: {fidelity(photos)}")


def load_photos() -> list[bytes]:
    """The JPEGs of FOODDIT_PHOTOS whose shorter side is at least SIZE, as files."""
    folder = os.environ.get("FOODDIT_PHOTOS")
    if not folder or not (Path(folder) / "metadata.jsonl").is_file():
        print(f"input_pipeline: FOODDIT_PHOTOS is {folder!r}; give a folder with metadata.jsonl and photos of dishes")
        sys.exit(2)
    rows = map(json.loads, (Path(folder) / "metadata.jsonl").read_text(encoding="utf-8").splitlines())
    files = [(Path(folder) / row["file_name"]).read_bytes() for row in rows]
    return [data for data in files if data[:3] == b"\xff\xd8\xff" and min(image_size(data)) >= SIZE]


def image_size(data: bytes) -> tuple[int, int]:
    return simplejpeg.decode_jpeg_header(data)[:2]


def measure(make: Callable[[int], Iterator], count: int, seconds: float) -> float:
    """Pictures a second, once warm, in a process of its own: no side inherits another's threads or memory."""
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(draw, make, count, seconds).result()


def draw(make: Callable[[int], Iterator], count: int, seconds: float) -> float:
    batches = make(count)
    try:
        for _ in range(WARM):
            batch = next(batches)
        if tuple(batch.shape) != (BATCH, SIZE, SIZE, 3) or "uint8" not in str(batch.dtype):
            raise ValueError(f"a batch of shape {batch.shape} and type {batch.dtype}: the sides do not do the same")
        began, drawn = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - began) < seconds:
            next(batches)
            drawn += BATCH
        return drawn / elapsed
    finally:
        batches.close()


def tune(make: Callable[[int], Iterator], counts: tuple[int, ...]) -> int:
    """The number of workers or threads that is fastest."""
    return max(counts, key=lambda count: measure(make, count, 2.0)) if len(counts) > 1 else counts[0]


def make_sides(folder: Path, stored: list[bytes]) -> dict[str, tuple[Callable[[int], Iterator], tuple[int, ...]]]:
    """Name to (workers -> batches, the numbers of workers to try)."""
    records, tars, tfds = write_records(folder, stored), write_tars(folder, stored), write_tfds(folder, stored)
    workers = (0, 1, 2)
    return {
        "fooddit": (functools.partial(ours, records), (DataConfig.threads,)),
        "fooddit, best thread count": (functools.partial(ours, records), (1, 2, 3, 4)),
        "webdataset + DataLoader, Pillow": (functools.partial(webdataset, tars, with_pillow), workers),
        "webdataset + DataLoader, simplejpeg + OpenCV": (functools.partial(webdataset, tars, with_simplejpeg), workers),
        "webdataset + DataLoader, simplejpeg + torch": (functools.partial(webdataset, tars, with_torch), workers),
        "TFDS + DataLoader": (functools.partial(tfds_loader, tfds), workers),
        "TFDS + grain": (functools.partial(tfds_grain, tfds), (1, 2, 4)),
        "also: webdataset + DataLoader, Pillow with draft()": (
            functools.partial(webdataset, tars, functools.partial(with_pillow, draft=True)),
            workers,
        ),
        "also: webdataset + DataLoader, fooddit's decode_image and fit_image": (
            functools.partial(webdataset, tars, with_fooddit),
            workers,
        ),
    }


def write_records(folder: Path, stored: list[bytes]) -> Path:
    (folder / "records").mkdir()
    writers = {split: RecordWriter(folder / "records", split) for split in ("train", "holdout")}
    for i, data in enumerate(stored):
        height, width = image_size(data)
        captions = (Caption("a dish", "short", "en"), Caption("a dish on a table", "dense", "en"))
        writers["train"].write(Record(str(i), str(i), i, data, width, height, captions), dish=i, twin=i)
    write_manifest(folder / "records", "photos", {split: writer.close() for split, writer in writers.items()})
    return folder / "records"


def ours(records: Path, threads: int) -> Iterator[np.ndarray]:
    config = DataConfig(source=str(records), batch_size=BATCH, image_size=SIZE, flip=True, threads=threads)
    tokens = np.zeros(48, np.int32), np.ones(48, bool)
    tokenizers = {"text": TextInput(lambda text: tokens, 48)}
    batches = Batches(open_dataset(records, "train"), config, seed=0, tokenizers=tokenizers)
    try:
        while True:
            yield next(batches)["image"]
    finally:
        batches.close()


def report(rates: dict[str, list[float]], chosen: dict[str, int]) -> None:
    medians = {name: statistics.median(values) for name, values in rates.items()}
    packages = ("torch", "webdataset", "tensorflow-datasets", "grain", "pillow", "simplejpeg", "opencv-python-headless")
    print("input pipeline, 256 px, two cores;", ", ".join(f"{package} {version(package)}" for package in packages))
    for name, values in rates.items():
        print(
            f"{name:68} {medians[name]:7.0f} pictures/s  (rounds {', '.join(f'{v:.0f}' for v in values)}; "
            f"{chosen[name]} {'threads' if 'fooddit' == name[:7] or 'grain' in name else 'workers'})"
        )
    # Within a round, then the median: what slows the machine for minutes slows both.
    ratios = {name: statistics.median(map(operator.truediv, rates["fooddit"], rates[name])) for name in rates}
    peers = [name for name in rates if not name.startswith(("fooddit", "also"))]
    best = min(peers, key=ratios.get)
    print(f"ratio fooddit / best peer ({best}): {ratios[best]:.2f}")
    for name in rates:
        if name != "fooddit":
            print(f"  to {name}: {ratios[name]:.2f}")


def fidelity(photos: list[bytes]) -> str:
    """Mean PSNR of each way to shrink, the middle square, against Pillow's bicubic of the fully decoded picture."""
    sums: dict[str, list[float]] = {}
    for data in photos[::4]:
        whole = simplejpeg.decode_jpeg(data, "RGB")
        side = min(whole.shape[:2])
        top, left = ((extent - side + 1) // 2 for extent in whole.shape[:2])
        cut = np.ascontiguousarray(whole[top : top + side, left : left + side])
        wanted = np.asarray(Image.fromarray(cut).resize((SIZE, SIZE), Image.Resampling.BICUBIC)).astype(np.float32)
        tensor = torch.from_numpy(cut).permute(2, 0, 1)[None]
        tensor = torch.nn.functional.interpolate(tensor, (SIZE, SIZE), mode="bilinear", antialias=True)
        found = {
            "fooddit": fit_image(decode_image(data, min_height=SIZE, min_width=SIZE), SIZE, SIZE),
            "OpenCV INTER_AREA": cv2.resize(cut, (SIZE, SIZE), interpolation=cv2.INTER_AREA),
            "Pillow bilinear": np.asarray(Image.fromarray(cut).resize((SIZE, SIZE), Image.Resampling.BILINEAR)),
            "torch bilinear": tensor[0].permute(1, 2, 0).numpy(),
        }
        for name, image in found.items():
            error = np.mean((image - wanted) ** 2)
            sums.setdefault(name, []).append(10 * np.log10(255**2 / max(error, 1e-6)))
    return ", ".join(f"{name} {np.mean(values):.1f} dB" for name, values in sums.items())


if __name__ == "__main__":
    main()
