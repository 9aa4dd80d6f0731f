"""The fused kernels against plain XLA attention in xl's whole train step, by the TPU compiler:
python benchmarks/attention_peer.py [--topology v6e:16x16] [--json]

The model of stage 2 (512 tokens of text, 256 of an image prompt) at 1024 and 4096 tokens, forward, backward and update,
compiled by the same command with `--attention=auto` and `--attention=xla`. Prints HBM peak, bytes to and from HBM, and
the roofline's time for both, and plain over fused. Plain attention's time supposes products at the chip's peak; ours
counts the kernels' static cycles.
"""

import argparse
import json

from compile_matrix import STAGE_2, compile_one

# Tokens: side of the pictures in pixels (a token is 16 x 16), and pictures a step.
SHAPES = {1024: (512, 512), 4096: (1024, 256)}
FIGURES = {"peak_hbm_bytes": ("HBM peak, GB", 1e-9), "hbm_bytes": ("traffic, GB", 1e-9)}
FIGURES |= {"roofline_seconds": ("roofline, ms", 1e3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--topology", default="v6e:16x16")
    parser.add_argument("--tokens", type=int, nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    results = []
    for tokens in args.tokens:
        size, batch = SHAPES[tokens]
        flags = [*STAGE_2, f"--config.data.image_size={size}", f"--config.data.batch_size={batch}"]
        found = {name: compile_one(args.topology, [f"--attention={name}", *flags]) for name in ("auto", "xla")}
        results.append({"tokens": tokens, "fused": found["auto"], "plain": found["xla"]})
        if not args.json:
            print(f"{tokens} tokens, {batch} pictures a step, {args.topology}", flush=True)
            for key, (name, scale) in FIGURES.items():
                ours, plain = (found[kind][key] for kind in ("auto", "xla"))
                print(row(name, scale, ours, plain), flush=True)
    if args.json:
        print(json.dumps(results))


def row(name: str, scale: float, ours: float | None, plain: float | None) -> str:
    """One figure of both; a program that does not fit has no traffic and no time."""
    told = ["does not fit" if value is None else f"{value * scale:.2f}" for value in (ours, plain)]
    ratio = "" if ours is None or plain is None else f", {plain / ours:.2f} times ours"
    return f"  {name:14} fused {told[0]}, plain {told[1]}{ratio}"


if __name__ == "__main__":
    main()
