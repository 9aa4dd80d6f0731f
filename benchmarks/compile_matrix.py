"""Every config for every topology, by their real compilers: python benchmarks/compile_matrix.py [--quick] [--json]

Prints what each needs and how fast it could run; exit code 1 if one does not fit. `--quick` compiles each config for
the topology that it names. Stage 2 is compiled with its latents and captions from a cache, and for the topology that it
names also with all its encoders in the step, which takes ten minutes (not with `--quick`).
"""

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PODS = ("v5e:16x16", "v6e:16x16", "v5p:8x8x8", "tpu7x:4x4x4")
BOARDS = ("v5e:2x2", "v6e:2x2", "v5p:2x2x1", "tpu7x:2x2x1")
SMALL = ("quickstart", "stage1.py:quick", "stage2.py:quick", "autoencoder", "scene_reader", "t5", "eclip.py:quick")
# 1024 tokens of pictures, 512 of text, 256 of an image prompt.
STAGE_2 = ["--config=configs/stage2.py", "--cached", "--config.towers.t5_length=448"]
GPUS = "h100:8"
# Compilers that run beside one another.
AT_ONCE = 2
HEADER = (
    f"{'config':22} {'topology':12} {'HBM, GB':>14} {'traffic':>8} {'bound':>12} {'ms':>8} {'MFU':>6} "
    f"{'img/s/chip':>10} {'s':>6}"
)


def jobs(quick: bool) -> list[tuple[str, str, list[str]]]:
    """(name, topology, arguments)."""
    full, found = "--config=configs/stage1.py", []
    for pod in ("v6e:16x16",) if quick else PODS:
        found.append(("stage 1, xl", pod, [full]))
        found.append(("stage 2, xl, cached", pod, STAGE_2))
    for name in SMALL:
        file = name if ".py" in name else f"{name}.py"
        for board in ("v6e:2x2",) if quick else BOARDS:
            found.append((name, board, [f"--config=configs/{file}"]))
    if not quick:
        gpu = ["--attention=xla", "--config.mesh.fsdp=8", "--config.data.batch_size=64"]
        found.append(("stage 1, xl", GPUS, [full, *gpu]))
        found.append(("stage 2, xl, cached", GPUS, [*STAGE_2, *gpu[:2], "--config.data.batch_size=16"]))
        found.append(("stage 2, xl, encoders", "v6e:16x16", ["--config=configs/stage2.py", "--no-kernels"]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    failed, results, work = False, [], jobs(args.quick)
    if not args.json:
        print(HEADER)
    # A compiler keeps one core and a half busy.
    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        for (name, topology, _), found in zip(work, pool.map(lambda job: compile_one(*job[1:]), work)):
            failed |= not found["fits"]
            results.append({"name": name} | found)
            if not args.json:
                print(row(name, topology, found), flush=True)
    finally:
        # After a failure nothing more is begun.
        pool.shutdown(cancel_futures=True)
    if args.json:
        print(json.dumps(results))
    sys.exit(failed)


def compile_one(topology: str, arguments: list[str]) -> dict:
    """What `fooddit compile --json` says; the exit code is 1 where it does not fit."""
    command = [sys.executable, "-m", "fooddit", "compile", f"--topology={topology}", "--json", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode not in (0, 1) or not done.stdout:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def row(name: str, topology: str, found: dict) -> str:
    number = lambda value, scale, form: "-" if value is None else format(value * scale, form)  # noqa: E731
    memory = f"{number(found['peak_hbm_bytes'], 1e-9, '.1f')} of {number(found['capacity_bytes'], 1e-9, '.1f')}"
    return (
        f"{name:22} {topology:12} {memory:>14} {number(found['hbm_bytes'], 1e-9, '.1f'):>8} "
        f"{found['bound'] or '-':>12} "
        f"{number(found['roofline_seconds'], 1e3, '.1f'):>8} {number(found['mfu_bound'], 100, '.0f'):>5}% "
        f"{number(found['images_per_second_per_chip'], 1, '.1f'):>10} {number(found['compile_seconds'], 1, '.0f'):>6}"
        + ("" if found["fits"] else "  DOES NOT FIT")
    )


if __name__ == "__main__":
    main()
