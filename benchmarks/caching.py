"""Stage 2's images a second without a cache, with one of latents, one of text features, and both, as ratios.

    python benchmarks/caching.py [--rounds 5] [--steps 4] [--json FILE]
        [--config=configs/stage2.py:quick] [--config.KEY=VALUE ...]

All in one process: the records are prepared, `fooddit prepare --cache --text` is timed, then the four ways take turns,
round after round, a few steps each, and a ratio is the median of theirs over that without a cache in the same round. A
step is all that the training loop does for one: the next batch from the input pipeline, to the devices, through the
encoders as far as they are not cached, forward and backward pass and the optimizer. Image prompts, where the config has
them, are read online in all four. On a CPU the ratio of the processor's seconds stands beside it: other work on its
cores does not count there.
"""

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fooddit.training.host_memory import keep_freed_memory  # noqa: E402  (imports no jax)

keep_freed_memory()

import jax  # noqa: E402

from fooddit.caching.command import cache  # noqa: E402
from fooddit.config_file import read_experiment  # noqa: E402
from fooddit.data.prepare import prepare  # noqa: E402
from fooddit.parallel.compilation_cache import keep_compiled_programs  # noqa: E402
from fooddit.parallel.placement import local_rows, place_rows  # noqa: E402
from fooddit.tasks.denoise import Denoise  # noqa: E402
from fooddit.training.loop import abstract_state, device_mesh, jit_step  # noqa: E402
from fooddit.training.optimizer import make_optimizer  # noqa: E402
from fooddit.training.state import State  # noqa: E402

CONFIG = f"--config={ROOT}/configs/stage2.py:quick"
# What of the cache each way reads; None: all.
WAYS = {"no cache": (), "latents cached": ("moments",), "text cached": ("t5", "eclip", "eclip_pooled"), "both": None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="of each way in each round")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    arguments, flags = parser.parse_known_args()
    if not any(flag.startswith("--config=") for flag in flags):
        flags = [CONFIG, *flags]
    keep_compiled_programs()
    with tempfile.TemporaryDirectory() as scratch:
        experiment = prepared(read_experiment(flags), Path(scratch))
        began = time.perf_counter()
        summary = cache(experiment.data.source, f"{scratch}/both", experiment, text=True)
        print(f"{summary}\n  {time.perf_counter() - began:.1f} s in all, compiling included")
        figures = compare(experiment, Path(scratch), arguments.rounds, arguments.steps)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def prepared(experiment, scratch: Path):
    """The experiment on records in a folder."""
    source, size = experiment.data.source, experiment.data.image_size
    if source.startswith(("scenes:", "styles:")):
        prepare(source, scratch / "records", size=size, progress=False)
        source = str(scratch / "records")
    return dataclasses.replace(experiment, data=dataclasses.replace(experiment.data, source=source))


def compare(experiment, scratch: Path, rounds: int, steps: int) -> dict:
    """Times the ways in turns; prints and returns the figures."""
    with jax.set_mesh(device_mesh(experiment)):
        sides = {name: side(with_cache(experiment, scratch, name), scratch) for name in WAYS}
        for run in sides.values():
            run(2)
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
        for _ in range(rounds):
            for name, run in sides.items():
                times[name].append(run(steps))
    device, pictures = jax.devices()[0], steps * experiment.data.batch_size
    print(f"{len(jax.devices())} x {device.device_kind}, jax {jax.__version__}, batch {experiment.data.batch_size}")
    figures = {}
    for name, found in times.items():
        rounds_of = zip(found, times["no cache"], strict=True)
        ratios = [[plain / seconds for seconds, plain in zip(*pair, strict=True)] for pair in rounds_of]
        wall, cpu = zip(*ratios, strict=True)
        rate = statistics.median(pictures / seconds for seconds, _ in found)
        line = (
            f"{name:16} {rate:8.1f} images/s, ratio {statistics.median(wall):.2f} ({min(wall):.2f} to {max(wall):.2f})"
        )
        figures[name] = {"images_per_second": rate, "ratio": statistics.median(wall)}
        if device.platform == "cpu":
            figures[name]["cpu_ratio"] = statistics.median(cpu)
            line += f", of the processor's seconds {statistics.median(cpu):.2f} ({min(cpu):.2f} to {max(cpu):.2f})"
        print(line)
    return figures


def with_cache(experiment, scratch: Path, name: str):
    """The experiment with the part of the cache that a way reads."""
    folder, streams = scratch / name.replace(" ", "-"), WAYS[name]
    if streams == ():
        return experiment
    if streams is None:
        folder = scratch / "both"
    else:
        folder.mkdir()
        for stream in streams:
            if (scratch / "both" / stream).exists():
                (folder / stream).symlink_to(scratch / "both" / stream)
    return dataclasses.replace(experiment, data=dataclasses.replace(experiment.data, features=str(folder)))


def side(experiment, scratch: Path) -> Callable[[int], tuple[float, float]]:
    """Runs so many steps and gives their seconds, on the clock and of the processor."""
    mesh, size = jax.sharding.get_mesh(), experiment.data.batch_size
    task, rows = Denoise(experiment, scratch), local_rows(mesh, size)
    optimizer = make_optimizer(experiment.optimizer, experiment.train.steps, task.axes)
    abstract, frozen = abstract_state(task, optimizer, mesh), task.frozen.load(mesh)
    placed = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    params = jax.jit(task.init, out_shardings=placed.params)(jax.random.key(0))
    opt_state = jax.jit(optimizer.init, out_shardings=placed.opt_state)(params)
    state = State(jax.device_put(jax.numpy.zeros((), jax.numpy.int32), placed.step), params, opt_state)
    step, to_device = jit_step(task, experiment, optimizer, abstract), jax.jit(task.device_batch)
    batches: Iterator = task.batches(0, rows)

    def run(count: int) -> tuple[float, float]:
        nonlocal state
        began, worked = time.perf_counter(), time.process_time()
        for _ in range(count):
            batch = to_device(frozen, place_rows(mesh, size, rows, next(batches)))
            state, metrics = step(state, frozen, batch)
        jax.block_until_ready(metrics)
        return time.perf_counter() - began, time.process_time() - worked

    return run


if __name__ == "__main__":
    main()
