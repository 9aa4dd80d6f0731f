"""What the attention kernels for TPUs share."""

import jax
import jax.numpy as jnp
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array

LANES = 128
# Logits are in powers of two: exp2 needs no factor, and this one rides on the query's gain.
LOG2_E = 1.4426950408889634
# In powers of two: a sum of a million of exp2(100) is a normal float32, and exp2(-100) a normal bfloat16.
LARGEST_LOGIT = 100.0
# Added to the logit of a masked key.
NEVER = -1e30
# Most times 128 lanes that a grid step takes: twice as many double the kernel's text for a tenth fewer cycles.
MOST_GROUPED = 8
# TPU7x has 64 MiB of VMEM a core, the generations before it 128.
VMEM_BYTES = 56 << 20


def largest_divisor(count: int, most: int) -> int:
    """Of `count`, at most `most`, at least 1."""
    return max(size for size in range(1, max(most, 1) + 1) if count % size == 0)


def dot(a: Array, b: Array, contract: tuple[int, int]) -> Array:
    """The float32 product of two matrices over axis contract[0] of a and contract[1] of b."""
    return jax.lax.dot_general(a, b, (((contract[0],), (contract[1],)), ((), ())), preferred_element_type=jnp.float32)


def options(interpret: bool | pltpu.InterpretParams) -> dict:
    """Arguments of pallas_call for a (batch, heads, blocks of queries) grid; the blocks of a head run in order."""
    semantics = ("parallel", "parallel", "arbitrary")
    params = pltpu.CompilerParams(dimension_semantics=semantics, vmem_limit_bytes=VMEM_BYTES)
    return {"compiler_params": params, "interpret": interpret}
