"""Seconds from the start of main.py to the end of its first step: the first time, and with compiled programs kept.

    python benchmarks/startup.py [--configs configs/quickstart.py configs/stage1.py:quick] [--rounds 3]

Each round starts main.py twice in new workdirs with one new cache folder between them: the first start compiles and
fills it, the second one finds it full. The scenes are rendered before, since that happens once in a workdir's life;
what it takes is printed. The parts come from the run's own ledger (goodput.jsonl): "imports" is a process that only
imports what training does; "data, parameters" the rest until the first batch is asked for; "compile, step" lasts until
the first step's metrics are there. At the end the parameters of all starts are compared, bit by bit.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STEPS = 3
# Judging comes after the steps and is not what is timed.
FLAGS = [f"--config.train.steps={STEPS}", "--config.evaluation.samples=0", "--config.evaluation.alignment=0"]
PARTS = ("interpreter", "imports", "data, parameters", "first batch", "compile, step")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", nargs="+", default=["configs/quickstart.py", "configs/stage1.py:quick"])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(f"start-up on a CPU, {os.cpu_count()} cores, jax {version('jax')}; medians of {arguments.rounds} rounds")
    for config in arguments.configs:
        with tempfile.TemporaryDirectory() as folder:
            benchmark(config, Path(folder), arguments.rounds)


def benchmark(config: str, folder: Path, rounds: int) -> None:
    source = scenes_of(config)
    began = time.perf_counter()
    prepare = [sys.executable, "-m", "fooddit", "prepare", source, str(folder / "records"), "--size", "64"]
    subprocess.run(prepare, check=True, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    print(f"{config}: rendering {source} once: {time.perf_counter() - began:.1f} s")
    found: dict[str, list[dict[str, float]]] = {"first start": [], "second start": []}
    for turn in range(rounds):
        for which, parts in found.items():
            parts.append(start(config, folder, folder / f"cache-{turn}", folder / f"{which}-{turn}".replace(" ", "-")))
    totals = {}
    for which, runs in found.items():
        totals[which] = statistics.median(sum(run[part] for part in PARTS) for run in runs)
        details = ", ".join(f"{part} {statistics.median(run[part] for run in runs):.2f}" for part in PARTS)
        print(f"  {which:12} {totals[which]:6.2f} s  ({details})")
    print(f"  ratio first / second start: {totals['first start'] / totals['second start']:.2f}")
    hashes = {parameters_hash(path) for path in folder.glob("*-start-*")}
    print(f"  parameters after {STEPS} steps: {'the same bits in all runs' if len(hashes) == 1 else 'DIFFERENT BITS'}")
    if len(hashes) != 1:
        sys.exit(1)


def scenes_of(config: str) -> str:
    """The config's own data.source."""
    command = [sys.executable, "main.py", f"--config={config}", "--print_config"]
    lines = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True).stdout.split()
    return next(word for word in lines if "scenes:" in word).strip("'\",")


def start(config: str, folder: Path, cache: Path, workdir: Path) -> dict[str, float]:
    """Seconds of each part of one run."""
    environment = os.environ | {"XDG_CACHE_HOME": str(cache)}
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", "import main, fooddit.tasks.denoise, fooddit.training.loop"], check=True, cwd=ROOT
    )
    imports = time.perf_counter() - began
    command = [sys.executable, "main.py", f"--config={config}", f"--workdir={workdir}", *FLAGS]
    began = time.time()
    run = subprocess.run(
        [*command, f"--config.data.source={folder / 'records'}", "--config.evaluation.nearest=False"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    if run.returncode:
        sys.exit(f"{' '.join(command)}: exit code {run.returncode}\n{run.stderr[-2000:]}")
    lines = [json.loads(line) for line in (workdir / "goodput.jsonl").read_text().splitlines()]
    seconds = {
        name: sum(line["seconds"].get(name, 0.0) for line in lines) for line in lines for name in line["seconds"]
    }
    interpreter = float(lines[0]["run"].rsplit("-", 1)[0]) - began
    return {
        "interpreter": interpreter,
        "imports": imports - interpreter,
        "data, parameters": seconds["init"] + seconds.get("restore", 0.0) - (imports - interpreter),
        "first batch": seconds["data_wait"],
        "compile, step": seconds["compile"],
    }


def parameters_hash(workdir: Path) -> str:
    """What the last checkpoint's checksums of arrays are."""
    code = (
        "import sys, hashlib, jax, numpy as np; from fooddit.training.checkpoint import load_parameters\n"
        "parameters, _ = load_parameters(sys.argv[1]); digest = hashlib.sha256()\n"
        "for path, leaf in jax.tree.leaves_with_path(parameters):\n"
        "    digest.update(str(path).encode() + np.asarray(leaf).tobytes())\n"
        "print(digest.hexdigest())"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(workdir)], check=True, cwd=ROOT, capture_output=True, text=True
    )
    return run.stdout.split()[-1]


if __name__ == "__main__":
    main()
