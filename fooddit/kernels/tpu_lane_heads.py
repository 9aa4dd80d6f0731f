"""Queries and keys as they are multiplied, and the way back, on arrays of (tokens, lanes): one head, or two.

For cross-attention, whose keys are few: nothing is rotated, and nothing needs to be transposed.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fooddit.kernels.reference import EPSILON
from fooddit.kernels.tpu_common import LOG2_E


def unit(x: Array, heads: int) -> tuple[Array, Array]:
    """x, float32, divided by its heads' root mean squares; and one over those."""
    x = x.astype(jnp.float32)
    root = jax.lax.rsqrt(_mean(x * x, heads) + EPSILON)
    return x * root, root


def unit_back(gradient: Array, normal: Array, root: Array, gain: Array, heads: int) -> tuple[Array, Array]:
    """The gradients of what `unit` was given and of the gain, (1, lanes). Logits are in powers of two: LOG2_E."""
    gradient = gradient * (1 / LOG2_E)
    inner = gradient * gain
    return root * (inner - normal * _mean(inner * normal, heads)), jnp.sum(gradient * normal, axis=0, keepdims=True)


def _mean(x: Array, heads: int) -> Array:
    """Over the lanes of each head, (rows, 1 or lanes)."""
    if heads == 1:
        return jnp.mean(x, axis=1, keepdims=True)
    sums = (jnp.sum(only(x, head, heads), axis=1, keepdims=True) for head in range(heads))
    return jnp.where(_of_first_head(x.shape), *sums) / (x.shape[1] // heads)


def only(x: Array, head: int, heads: int) -> Array:
    """x, float32, with the lanes of the block's other head 0."""
    if heads == 1:
        return x
    return jnp.where(_of_first_head(x.shape), *((x, 0.0) if head == 0 else (0.0, x)))


def _of_first_head(shape: tuple[int, ...]) -> Array:
    return jax.lax.broadcasted_iota(jnp.int32, shape, 1) < shape[1] // 2
