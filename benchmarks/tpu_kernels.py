"""Cycles of our attention kernel and of jax's two on TPUs that are not there, from the schedules the compiler makes.

    python benchmarks/tpu_kernels.py [--generation v6e ...] [--tokens 1024 4096] [--quick] [--sweep] [--json]

Self-attention of batch 4, 16 heads, head_dim 128, bfloat16, without a mask. Each kernel is compiled for a real topology
in a process of its own, into a dump of its own; nothing is run. Ours takes (batch, tokens, heads * head_dim) and does
QK-norm and RoPE inside; the peers, jax.experimental.pallas.ops.tpu's flash_attention and splash_attention, get arrays
in their own (batch, heads, tokens, head_dim) and no scale on the logits (it rides on a gain), at the blocks that suit
them best. What XLA needs for the norm, the rotation and the transposes that they need besides is printed apart, as is
what it does around their backward passes; the ratios leave both out.

Cycles follow the branches of the schedule and leave waits for memory out: read them beside the bytes. Next to them,
lower..upper: where blocks guarded by data (splash_attention's mask) never run, and where every bundle runs in every
trip. `useful` is the part of the matrix units' cycles that the forward pass's two products, or the backward pass's
five, must take. Spills and fills are those in the schedule's text. Bytes are of the arrays that the kernel takes and
gives, each counted once.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path

from tpu_kernel_programs import BATCH, HEAD_DIM, HEADS, TOPOLOGIES

from fooddit.aot.schedule import Schedule, ScheduleError, compiler_environment, find_kernels, read_schedule

BLOCKS = (512, 1024, 2048)
# Where one program runs on two cores they share a kernel's grid, and cycles and slots are of one of them.
CORES = {"v6e": 1, "v5e": 1, "v5p": 2, "tpu7x": 1}
# Fewest cycles that a bfloat16 product of 128 x 128 x 128 holds one matrix unit: where the sum is over head_dim, and
# where it is over tokens. As the schedules of plain products have it, and the published peaks (197, 459 and 918 TFLOP/s
# of v5e, v5p and v6e): an instruction multiplies 16 rows, in 16 cycles on v5e's and v5p's units of 128 x 128, in 8 on
# v6e's and tpu7x's of 256 x 256. Of these a sum over head_dim 128 fills half; one over tokens fills all if head_dim is
# the rows.
PRODUCT_CYCLES = {"v6e": (32, 16), "v5e": (128, 128), "v5p": (128, 128), "tpu7x": (32, 16)}
# How many such products of all queries with all keys a task must make.
PRODUCTS = {"forward": (1, 1), "forward for training": (1, 1), "backward": (2, 3)}
# Most that our cycles may be of the best peer's, by tokens; what we aim at.
BOUNDS, AIM = {1024: 1.1, 4096: 1.0}, 0.8
# Seconds for one program: some blocks send the compiler on an endless search.
LONGEST = 900
PROGRAMS = Path(__file__).with_name("tpu_kernel_programs.py")
MISSING = "libtpu, the TPU compiler, is not installed: pip install libtpu==0.0.52"


@dataclass
class Row:
    """A kernel, or the several that a backward pass is made of, at its best blocks; cycles and bytes are sums."""

    name: str
    task: str
    blocks: str
    cycles: int
    cycles_lower: int
    cycles_upper: int
    useful: float
    spills_and_fills: int
    bytes: int
    # By name, (bundles, trips).
    kernels: dict[str, tuple[int, int]] = field(default_factory=dict)
    ratio: float | None = None
    judged: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generation", nargs="+", default=list(TOPOLOGIES), choices=TOPOLOGIES)
    parser.add_argument("--tokens", nargs="+", type=int, default=[1024, 4096])
    parser.add_argument("--quick", action="store_true", help="peers with square blocks only")
    parser.add_argument("--sweep", action="store_true", help="only ours, at all block sizes: which is best")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    arguments = parser.parse_args()
    if importlib.util.find_spec("libtpu") is None:
        print(MISSING, file=sys.stderr)
        sys.exit(2)
    results = []
    for generation, tokens in product(arguments.generation, arguments.tokens):
        result = sweep(generation, tokens) if arguments.sweep else compare(generation, tokens, arguments.quick)
        results.append(result)
        if not arguments.json:
            print_sweep(result) if arguments.sweep else print_comparison(result)
    if arguments.json:
        print(json.dumps(results, indent=2))
    elif arguments.sweep:
        print_best(results)


def compare(generation: str, tokens: int, quick: bool) -> dict:
    """Everything of one generation and length."""
    blocks = [size for size in BLOCKS if tokens % size == 0] or [tokens]
    pairs = [(q, kv) for q, kv in product(blocks, blocks) if not quick or q == kv]
    jobs = [{"kernel": "ours", "task": "forward"}, {"kernel": "ours", "task": "backward"}]
    jobs += [{"kernel": "around", "task": task} for task in ("forward", "backward")]
    jobs += [{"kernel": peer, "task": "both", "blocks": pair} for peer in ("flash", "splash") for pair in pairs]
    jobs = [{"generation": generation, "tokens": tokens, **job} for job in jobs]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        outcomes = list(pool.map(compile_apart, jobs))
    rows, failures = [], []
    for job, outcome in zip(jobs, outcomes):
        if "error" in outcome:
            failures.append({"job": job, "error": outcome["error"]})
    for task in PRODUCTS:
        peers = [best(peer, task, jobs, outcomes) for peer in ("flash", "splash")]
        ours = our_rows(task, jobs, outcomes)
        peers = [row for row in peers if row]
        for row in ours if peers else []:
            row.ratio = row.cycles / min(peer.cycles for peer in peers)
            row.judged = judge(row.ratio, tokens)
        rows += ours + peers
    beside = [beside_row(job, outcome) for job, outcome in zip(jobs, outcomes)
              if "error" not in outcome and job["kernel"] == "around"]  # fmt: skip
    beside += backward_beside(rows, jobs, outcomes)
    return {"generation": generation, "tokens": tokens, "rows": [asdict(row) for row in rows], "beside": beside,
            "failures": failures}  # fmt: skip


def judge(ratio: float, tokens: int) -> str:
    """Whether a ratio keeps the bound of this length, if it has one."""
    if ratio <= AIM:
        return "ok, aim met"
    bound = BOUNDS.get(tokens)
    return "" if bound is None else "ok" if ratio <= bound else f"missed {bound}"


def compile_apart(job: dict) -> dict:
    """Compiles in another process: {"schedules", "unread", "bytes"}, or {"error"} with the compiler's last line."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | compiler_environment(Path(folder))
        root = str(Path(__file__).resolve().parent.parent)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, environment.get("PYTHONPATH"))))
        command = [sys.executable, str(PROGRAMS), json.dumps(job)]
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LONGEST)
        except subprocess.TimeoutExpired:
            return {"error": f"the compiler had not ended after {LONGEST} s"}
        if done.returncode:
            return {"error": last_error(done.stderr)}
        schedules, unread = {}, []
        for name, path in find_kernels(Path(folder)).items():
            try:
                schedules[name] = read_schedule(path)
            except ScheduleError as error:
                unread.append(str(error))
        return {"schedules": schedules, "unread": unread, **json.loads(done.stdout.splitlines()[-1])}


