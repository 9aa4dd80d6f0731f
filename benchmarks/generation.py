"""Seconds for 64 pictures, 20 Euler steps with guidance, on a CPU: our sampler against the same in torch, as ratios.

    python benchmarks/generation.py [--json FILE] [--shapes quickstart narrow] [--rounds 5] [--peers torch ...]

Timed is the sampler: from the features of the captions and the noise to the tokens of the pictures, two evaluations of
the network a step. The text tower and the autoencoder are in neither side's time; what they add to ours is printed on a
line of its own. Each library runs in a process of its own, on all cores, from the same weights, features and noise; the
processes take turns, and a ratio is the median of the peer's time over ours in the same round. First all must give our
tokens, or the benchmark refuses to compare. A torch peer evaluates the network with and without the caption in two
calls a step, as ours does, or in one of twice the batch (":joined"). Starting and compiling are printed, not counted.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from turns import Turn

PICTURES, STEPS, GUIDANCE, SHIFT, TIME_FLOOR = 64, 20, 2.0, 2.0, 0.05
# name: (width, blocks, head_dim, tokens, context tokens, context width). quickstart is configs/quickstart.py's model,
# 64 px in the latents of the shipped autoencoder; the other draws 128 px in them.
SHAPES = {"quickstart": (256, 4, 32, 16, 48, 64), "narrow": (128, 6, 32, 64, 48, 128)}
PEERS = ("torch", "torch:joined", "torch.compile", "torch.compile:joined")
# Largest difference of two samplers' tokens, whose deviation is near one, that float32 in another order explains.
TOLERANCE = 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=SHAPES)
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=PEERS)
    parser.add_argument("--rounds", type=int, default=5, help="alternations that a median is over")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--exchange", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        serve(arguments.worker, arguments.shapes[0], arguments.exchange)
        return
    results = [compare(shape, arguments.peers, arguments.rounds) for shape in arguments.shapes]
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def compare(shape: str, peers: list[str], rounds: int) -> dict:
    """Times every peer and us in turns; prints and returns the figures."""
    width, blocks, head_dim, tokens, context, _ = SHAPES[shape]
    print(f"\n{shape}: {PICTURES} pictures, {STEPS} Euler steps, guidance {GUIDANCE}; width {width}, {blocks} blocks, "
          f"head_dim {head_dim}, {tokens} tokens, {context} context tokens; {os.cpu_count()} cores, "
          f"{platform.processor() or platform.machine()}")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        workers = []
        try:
            for name in ("fooddit", *peers):
                workers.append(Turn(name, __file__, "--worker", name, "--shapes", shape, "--exchange", folder))
            times = take_turns(workers, rounds)
            beside = workers[0].ask("beside")["seconds"]
            differences = {name: difference(Path(folder), name) for name in peers}
        finally:
            for worker in workers:
                worker.close()
    medians = {name: statistics.median(values) for name, values in times.items()}
    rows = []
    for worker in workers:
        row = {"name": worker.name, "version": worker.version, "warm_up": worker.warm_up, "times": times[worker.name]}
        row |= {"seconds": medians[worker.name], "difference": differences.get(worker.name, 0.0)}
        row["ratio"] = statistics.median(p / o for p, o in zip(times[worker.name], times["fooddit"]))
        print(f"  {row['version']:42} {row['seconds']:6.2f} s, ratio {row['ratio']:.2f} "
              f"(ready after {row['warm_up']:.0f} s; tokens differ by {row['difference']:.1e})")  # fmt: skip
        rows.append(row)
    print(f"  beside that, in a picture of ours: text {beside['text']:.3f} s, autoencoder {beside['decode']:.3f} s")
    return {"shape": shape, "sizes": SHAPES[shape], "rows": rows, "beside": beside}


def take_turns(workers: list[Turn], rounds: int) -> dict[str, list[float]]:
    """Seconds of each worker in each round."""
    times: dict[str, list[float]] = {worker.name: [] for worker in workers}
    for _ in range(rounds):
        for worker in workers:
            times[worker.name].append(worker.ask("draw")["seconds"])
            time.sleep(0.2)  # Its threads spin for a moment after their work.
    return times


def difference(folder: Path, peer: str) -> float:
    """The largest difference of their tokens. Exits if that is no rounding: the peer then computes something else."""
    ours, theirs = (np.load(folder / f"{name}.npy") for name in ("fooddit", peer))
    largest = float(np.abs(ours - theirs).max())
    if not largest < TOLERANCE:
        sys.exit(f"{peer} is no peer: its tokens differ from ours by up to {largest}, expected below {TOLERANCE}")
    return largest


def serve(name: str, shape: str, exchange: Path) -> None:
    """The worker's side: draws, says hello, then answers each line of stdin: "draw" or "beside"."""
    make = fooddit_sampler if name == "fooddit" else torch_sampler
    draw, version, beside = make(name, shape, exchange)
    np.save(exchange / f"{name}.npy", draw())
    print(json.dumps({"version": version}), flush=True)
    for line in sys.stdin:
        if line.strip() == "beside":
            print(json.dumps({"seconds": {part: best_of_three(run) for part, run in beside.items()}}), flush=True)
            continue
        print(json.dumps({"seconds": seconds(draw)}), flush=True)


def seconds(run) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def best_of_three(run) -> float:
    """Seconds of a call that is compiled by a first one."""
    run()
    return min(seconds(run) for _ in range(3))


