"""Peak memory of training and of preparing records: python benchmarks/memory.py [--steps 60]

Each job is a process of its own; its peak is the kernel's (VmHWM, resident memory), read until it ends. "Steps" is the
peak when the last step's checkpoint is complete; "in all" has evaluation and the report in it. With FOODDIT_PHOTOS=DIR
(metadata.jsonl and photos) it prepares those as well. How prepare grows with the number of rows: prepare_memory.py.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ("configs/quickstart.py", "configs/stage1.py:quick")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    steps = parser.parse_args().steps
    print(f"peak resident memory on a CPU, jax {version('jax')}")
    with tempfile.TemporaryDirectory() as folder:
        for config in CONFIGS:
            workdir = Path(folder) / config.replace("/", "-").replace(":", "-")
            command = [sys.executable, "main.py", f"--config={config}", f"--workdir={workdir}"]
            saved = workdir / "checkpoints" / str(steps)
            trained, peak = watch([*command, f"--config.train.steps={steps}"], saved)
            print(f"{config}, {steps} steps: {trained:,.0f} MB in its steps, {peak:,.0f} MB in all")
        for source in sources():
            records = Path(folder) / f"records-{Path(source).name.replace(':', '-')}"
            _, peak = watch([sys.executable, "-m", "fooddit", "prepare", source, str(records)], records)
            print(f"fooddit prepare {source}: {peak:,.0f} MB")


def sources() -> list[str]:
    photos = os.environ.get("FOODDIT_PHOTOS")
    if not photos:
        print("FOODDIT_PHOTOS is not set: prepare is measured on scenes only")
    return ["scenes:2000"] + ([photos] if photos else [])


def watch(command: list[str], milestone: Path) -> tuple[float, float]:
    """The peak in MB until `milestone` exists, and until the end."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
        before = peak = 0.0
        while process.poll() is None:
            peak = max(peak, high_water(process.pid))
            if not milestone.exists():
                before = peak
            time.sleep(0.02)
        if process.returncode:
            output.seek(0)
            sys.exit(f"{' '.join(command)}: exit code {process.returncode}\n{output.read()[-2000:].decode()}")
    return before, peak


def high_water(pid: int) -> float:
    """VmHWM in MB; 0 where the process is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM:")), 0.0)


if __name__ == "__main__":
    main()