def last_error(text: str) -> str:
    """What says most in a traceback: its last line that names an exception, cut short."""
    lines = [line for line in text.splitlines() if "Error" in line or "Exhausted" in line] or text.splitlines()
    return lines[-1].strip()[:200] if lines else "no output"


def blocks_of(job: dict) -> str:
    """queries/keys of a grid step, as the tables have it."""
    return "/".join(map(str, job["blocks"])) if "blocks" in job else "its own"


def is_kernel(schedule: Schedule) -> bool:
    """Whether a schedule is of an attention kernel, not of a fusion of XLA's."""
    return any(part in schedule.name for part in ("self_attention", "flash_", "splash_"))


def make_row(name: str, task: str, blocks: str, job: dict, schedules: list[Schedule]) -> Row:
    generation, tokens = job["generation"], job["tokens"]
    cycles = sum(s.cycles for s in schedules)
    units = schedules[0].slots["MATMUL"].capacity * CORES[generation]
    each = sum(n * taken for n, taken in zip(PRODUCTS[task], PRODUCT_CYCLES[generation]))
    needed = each * BATCH * HEADS * (tokens / 128) ** 2 * (HEAD_DIM / 128)
    return Row(
        name, task, blocks, cycles, sum(s.cycles_lower for s in schedules), sum(s.cycles_upper for s in schedules),
        needed / (units * cycles), sum(s.spills + s.fills for s in schedules), sum(s.array_bytes for s in schedules),
        {s.name: (s.bundles, s.trips) for s in schedules},
    )  # fmt: skip


def our_rows(task: str, jobs: list[dict], outcomes: list[dict]) -> list[Row]:
    """Ours: forward there are two kernels, of which the size of the gains picks one."""
    rows = []
    for job, outcome in zip(jobs, outcomes):
        if job["kernel"] != "ours" or "error" in outcome or (job["task"] == "forward") != (task == "forward"):
            continue
        for name, schedule in outcome["schedules"].items():
            if is_kernel(schedule) and ("backward" in name) == (task == "backward"):
                label = "ours, large gains" if "large_gains" in name else "ours"
                rows.append(make_row(label, task, blocks_of(job), job, [schedule]))
    return sorted(rows, key=lambda row: row.name)


def peer_kernels(task: str, schedules: dict[str, Schedule]) -> list[Schedule]:
    """A peer's kernels for a task, from a program that holds them for all tasks."""
    backward = lambda name: "_bwd_" in name or "_dkv" in name or "_dq" in name
    training = lambda name: "jvp" in name or "fwd_residuals" in name
    kind = lambda name: "backward" if backward(name) else "forward for training" if training(name) else "forward"
    return [s for name, s in schedules.items() if is_kernel(s) and kind(name) == task]


