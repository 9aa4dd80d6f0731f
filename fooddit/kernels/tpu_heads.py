"""Queries and keys as they are multiplied, and the way back, on arrays of (channels, tokens).

With channels along sublanes a head's norm is a sum of registers, and the halves that RoPE exchanges are registers of
their own: no lane is moved. `Layout.heads` heads lie below one another.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fooddit.kernels.reference import EPSILON
from fooddit.kernels.tpu_common import LANES, LOG2_E


def prepare(
    x: Float[Array, "lanes tokens"],
    gain: Float[Array, "head_dim 1"],
    cos: Float[Array, "half tokens"],
    sin: Float[Array, "half tokens"],
) -> Float[Array, "lanes tokens"]:
    """Normalised, gained and rotated, in x's dtype."""
    unit, _ = _unit(x, gain)
    return _rotate(unit * gain, cos, sin).reshape(x.shape).astype(x.dtype)


def prepare_back(
    gradient: Float[Array, "lanes tokens"],
    x: Float[Array, "lanes tokens"],
    gain: Float[Array, "head_dim 1"],
    cos: Float[Array, "half tokens"],
    sin: Float[Array, "half tokens"],
) -> tuple[Float[Array, "tokens lanes"], Float[Array, "1 lanes"]]:
    """The gradients of `prepare`'s x, in its dtype and with tokens as rows, and of each head's gain.

    Logits are in powers of two, hence LOG2_E.
    """
    unit, scale = _unit(x, gain)
    turned = _rotate(gradient.reshape(unit.shape) * (1 / LOG2_E), cos, -sin)
    inner = turned * gain
    d_x = scale * (inner - unit * jnp.mean(inner * unit, axis=1, keepdims=True))
    products = (turned * unit).reshape(x.shape)
    # Registers are added first, so that lanes are summed once, as rows of the transpose.
    products = sum(products[:, first : first + LANES] for first in range(0, x.shape[1], LANES))
    return jnp.transpose(d_x.reshape(x.shape).astype(x.dtype)), jnp.transpose(products).sum(axis=0, keepdims=True)


def only(x: Float[Array, "lanes tokens"], head: int, head_dim: int) -> Float[Array, "lanes tokens"]:
    """x with zeros for all heads but one: a product over all lanes is then over that head's."""
    if head_dim == x.shape[0]:
        return x
    rows, first = jax.lax.broadcasted_iota(jnp.int32, x.shape, 0), head * head_dim
    return jnp.where((rows >= first) & (rows < first + head_dim), x, jnp.zeros_like(x))


def _unit(x: Array, gain: Array) -> tuple[Array, Array]:
    """x by heads, (heads, head_dim, tokens), divided by its root mean square; and the factor that did it."""
    y = x.astype(jnp.float32).reshape(-1, gain.shape[0], x.shape[1])
    scale = jax.lax.rsqrt(jnp.mean(y * y, axis=1, keepdims=True) + EPSILON)
    return y * scale, scale


def _rotate(x: Array, cos: Array, sin: Array) -> Array:
    first, second = jnp.split(x, 2, axis=1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=1)
