"""What benchmarks/tpu_kernels.py compiles: our attention kernels, jax's two, and what XLA does around these.

    python benchmarks/tpu_kernel_programs.py '{"kernel": "ours", "task": "forward", "generation": "v6e", "tokens": 512}'

compiles one program for a TPU that is not there, in this process, whose environment says where the compiler dumps.
"""

import json
import math
import sys

BATCH, HEADS, HEAD_DIM = 4, 16, 128
TOPOLOGIES = {"v6e": "v6e:2x2", "v5e": "v5e:2x2", "v5p": "v5p:2x2x1", "tpu7x": "tpu7x:2x2x1"}


def compile_here(kernel: str, task: str, generation: str, tokens: int, blocks: list[int] | None = None) -> None:
    """The worker's side: compiles one program for the generation and prints what XLA says of its bytes."""
    import jax
    from jax.experimental import topologies

    make = {"ours": our_function, "flash": flash_function, "splash": splash_function, "around": around_function}
    function, *arrays = make[kernel](tokens, blocks, generation)
    topology = topologies.get_topology_desc(platform="tpu", topology_name=TOPOLOGIES[generation])
    sharding = jax.sharding.SingleDeviceSharding(topology.devices[0])
    shape = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
    arrays = jax.tree.map(shape, arrays)
    program = {"forward": function, "backward": gradients(function), "both": both(function)}[task]
    if task != "forward":
        arrays.append(jax.tree.map(shape, jax.eval_shape(function, *arrays)))
    compiled = jax.jit(program).lower(*arrays).compile()
    print(json.dumps({"bytes": (compiled.cost_analysis() or {}).get("bytes accessed", math.nan)}))


def gradients(function):
    """(*arguments, gradient of the output) -> gradients of the arguments."""
    import jax

    return lambda *arguments: jax.vjp(function, *arguments[:-1])[1](arguments[-1])


def both(function):
    """The function as it is for inference, and its gradients, in one program."""
    return lambda *arguments: (function(*arguments[:-1]), gradients(function)(*arguments))


def our_function(tokens: int, blocks: list[int] | None, generation: str):
    import jax
    import jax.numpy as jnp

    from fooddit.kernels.tpu_layout import BLOCKS as OUR_BLOCKS
    from fooddit.kernels.tpu_self_attention import tpu_self_attention

    if blocks is not None:
        OUR_BLOCKS[generation] |= {"forward": tuple(blocks), "backward": tuple(blocks)}
    options = {"num_heads": HEADS, "positions": positions(tokens), "generation": generation}
    gain = jax.ShapeDtypeStruct((HEAD_DIM,), jnp.float32)
    array = jax.ShapeDtypeStruct((BATCH, tokens, HEADS * HEAD_DIM), jnp.bfloat16)
    attend = lambda q, k, v, q_gain, k_gain: tpu_self_attention(q, k, v, q_scale=q_gain, k_scale=k_gain, **options)
    return attend, array, array, array, gain, gain


def positions(tokens: int):
    """(row, column) of each token of a picture as near to a square as its number allows."""
    import numpy as np

    height = next(side for side in range(math.isqrt(tokens), 0, -1) if tokens % side == 0)
    return np.stack(np.divmod(np.arange(tokens), tokens // height), axis=-1).astype(np.float32)


def peer_array(tokens: int):
    import jax
    import jax.numpy as jnp

    return jax.ShapeDtypeStruct((BATCH, HEADS, tokens, HEAD_DIM), jnp.bfloat16)


def flash_function(tokens: int, blocks: list[int], generation: str):
    from jax.experimental.pallas.ops.tpu import flash_attention as flash

    q, kv = blocks
    sizes = flash.BlockSizes(
        block_b=1, block_q=q, block_k_major=kv, block_k=kv, block_q_major_dkv=q, block_k_major_dkv=kv, block_k_dkv=kv,
        block_q_dkv=q, block_k_major_dq=kv, block_k_dq=kv, block_q_dq=q,
    )  # fmt: skip
    return lambda q, k, v: flash.flash_attention(q, k, v, block_sizes=sizes), *[peer_array(tokens)] * 3


def splash_function(tokens: int, blocks: list[int], generation: str):
    import jax
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    q, kv = blocks
    sizes = splash.BlockSizes(
        block_q=q, block_kv=kv, block_kv_compute=kv, block_q_dkv=q, block_kv_dkv=kv, block_kv_dkv_compute=kv,
        use_fused_bwd_kernel=True,
    )  # fmt: skip
    mask = masks.MultiHeadMask([masks.FullMask((tokens, tokens))] * HEADS)
    attend = splash.make_splash_mha(mask, head_shards=1, q_seq_shards=1, block_sizes=sizes)
    return lambda q, k, v: jax.vmap(attend)(q, k, v), *[peer_array(tokens)] * 3


def around_function(tokens: int, blocks: None, generation: str):
    """QK-norm and RoPE as our reference has them, and the transposes to and from the peers' layout."""
    import jax
    import jax.numpy as jnp

    from fooddit.kernels.reference import EPSILON
    from fooddit.kernels.rope import axial_angles, rotate

    angles = axial_angles(jnp.asarray(positions(tokens)), HEAD_DIM)
    split = lambda x: x.reshape(BATCH, tokens, HEADS, HEAD_DIM)

    def prepare(x, gain):
        y = split(x).astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + EPSILON) * gain
        return rotate(y, angles).astype(x.dtype).swapaxes(1, 2)

    def around(q, k, v, out, q_gain, k_gain):
        back = out.swapaxes(1, 2).reshape(BATCH, tokens, HEADS * HEAD_DIM)
        return prepare(q, q_gain), prepare(k, k_gain), split(v).swapaxes(1, 2), back

    gain = jax.ShapeDtypeStruct((HEAD_DIM,), jnp.float32)
    array = jax.ShapeDtypeStruct((BATCH, tokens, HEADS * HEAD_DIM), jnp.bfloat16)
    return around, array, array, array, peer_array(tokens), gain, gain


if __name__ == "__main__":
    compile_here(**json.loads(sys.argv[1]))