def best(peer: str, task: str, jobs: list[dict], outcomes: list[dict]) -> Row | None:
    """A peer at the blocks with which it takes the fewest cycles."""
    rows = []
    for job, outcome in zip(jobs, outcomes):
        kernels = peer_kernels(task, outcome["schedules"]) if job["kernel"] == peer and "error" not in outcome else []
        if kernels:
            rows.append(make_row(f"{peer}_attention", task, blocks_of(job), job, kernels))
    return min(rows, key=lambda row: row.cycles, default=None)


def beside_row(job: dict, outcome: dict) -> dict:
    """What XLA does for the peers: cycles of its fusions, and the bytes that its cost analysis counts."""
    others = [s for s in outcome["schedules"].values() if not is_kernel(s)]
    name = f"norm, rotation, transposes, {job['task']}"
    return {"name": name, "cycles": sum(s.cycles for s in others), "bytes": outcome["bytes"],
            "uncounted": len(outcome["unread"])}  # fmt: skip


def backward_beside(rows: list[Row], jobs: list[dict], outcomes: list[dict]) -> list[dict]:
    """XLA's fusions around the peers' kernels, at the blocks of their best backward passes."""
    found = []
    for row in rows:
        for job, outcome in zip(jobs, outcomes):
            same = row.name == f"{job['kernel']}_attention" and row.blocks == blocks_of(job)
            if row.task == "backward" and same:
                others = [s for s in outcome["schedules"].values() if not is_kernel(s)]
                found.append({"name": f"around {row.name}'s kernels", "uncounted": len(outcome["unread"])})
                found[-1] |= {"cycles": sum(s.cycles for s in others), "bytes": sum(s.array_bytes for s in others)}
    return found


def sweep(generation: str, tokens: int) -> dict:
    """Cycles of our kernels at all blocks that divide the tokens and compile."""
    sizes = [size for size in BLOCKS if tokens % size == 0]
    job = {"generation": generation, "tokens": tokens, "kernel": "ours"}
    jobs = [{**job, "task": task, "blocks": pair} for pair in product(sizes, sizes) for task in ("forward", "backward")]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        outcomes = list(pool.map(compile_apart, jobs))
    rows = [row for task in PRODUCTS for row in our_rows(task, jobs, outcomes)]
    failures = [{"job": job, "error": o["error"]} for job, o in zip(jobs, outcomes) if "error" in o]
    return {"generation": generation, "tokens": tokens, "rows": [asdict(row) for row in rows], "failures": failures}


def print_comparison(result: dict) -> None:
    head(result)
    print("| task | kernel | blocks | cycles | lower..upper | useful | spills+fills | MiB | of best peer |")
    print("|---|---|---|--:|--:|--:|--:|--:|---|")
    for row in result["rows"]:
        print(f"| {row['task']} | {row['name']} | {row['blocks']} | {row['cycles']:,} "
              f"| {row['cycles_lower']:,}..{row['cycles_upper']:,} | {row['useful']:.0%} | {row['spills_and_fills']:,} "
              f"| {row['bytes'] / 2**20:.0f} | {verdict(row)} |")  # fmt: skip
    print("Besides, by XLA, in no ratio:")
    for row in result["beside"]:
        more = f", and what {row['uncounted']} fusions take whose trips depend on data" if row["uncounted"] else ""
        print(f"- {row['name']}: {row['cycles']:,} cycles{more}, {row['bytes'] / 2**20:.0f} MiB")
    print_failures(result)


def verdict(row: dict) -> str:
    return "" if row["ratio"] is None else f"{row['ratio']:.3f} {row['judged']}".strip()


def head(result: dict) -> None:
    cores = ", cycles of each of two cores that share the work" if CORES[result["generation"]] == 2 else ""
    print(f"\n{result['generation']}, {result['tokens']} tokens: batch {BATCH}, {HEADS} heads, head_dim {HEAD_DIM}, "
          f"bfloat16{cores}\n")  # fmt: skip


def print_failures(result: dict) -> None:
    for failure in result["failures"]:
        job = failure["job"]
        print(f"- {job['kernel']} {job['task']} {job.get('blocks', '')} does not compile: {failure['error']}")
    sys.stdout.flush()


def print_sweep(result: dict) -> None:
    head(result)
    print("| task | kernel | queries/keys | cycles | useful | spills+fills |\n|---|---|---|--:|--:|--:|")
    for row in sorted(result["rows"], key=lambda row: (row["task"], row["name"], row["cycles"])):
        print(f"| {row['task']} | {row['name']} | {row['blocks']} | {row['cycles']:,} | {row['useful']:.0%} "
              f"| {row['spills_and_fills']:,} |")  # fmt: skip
    print_failures(result)


def print_best(results: list[dict]) -> None:
    """Lines for `fooddit.kernels.tpu_layout.BLOCKS`: the best blocks at each number of tokens."""
    print("\nBLOCKS = {")
    for result in results:
        best = {}
        for task in ("forward", "backward"):
            rows = [row for row in result["rows"] if row["task"] == task and row["name"] == "ours"]
            if rows:
                best[task] = tuple(map(int, min(rows, key=lambda row: row["cycles"])["blocks"].split("/")))
        line = f"    {result['generation']!r}: {best},  # at {result['tokens']} tokens".replace("'", '"')
        print(line)
    print("}")


if __name__ == "__main__":
    main()
