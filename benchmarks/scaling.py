"""Scaling on paper: the xl train step from 8 to 4,096 v6e chips, by the compiler's figures, with nothing run.

    python benchmarks/scaling.py [--chips 8 256 512 ...] [--json FILE] [--chart docs/scaling.png]
    python benchmarks/scaling.py --from FILE --chart docs/scaling.png

Weak scaling keeps 8 pictures a chip, so that the batch grows with the chips; strong scaling keeps a batch of 4,096.
Up to 256 chips are one slice, more are slices of 16x16 joined by the data-center network. The roofline takes the
longest of compute, HBM, links and network, as if they overlapped wholly: what is printed is an upper bound of speed.
The last column is the same without any overlap of compute and communication, a lower one of a good schedule's.
"""

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from compile_matrix import AT_ONCE, compile_one
from scaling_chart import draw_chart

SLICES = {8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
SLICE = 256
CHIPS = (8, 32, 64, 128, 256, 512, 1024, 2048, 4096)
A_CHIP, FIXED = 8, 4096
HEADER = (
    "| scaling | chips | batch | HBM peak, GB | links, GB | network, GB | compute, ms | sending, ms | roofline, ms "
    "| bound | images/s/chip | without overlap |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|---|--:|--:|"
)


def jobs(chips: list[int]) -> list[tuple[str, int, int]]:
    """(kind, chips, batch)."""
    weak = [("weak", count, A_CHIP * count) for count in chips]
    return weak + [("strong", count, FIXED) for count in chips if SLICE <= count and count * A_CHIP != FIXED]


def figures(job: tuple[str, int, int]) -> dict:
    kind, chips, batch = job
    slices = max(chips // SLICE, 1)
    arguments = [
        "--config=configs/stage1.py",
        f"--config.data.batch_size={batch}",
        f"--config.mesh.fsdp={min(chips, 16)}",
        f"--slices={slices}",
    ]
    found = compile_one(f"v6e:{SLICES[chips // slices]}", arguments)
    return {"scaling": kind, "chips": chips, "batch": batch} | found


def row(found: dict) -> str:
    sent = dict(found["collective_bytes"])
    network = sum(value for name, value in sent.items() if "network" in name)
    links = sum(sent.values()) - network
    slowest = found["compute_seconds"] + found["interconnect_seconds"]
    alone = found["batch"] / slowest / found["chips"]
    return (
        f"| {found['scaling']} | {found['chips']:,} | {found['batch']:,} | {found['peak_hbm_bytes'] / 1e9:.1f} "
        f"| {links / 1e9:.2f} | {network / 1e9:.3f} | {found['compute_seconds'] * 1e3:.1f} "
        f"| {found['interconnect_seconds'] * 1e3:.1f} | {found['roofline_seconds'] * 1e3:.1f} | {found['bound']} "
        f"| {found['images_per_second_per_chip']:.0f} | {alone:.0f} |"
    )


def is_of(found: dict, kind: str) -> bool:
    """The point that both have belongs to both."""
    return found["scaling"] == kind or (kind == "strong" and found["batch"] == FIXED and found["chips"] >= SLICE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chips", nargs="+", type=int, default=list(CHIPS), choices=CHIPS)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument("--from", dest="known", type=Path, metavar="FILE", help="what --json wrote: compile nothing")
    parser.add_argument("--chart", type=Path, metavar="FILE")
    args = parser.parse_args()
    results = json.loads(args.known.read_text()) if args.known else []
    print(HEADER)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for found in results or pool.map(figures, jobs(args.chips)):
            print(row(found), flush=True)
            if not args.known:
                results.append(found)
                if args.json:
                    args.json.write_text(json.dumps(results, indent=1) + "\n")
    if args.chart:
        results.sort(key=lambda found: found["chips"])
        weak, strong = ([found for found in results if is_of(found, kind)] for kind in ("weak", "strong"))
        draw_chart(weak, strong, CHIPS, SLICE, args.chart)


if __name__ == "__main__":
    main()
