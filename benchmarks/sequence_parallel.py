"""How to cut self-attention along its tokens: python benchmarks/sequence_parallel.py [--json]

Forward and backward of one self-attention of 16 heads of 128 channels (QK-norm and RoPE included) whose tokens lie over
n v6e chips, in three forms: an all-to-all that exchanges tokens for heads before and after our kernel (what fooddit
does: `parallel.rules.shard_heads`), an all-gather of keys and values, and a ring that passes them on with an online
softmax. Prints what a chip sends, forward and backward, what it moves to and from HBM, and how much memory it needs;
compiled for chips that are not there. The last two have plain attention: their HBM is what a kernel of their own would
have to save, what they send would stay.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from itertools import product
from pathlib import Path

from fooddit.aot.hlo import read_dump
from fooddit.aot.schedule import compiler_environment

FORMS = ("all-to-all", "all-gather", "ring")
TOKENS, WAYS, BATCH, HEADS, HEAD_DIM = (4096, 16384), (2, 4, 8), 1, 16, 128
LINKS = 400e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(compile_here(**arguments.worker)))
        return
    results = []
    if not arguments.json:
        print("| tokens | chips | form | sent, MB | of them at 400 GB/s, us | HBM, MB | peak, MB |")
        print("|--:|--:|---|--:|--:|--:|--:|")
    for tokens, ways, form in product(TOKENS, WAYS, FORMS):
        found = compile_apart({"tokens": tokens, "ways": ways, "form": form})
        results.append(found)
        if not arguments.json:
            print(f"| {tokens:,} | {ways} | {form} | {found['sent'] / 1e6:.1f} | {found['sent'] / LINKS * 1e6:.0f} "
                  f"| {found['hbm'] / 1e6:.0f} | {found['peak'] / 1e6:.0f} |", flush=True)  # fmt: skip
    if arguments.json:
        print(json.dumps(results))


def compile_apart(job: dict) -> dict:
    environment = os.environ | compiler_environment()
    root = str(Path(__file__).resolve().parent.parent)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, environment.get("PYTHONPATH"))))
    command = [sys.executable, __file__, "--worker", json.dumps(job)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    return job | json.loads(done.stdout.splitlines()[-1])


def compile_here(tokens: int, ways: int, form: str) -> dict:
    import jax
    import jax.numpy as jnp
    from jax.sharding import NamedSharding, PartitionSpec

    from fooddit.aot.topology import absent
    from fooddit.parallel import MeshConfig, make_mesh

    mesh = make_mesh(MeshConfig(data=1, sequence=ways), absent("v6e:2x4").devices[:ways])
    array = jax.ShapeDtypeStruct(
        (BATCH, tokens, HEADS * HEAD_DIM), jnp.bfloat16, sharding=NamedSharding(mesh, PartitionSpec(None, "sequence"))
    )
    gain = jax.ShapeDtypeStruct((HEAD_DIM,), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec()))
    attend = {"all-to-all": all_to_all, "all-gather": all_gather, "ring": partial(ring, ways=ways)}[form]

    def gradients(q, k, v, q_gain, k_gain, d_out):
        out, back = jax.vjp(attend, q, k, v, q_gain, k_gain)
        return out, back(d_out)

    placed = (array.sharding, (*[array.sharding] * 3, *[gain.sharding] * 2))
    with tempfile.TemporaryDirectory() as folder, jax.set_mesh(mesh):
        lowered = jax.jit(gradients, out_shardings=placed).lower(array, array, array, gain, gain, array)
        compiled = lowered.compile({"xla_dump_to": folder, "xla_dump_hlo_as_text": True})
        hlo = read_dump(Path(folder))
    memory = compiled.memory_analysis()
    peak = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return {"sent": sum(c.sent for c in hlo.collectives()), "hbm": hlo.hbm_bytes(), "peak": peak}


def all_to_all(q, k, v, q_gain, k_gain):
    from fooddit.kernels import self_attention
    from fooddit.parallel.rules import self_attention_partition, shard_heads, shard_tokens_of_heads

    q, k, v = (shard_heads(x, HEADS) for x in (q, k, v))
    out = self_attention(
        q, k, v, num_heads=HEADS, q_scale=q_gain, k_scale=k_gain, positions=positions(q.shape[1]),
        partition=self_attention_partition(BATCH, HEADS), implementation="pallas_tpu",
    )  # fmt: skip
    return shard_tokens_of_heads(out, HEADS)


def all_gather(q, k, v, q_gain, k_gain):
    import jax
    from jax.sharding import PartitionSpec

    q, k = prepare(q, q_gain), prepare(k, k_gain)
    # Keys are whole on every device, queries are not: that is the gather.
    k, v = (jax.lax.with_sharding_constraint(x, PartitionSpec()) for x in (k, heads(v)))
    logits = jax.numpy.einsum("bqhd,bkhd->bhqk", q, k, preferred_element_type=jax.numpy.float32)
    weights = jax.nn.softmax(logits * HEAD_DIM**-0.5).astype(v.dtype)
    return jax.numpy.einsum("bhqk,bkhd->bqhd", weights, v).reshape(BATCH, -1, HEADS * HEAD_DIM)


def ring(q, k, v, q_gain, k_gain, *, ways: int):
    """Liu et al. 2023 (Ring Attention, arXiv:2310.01889), each step recomputed in the backward pass."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import PartitionSpec

    def local(q, k, v):
        @jax.checkpoint
        def step(carry, _):
            k, v, most, total, out = carry
            logits = jnp.einsum("bqhd,bkhd->bhqk", q, k, preferred_element_type=jnp.float32) * HEAD_DIM**-0.5
            now = jnp.maximum(most, logits.max(axis=-1))
            weights, shrink = jnp.exp(logits - now[..., None]), jnp.exp(most - now)
            more = jnp.einsum("bhqk,bkhd->bhqd", weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
            order = [(i, (i + 1) % ways) for i in range(ways)]
            k, v = (jax.lax.ppermute(x, "sequence", order) for x in (k, v))
            return (k, v, now, total * shrink + weights.sum(axis=-1), out * shrink[..., None] + more), None

        shape = (q.shape[0], HEADS, q.shape[1])
        start = (k, v, jnp.full(shape, -1e30), jnp.zeros(shape), jnp.zeros((*shape, HEAD_DIM)))
        (_, _, _, total, out), _ = jax.lax.scan(step, start, None, length=ways)
        return jnp.swapaxes((out / total[..., None]).astype(v.dtype), 1, 2)

    spec = PartitionSpec(None, "sequence")
    cut = jax.shard_map(local, in_specs=(spec,) * 3, out_specs=spec, check_vma=False)
    return cut(prepare(q, q_gain), prepare(k, k_gain), heads(v)).reshape(q.shape)


def prepare(x, gain):
    """QK-norm and RoPE; (batch, tokens, heads, head_dim)."""
    import jax
    import jax.numpy as jnp

    from fooddit.kernels.reference import EPSILON
    from fooddit.kernels.rope import axial_angles, rotate

    y = heads(x).astype(jnp.float32)
    y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + EPSILON) * gain
    return rotate(y, axial_angles(positions(x.shape[1]), HEAD_DIM)).astype(x.dtype)


def heads(x):
    return x.reshape(*x.shape[:2], HEADS, HEAD_DIM)


def positions(tokens: int):
    import jax.numpy as jnp

    side = int(tokens**0.5)
    return jnp.stack(jnp.divmod(jnp.arange(tokens), side), axis=-1).astype(jnp.float32)


if __name__ == "__main__":
    main()
