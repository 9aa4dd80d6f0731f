"""Whole train step on a CPU (forward, backward, clip, AdamW, EMA; float32) against torch and diffusers, as ratios.

    .venv-parity/bin/python benchmarks/train_step.py [--json FILE] [--widths 128 384] [--rounds 7] [--peers ...]

Each library runs in a process of its own; the processes take turns, a block of steps each, and a ratio is the median of
the peer's time over ours in the same round. First all that share our equations must give our losses for the same
weights and batch over three steps, or the benchmark refuses to compare. All processes, the peers' too, keep
freed memory (fooddit/training/host_memory.py).
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

import numpy as np
from turns import Turn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fooddit.training.host_memory import keep_freed_memory  # noqa: E402  (imports neither jax nor torch)

# width: (blocks, head_dim, tokens, batch, context tokens). 256 is the shape of configs/quickstart.py.
SHAPES = {128: (6, 32, 64, 64, 48), 256: (4, 32, 16, 128, 48), 384: (6, 128, 64, 32, 48)}
FEATURES, CONTEXT_WIDTH = 16, 128
# The peer's time over ours that we answer for: floor, aim.
PEERS = {"torch": (0.95, 1.1), "torch.compile": (None, 1.0), "diffusers": (1.2, None)}
SAME_EQUATIONS = ("torch", "torch.compile")
CHECKED_STEPS, LOSS_TOLERANCE = 3, 1e-4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("--widths", type=int, nargs="+", default=[128, 384], choices=SHAPES)
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=PEERS)
    parser.add_argument("--rounds", type=int, default=7, help="alternations that a median is over")
    parser.add_argument("--seconds", type=float, default=1.2, help="about how long a process's turn lasts")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--exchange", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        serve(arguments.worker, arguments.widths[0], arguments.exchange)
        return
    results = [compare(width, arguments.peers, arguments.rounds, arguments.seconds) for width in arguments.widths]
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def compare(width: int, peers: list[str], rounds: int, seconds: float) -> dict:
    """Times every peer and us in turns; prints and returns the figures."""
    blocks, head_dim, tokens, batch, context = SHAPES[width]
    print(
        f"\nwidth {width}: {blocks} blocks, head_dim {head_dim}, {tokens} tokens, batch {batch}, "
        f"{context} context tokens, {os.cpu_count()} cores, {platform.processor() or platform.machine()}"
    )
    with tempfile.TemporaryDirectory() as exchange:
        workers = []
        try:
            for name in ("fooddit", *peers):
                workers.append(Turn(name, __file__, "--worker", name, "--widths", width, "--exchange", exchange))
            ours = workers[0]
            for worker in workers[1:]:
                if worker.name in SAME_EQUATIONS:
                    check_same(ours, worker)
            counts = {worker.name: max(1, round(seconds / worker.ask("2")["seconds"])) for worker in workers}
            times = {worker.name: [] for worker in workers}
            for _ in range(rounds):
                for worker in workers:
                    times[worker.name].append(worker.ask(f"{counts[worker.name]}")["seconds"])
        finally:
            for worker in workers:
                worker.close()
    result = {
        "width": width,
        "shape": SHAPES[width],
        "ours": ours.version,
        "seconds": statistics.median(times["fooddit"]),
    }
    print(f"  {ours.version:44} {result['seconds']:.4f} s a step, losses {np.round(ours.hello['losses'], 4).tolist()}")
    result["peers"] = {}
    for worker in workers[1:]:
        ratio = statistics.median(p / o for p, o in zip(times[worker.name], times["fooddit"]))
        floor, aim = PEERS[worker.name]
        print(f"  {worker.version:44} {statistics.median(times[worker.name]):.4f} s a step, ratio {ratio:.2f} "
              f"(floor {floor or '-'}, aim {aim or '-'})")  # fmt: skip
        result["peers"][worker.name] = {
            "version": worker.version,
            "seconds": statistics.median(times[worker.name]),
            "ratio": ratio,
            "floor": floor,
            "aim": aim,
        }
    return result


def check_same(ours: Turn, peer: Turn) -> None:
    """Refuses a peer that computes something else."""
    found, expected = peer.hello["losses"], ours.hello["losses"]
    if not np.allclose(expected, found, rtol=LOSS_TOLERANCE, atol=0):
        sys.exit(f"{peer.name} is no peer: its losses are {found}, ours {expected}, on the same weights")


def serve(name: str, width: int, exchange: Path) -> None:
    """The worker's side: says hello after the first steps, then runs as many as each line of stdin asks for."""
    keep_freed_memory()
    step, version = fooddit_step(width, exchange) if name == "fooddit" else torch_step(name, width, exchange)
    losses = [float(step()) for _ in range(CHECKED_STEPS)]
    print(json.dumps({"version": version, "losses": losses}), flush=True)
    for line in sys.stdin:
        count, began = int(line), time.perf_counter()
        for _ in range(count):
            loss = step()
        float(loss)
        print(json.dumps({"seconds": (time.perf_counter() - began) / count}), flush=True)


