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


def chart(results: list[dict], path: Path) -> None:
    """Images a second a chip over chips: the roofline, and what no overlap would leave of it."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.2), sharex=True)
    for kind, color in (("weak", "#1d6f8a"), ("strong", "#c8553d")):
        rows = sorted((r for r in results if _is(r, kind)), key=lambda r: r["chips"])
        chips = [r["chips"] for r in rows]
        label = f"{A_CHIP} pictures a chip" if kind == "weak" else f"a batch of {FIXED:,}"
        axes[0].plot(chips, [r["images_per_second_per_chip"] for r in rows], "o-", color=color, label=label)
        alone = [r["batch"] / (r["compute_seconds"] + r["interconnect_seconds"]) / r["chips"] for r in rows]
        axes[0].plot(chips, alone, "o:", color=color, label=f"{label}, nothing overlapped")
        axes[1].plot(chips, [r["compute_seconds"] * 1e3 for r in rows], "o-", color=color, label=f"{label}: compute")
        axes[1].plot(chips, [r["interconnect_seconds"] * 1e3 for r in rows], "s--", color=color,
                     label=f"{label}: links and network")  # fmt: skip
    for axis in axes:
        axis.axvline(SLICE, color="#999999", linewidth=0.8)
        axis.set_xscale("log", base=2)
        axis.set_xticks(CHIPS, [f"{count:,}" for count in CHIPS], rotation=45)
        axis.set_ylim(bottom=0)
        axis.set_xlabel("v6e chips (beyond the line: slices of 16x16)")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("images/s/chip, at most")
    axes[1].set_ylabel("milliseconds a step")
    axes[0].legend(frameon=False, fontsize=8, loc="lower left")
    axes[1].legend(frameon=False, fontsize=8)
    figure.suptitle("The xl train step of stage 1, by the compiler's figures", fontsize=11)
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def _is(found: dict, kind: str) -> bool:
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
        chart(results, args.chart)


if __name__ == "__main__":
    main()
