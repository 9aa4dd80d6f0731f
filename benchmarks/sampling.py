"""How many steps, and when to guide: alignment of a run's pictures against sampler, steps and guidance interval.

    python benchmarks/sampling.py --checkpoint RUN [--step N] [--num 128] [--json FILE] [--picture FILE] [--limit 60]

For each setting `--num` held-out prompts of dish scenes, English and Chinese in turn, are drawn from the same seeds,
and the scene reader says in how many pictures all eight attributes are as asked (95 % Wilson intervals). The shuffled
arm holds the same pictures against other pictures' prompts. Network evaluations are those of one picture: a guided time
takes two. Seconds are of a batch of 64 whose program is compiled. Results are kept in the JSON as they come, and what
is there for the same checkpoint is not measured again: after `--limit` seconds it stops, and the command goes on later.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from sampling_chart import draw_chart

from fooddit.diffusion import sampling_times
from fooddit.diffusion.samplers import STEPPERS
from fooddit.evaluation.alignment import align
from fooddit.evaluation.scene_reader import SceneReader, accuracy
from fooddit.models.text_to_image import SamplingConfig
from fooddit.parallel.compilation_cache import keep_compiled_programs
from fooddit.pipeline import Pipeline
from fooddit.tasks.scene_alignment import scene_prompts, scene_specs

BATCH = 64
# Heun takes two evaluations a step but for the last: these come closest to the others' evaluations.
STEPS = {
    "euler": (2, 3, 4, 6, 8, 12, 20, 40),
    "dpmpp_2m": (2, 3, 4, 6, 8, 12, 20, 40),
    "heun": (2, 3, 4, 6, 10, 20),
}
# Times between which guidance is on, 1 being noise; None: never.
INTERVALS = (None, (0, 1), (0, 0.8), (0, 0.6), (0, 0.4), (0.4, 1), (0.6, 1), (0.8, 1), (0.4, 0.8))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, help="workdir of a run on dish scenes")
    parser.add_argument("--step", type=int, help="an older checkpoint than the newest")
    parser.add_argument("--num", type=int, default=128, help=f"pictures a setting, a multiple of {BATCH}")
    parser.add_argument("--json", type=Path, default=Path("runs/sampling.json"))
    parser.add_argument("--picture", type=Path, help="draw the results as a PNG")
    parser.add_argument("--limit", type=float, default=float("inf"), help="seconds after which to stop")
    arguments = parser.parse_args()
    if arguments.num < 2 * BATCH or arguments.num % BATCH:
        parser.error(f"--num is {arguments.num}: expected a multiple of {BATCH}, from {2 * BATCH}")
    results = measure_all(arguments)
    print(table(results["rows"]))
    if arguments.picture:
        draw_chart(results, arguments.picture)


def measure_all(arguments) -> dict:
    """Measures what the JSON does not hold yet, the settings in the order of the tables, until the limit."""
    keep_compiled_programs()
    began = time.monotonic()
    pipe = Pipeline.from_checkpoint(arguments.checkpoint, arguments.step)
    what = {"checkpoint": int(pipe.name.rsplit("/", 1)[-1]), "num": arguments.num, "batch": BATCH}
    results = what | {"train_steps": pipe.experiment.train.steps, "rows": []}
    if arguments.json.exists():
        results = json.loads(arguments.json.read_text(encoding="utf-8"))
        found = {name: results[name] for name in what}
        if found != what:
            sys.exit(f"{arguments.json} is of {found}, this is {what}; name another file")
    if "oracle_all_exact" not in results:
        results["oracle_all_exact"] = accuracy(SceneReader())["all_exact"]
    known = [row["sampling"] for row in results["rows"]]
    for sampling in settings(pipe.experiment.sampling):
        if asdict(sampling) in known or time.monotonic() - began > arguments.limit:
            continue
        results["rows"].append(measure(pipe, sampling, arguments.num, results["oracle_all_exact"]))
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        print(table(results["rows"][-1:]), flush=True)
    return results


def settings(base: SamplingConfig) -> list[SamplingConfig]:
    """What is compared: guidance at 20 Euler steps, then steps of each method with guidance at all times."""
    base = replace(base, method="euler", steps=20, guidance_low=0.0, guidance_high=1.0)
    listed = []
    for interval in INTERVALS:
        low, high = interval or (0.0, 1.0)
        scale = base.guidance_scale if interval else 1.0
        listed.append(replace(base, guidance_scale=scale, guidance_low=float(low), guidance_high=float(high)))
    listed += [replace(base, method=method, steps=count) for method, counts in STEPS.items() for count in counts]
    return list(dict.fromkeys(listed))


def measure(pipe: Pipeline, sampling: SamplingConfig, num: int, oracle: float) -> dict:
    """Draws and reads `num` pictures with one setting."""
    artist = pipe._artist(pipe.experiment.data.image_size)
    batches, times, began = [], [], time.perf_counter()
    for batch in artist.draw_batches(
        pipe.params, pipe.frozen, zip(scene_prompts(num), range(num)), batch_size=BATCH, sampling=sampling
    ):
        batches.append(batch)
        times.append(time.perf_counter() - began)
        began = time.perf_counter()
    wanted = np.array([spec.indices for spec in scene_specs(num)])
    alignment = align(SceneReader().read(np.concatenate(batches)), wanted, oracle_all_exact=oracle)
    return {
        "sampling": asdict(sampling),
        "evaluations": evaluations(sampling),
        "seconds": float(np.median(times[1:])),  # The first one compiled.
        "all_exact": alignment.all_exact,
        "interval": alignment.interval,
        "shuffled_all_exact": alignment.shuffled_all_exact,
        "attributes": float(np.mean(list(alignment.per_attribute.values()))),
    }


def evaluations(sampling: SamplingConfig) -> int:
    """Times that the network is run for one picture, with and without its caption."""
    times = np.asarray(STEPPERS[sampling.method].rows(sampling_times(sampling.steps, sampling.shift))["t"])
    guided = (times >= sampling.guidance_low) & (times <= sampling.guidance_high) & (sampling.guidance_scale != 1)
    return int(len(times) + guided.sum())


def table(rows: list[dict]) -> str:
    """A line a setting."""
    lines = []
    for row in rows:
        s, (low, high) = row["sampling"], row["interval"]
        guidance = f"{s['guidance_scale']:g} in [{s['guidance_low']:g}, {s['guidance_high']:g}]"
        lines.append(
            f"{s['method']:9} {s['steps']:3} steps, guidance {guidance if s['guidance_scale'] != 1 else 'off':15} "
            f"{row['evaluations']:3} evaluations, {row['seconds']:6.2f} s, all exact {row['all_exact']:.3f} "
            f"({low:.3f} to {high:.3f}), attributes {row['attributes']:.3f}, shuffled {row['shuffled_all_exact']:.3f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