def make_batch(width: int) -> dict[str, np.ndarray]:
    """Data, noise and times (drawn beforehand, so that all see the same) and captions of 4 to all tokens."""
    _, _, tokens, batch, context = SHAPES[width]
    rng = np.random.default_rng(0)
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32)
    lengths = rng.integers(4, context + 1, size=(batch, 1))
    return {
        "x0": normal(batch, tokens, FEATURES),
        "noise": normal(batch, tokens, FEATURES),
        "t": rng.uniform(0.02, 0.98, size=batch).astype(np.float32),
        "context": normal(batch, context, CONTEXT_WIDTH),
        "mask": np.arange(context) < lengths,
        "pooled": normal(batch, CONTEXT_WIDTH),
    }


def grid_positions(tokens: int) -> np.ndarray:
    side = round(tokens**0.5)
    return np.stack(np.divmod(np.arange(tokens), side), axis=-1).astype(np.float32)


def fooddit_step(width: int, exchange: Path):
    """Our step, as the loop compiles it; leaves its first weights and optimizer settings for the peers."""
    import jax
    import jax.numpy as jnp

    from fooddit.diffusion import ObjectiveConfig, flow_loss
    from fooddit.models.dit import Context, DiT, DiTConfig
    from fooddit.models.layers import swiglu_width
    from fooddit.models.module import define
    from fooddit.training.optimizer import OptimizerConfig, make_optimizer, schedule, width_multiplier
    from fooddit.training.state import State
    from fooddit.training.step import make_step

    depth, head_dim, tokens, _, _ = SHAPES[width]
    config = DiTConfig(width=width, depth=depth, head_dim=head_dim, scan_unroll=depth)
    definition = define(lambda r: DiT(config, token_features=FEATURES, context_width=CONTEXT_WIDTH, rngs=r))
    positions = grid_positions(tokens)
    settings, steps = OptimizerConfig(), 10_000
    optimizer = make_optimizer(settings, steps, definition.axes)

    def loss(params, frozen, batch, key):
        context = [Context(batch["context"], batch["mask"])]
        model = definition.bind(params)
        predict = lambda x, t: model(x, t, positions=positions, context=context, pooled=batch["pooled"])
        return flow_loss(predict, batch["x0"], batch["noise"], batch["t"], config=ObjectiveConfig()).loss, {}

    # Moved everywhere: what starts at zero (outputs, tables) must count in the comparison of losses.
    leaves, tree = jax.tree.flatten(jax.jit(definition.init)(jax.random.key(0)))
    rng = np.random.default_rng(1)
    params = tree.unflatten(x + 0.02 * rng.normal(size=x.shape).astype(np.float32) for x in leaves)
    flat = {"/".join(key.key for key in path): np.asarray(x) for path, x in jax.tree.leaves_with_path(params)}
    np.savez(exchange / "weights.npz", **flat)
    axes = {
        "/".join(k.key for k in path): a for path, a in jax.tree.leaves_with_path(definition.axes, is_leaf=_is_axes)
    }
    (exchange / "settings.json").write_text(
        json.dumps(
            {
                "rates": [float(x) for x in jax.vmap(schedule(settings, steps))(jnp.arange(2000))],
                "multipliers": {name: width_multiplier(x.shape, axes[name]) for name, x in flat.items()},
                "optimizer": {name: getattr(settings, name) for name in ("b1", "b2", "clip", "ema", "weight_decay")},
                "inner": swiglu_width(width),
            }
        )
    )
    step = jax.jit(make_step(loss, optimizer, seed=0), donate_argnums=0)
    state = State(jnp.zeros((), jnp.int32), params, jax.jit(optimizer.init)(params))
    batch = jax.device_put(make_batch(width))

    def run():
        nonlocal state
        state, metrics = step(state, {}, batch)
        return metrics["loss"]

    return run, f"fooddit (jax {jax.__version__})"


def _is_axes(x) -> bool:
    return x is None or isinstance(x, tuple)


def torch_step(name: str, width: int, exchange: Path):
    """The peer's step on two threads: our DiT from the exchanged weights, or PixArt from its own."""
    import torch
    from torch_dit import DiT, PixArt, Trainer, load

    torch.set_num_threads(os.cpu_count())
    torch.manual_seed(0)
    depth, head_dim, tokens, _, _ = SHAPES[width]
    settings = json.loads((exchange / "settings.json").read_text())
    shape = {"width": width, "depth": depth, "head_dim": head_dim, "features": FEATURES, "context_width": CONTEXT_WIDTH}
    version = f"{name} (torch {torch.__version__})"
    if name == "diffusers":
        import diffusers

        model, groups = PixArt(**shape, side=round(tokens**0.5)), lambda name, parameter: (1.0, 0.0)
        version = f"PixArtTransformer2DModel (diffusers {diffusers.__version__})"
    else:
        model = DiT(**shape, inner=settings["inner"], positions=grid_positions(tokens))
        names = load(model, dict(np.load(exchange / "weights.npz")))
        decay = settings["optimizer"]["weight_decay"]
        groups = lambda name, _: (settings["multipliers"][names[name]], decay if name.endswith("weight") else 0.0)
    optimizer = {name: value for name, value in settings["optimizer"].items() if name != "weight_decay"}
    trainer = Trainer(model, settings["rates"], groups, **optimizer, compiled=name == "torch.compile")
    batch = {name: torch.from_numpy(value) for name, value in make_batch(width).items()}
    return lambda: trainer(batch), version


if __name__ == "__main__":
    main()