def make_features(shape: str) -> dict[str, np.ndarray]:
    """What a text tower would give for captions of 4 to all tokens."""
    *_, context, width = SHAPES[shape]
    rng = np.random.default_rng(0)
    normal = lambda *size: rng.normal(size=size).astype(np.float32)
    lengths = rng.integers(4, context + 1, size=(PICTURES, 1))
    features = {"tokens": normal(PICTURES, context, width), "mask": np.arange(context) < lengths}
    return features | {"pooled": normal(PICTURES, width)}


def fooddit_sampler(_, shape: str, exchange: Path):
    """Our `draw`, compiled as the pipeline compiles it; leaves weights, noise and times for the peers."""
    import jax

    from fooddit.diffusion import ObjectiveConfig, example_keys, example_noise, sampling_times
    from fooddit.models.autoencoder import patch_positions
    from fooddit.models.conditioning import Conditions
    from fooddit.models.dit import Context, DiTConfig
    from fooddit.models.layers import swiglu_width
    from fooddit.models.picture_space import PictureSpace, SpaceConfig
    from fooddit.models.text import TextConfig
    from fooddit.models.text_to_image import SamplingConfig, define_model, draw

    width, depth, head_dim, tokens, context, context_width = SHAPES[shape]
    side = round(tokens**0.5)
    space = PictureSpace(SpaceConfig("builtin:scenes", 2))
    dit = DiTConfig(width=width, depth=depth, head_dim=head_dim, scan_unroll=depth)
    text = TextConfig(width=context_width, depth=1, length=context)
    definition = define_model(SimpleNamespace(model=dit, text=text), None, space.features)
    # Moved everywhere: what starts at zero (outputs, tables) must count in the comparison of pictures.
    leaves, tree = jax.tree.flatten(jax.jit(definition.init)(jax.random.key(0)))
    rng = np.random.default_rng(1)
    params = tree.unflatten(x + 0.02 * rng.normal(size=x.shape).astype(np.float32) for x in leaves)
    keys = example_keys(jax.random.key(0), np.arange(PICTURES))
    positions = patch_positions((side, side))
    flat = {"/".join(k.key for k in path): np.asarray(x) for path, x in jax.tree.leaves_with_path(params["dit"])}
    np.savez(exchange / "weights.npz", **flat)
    noise = np.asarray(example_noise(keys, (tokens, space.features)))
    np.savez(exchange / "inputs.npz", noise=noise, times=sampling_times(STEPS, SHIFT), positions=positions)
    (exchange / "sizes.json").write_text(json.dumps({"inner": swiglu_width(width), "features": space.features}))

    @jax.jit
    def run(params, conditions):
        return draw(
            definition.bind(params), conditions, keys, positions=positions, features=space.features,
            objective=ObjectiveConfig("x0", TIME_FLOOR),
            sampling=SamplingConfig(steps=STEPS, guidance_scale=GUIDANCE, shift=SHIFT),
        )  # fmt: skip

    features = make_features(shape)
    conditions = jax.device_put(Conditions((Context(features["tokens"], features["mask"]),), features["pooled"]))
    encode = jax.jit(lambda params, texts: definition.bind(params).conditions(texts))
    frozen = space.load()
    decode = jax.jit(lambda frozen, values: space.decode(frozen, values, (side, side)))
    ids = np.random.default_rng(2).integers(0, text.vocabulary, size=(PICTURES, context))
    beside = {
        "text": lambda: jax.block_until_ready(encode(params, {"text": ids, "text_mask": features["mask"]})),
        "decode": lambda: jax.block_until_ready(decode(frozen, noise)),
    }
    return lambda: np.asarray(run(params, conditions)), f"fooddit (jax {jax.__version__})", beside


def torch_sampler(name: str, shape: str, exchange: Path):
    """The same sampler around `torch_dit.DiT`, a compiled step if asked for, in inference mode."""
    import torch
    from torch_dit import DiT, load

    torch.set_num_threads(os.cpu_count())
    width, depth, head_dim, _, _, context_width = SHAPES[shape]
    sizes, inputs = json.loads((exchange / "sizes.json").read_text()), np.load(exchange / "inputs.npz")
    model = DiT(width=width, depth=depth, head_dim=head_dim, context_width=context_width,
                positions=inputs["positions"], **sizes)  # fmt: skip
    load(model, dict(np.load(exchange / "weights.npz")))
    model.eval()
    features = {key: torch.from_numpy(value) for key, value in make_features(shape).items()}
    # Without a caption cross-attention adds zero. Values of zeros do so too, whatever their mask, and without a NaN.
    empty = {key: torch.ones_like(x) if x.dtype == torch.bool else torch.zeros_like(x) for key, x in features.items()}
    both = {key: torch.cat([features[key], empty[key]]) for key in features}
    noise, times = torch.from_numpy(inputs["noise"]), torch.from_numpy(inputs["times"])

    def predict(x, t, given):
        return model(x, t.expand(len(x)), given["tokens"], given["mask"], given["pooled"])

    def guided_step(x, t, dt, predictions):
        with_caption, without = ((x - x0) / t.clamp(min=TIME_FLOOR) for x0 in predictions)
        return x + dt * (with_caption + (GUIDANCE - 1) * (with_caption - without))

    def two_calls(x, t, dt):
        return guided_step(x, t, dt, (predict(x, t, features), predict(x, t, empty)))

    def one_call(x, t, dt):
        return guided_step(x, t, dt, predict(torch.cat([x, x]), t, both).chunk(2))

    step = one_call if name.endswith(":joined") else two_calls
    if name.startswith("torch.compile"):
        step = torch.compile(step)

    def draw():
        x = noise
        with torch.inference_mode():
            for t, dt in zip(times[:-1], times.diff()):
                x = step(x, t, dt)
        return x.numpy()

    return draw, f"{name} (torch {torch.__version__})", {}


if __name__ == "__main__":
    main()
