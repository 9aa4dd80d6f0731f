"""What attention is given: arrays that fit each other, or an error that names the one that does not."""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from fooddit.kernels.reference import check_heads


class Branch(NamedTuple):
    """Keys, values, the gain of the keys' norm and a mask or None."""

    k: Array
    v: Array
    gain: Array
    mask: Array | None


def check_arguments(q: Array, num_heads: int, q_scale: Array, branches: Mapping[str, Branch]) -> None:
    """ValueError if something does not fit q, (batch, tokens, width). Branches by the prefix of their arguments."""
    if not isinstance(num_heads, int) or num_heads < 1:
        raise ValueError(f"num_heads: found {num_heads!r}, expected an integer of at least 1")
    _wide("q", q)
    batch, _, width = q.shape
    gains = {"q_scale": q_scale}
    for prefix, (k, v, gain, mask) in branches.items():
        _wide(f"{prefix}k", k)
        _wide(f"{prefix}v", v)
        if (k.shape[0], k.shape[2]) != (batch, width):
            raise ValueError(f"{prefix}k has shape {k.shape}, expected q's batch and width, ({batch}, tokens, {width})")
        check_shape(f"{prefix}v", v, k.shape)
        gains[f"{prefix}k_scale"] = gain
        if mask is not None:
            _mask(f"{prefix or 'kv_'}mask", mask, k.shape[:2])
    for name, gain in gains.items():
        _array(name, gain)
    check_heads(q, num_heads, **gains)


def check_shape(name: str, x: Array, *expected: tuple[int, ...]) -> None:
    """ValueError if x is no array of one of the shapes."""
    _array(name, x)
    if x.shape not in expected:
        raise ValueError(f"{name} has shape {x.shape}, expected {' or '.join(map(str, expected))}")


def _wide(name: str, x: Array) -> None:
    _array(name, x)
    if x.ndim != 3 or 0 in x.shape:
        raise ValueError(
            f"{name} has shape {x.shape}, expected (batch, tokens, heads * head_dim), none of them 0: "
            "a head is a slice of the last axis"
        )
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"{name} has dtype {x.dtype}, expected floating point")


def _mask(name: str, mask: Array, shape: tuple[int, ...]) -> None:
    check_shape(name, mask, shape)
    if mask.dtype != bool:
        raise ValueError(
            f"{name} has dtype {mask.dtype}, expected bool, True where a key may be attended to; "
            "for a mask that is added to logits pass mask == 0"
        )


def _array(name: str, x: Array) -> None:
    if not hasattr(x, "shape") or not hasattr(x, "dtype"):
        raise ValueError(f"{name}: found {type(x).__name__}, expected an array")
