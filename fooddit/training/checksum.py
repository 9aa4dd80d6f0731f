"""Checksums of arrays that do not depend on how the array is cut over devices.

Each element's bits are mixed with its position by two bijections of 32-bit words and summed modulo 2**32. A sum does
not care who adds what, so every device adds its own part and nothing is gathered: an array on one device, on eight or
on many hosts has the same checksum. A bijection sends two different words to two different words, so a change of any
single element (of up to 32 bits) is caught with certainty; other changes escape with a chance of about 2**-64.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

# Odd constants of Austin Appleby's MurmurHash3 finaliser and of Chris Wellons' lowbias32.
_MURMUR = (16, 0x85EBCA6B, 13, 0xC2B2AE35, 16)
_LOWBIAS = (16, 0x7FEB352D, 15, 0x846CA68B, 16)
_GOLDEN = 0x9E3779B9


def checksums(leaves: Mapping[str, jax.Array | np.ndarray]) -> dict[str, str]:
    """Checksum of every named array as 16 hexadecimal digits.

    Booleans, integers and floats of 8 to 64 bits, any shape and sharding. Only two words an array come to the host.
    With several processes all of them must call it, with the same leaves. Raises TypeError for keys and other types.
    """
    for name, leaf in leaves.items():
        _check_type(name, leaf)
    sums = {name: _sums(leaves[name]) for name in sorted(leaves)}
    return {name: f"{int(first):08x}{int(second):08x}" for name, (first, second) in jax.device_get(sums).items()}


@jax.jit
def _sums(array: jax.Array) -> tuple[jax.Array, jax.Array]:
    words = _words(array)
    # Positions repeat after 2**32 words: a change of one word is still caught, only such far swaps are not told apart.
    place = _mix(_positions(words.shape) + jnp.uint32(1), _MURMUR)
    # A plain weighted sum would not do: negating two elements adds 2**31 twice, which is nothing modulo 2**32.
    first = _mix(words ^ place, _LOWBIAS)
    second = _mix(words + place * jnp.uint32(_GOLDEN), _MURMUR)
    # One reduction of both sums: fused, it reads the array once; over a mesh only the devices' partial sums travel.
    zeros = (jnp.uint32(0), jnp.uint32(0))
    return jax.lax.reduce((first, second), zeros, lambda a, b: (a[0] + b[0], a[1] + b[1]), tuple(range(words.ndim)))


def _words(array: jax.Array) -> jax.Array:
    """The bits of each element as uint32; 64-bit elements give two words along a new last axis."""
    if array.dtype == jnp.bool_:
        return array.astype(jnp.uint32)
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}[array.dtype.itemsize]
    return jax.lax.bitcast_convert_type(array, unsigned).astype(jnp.uint32)


def _positions(shape: tuple[int, ...]) -> jax.Array:
    """Row-major index of each element modulo 2**32; made of iotas, so it is sharded as what it is added to."""
    index, stride = jnp.zeros(shape, jnp.uint32), 1
    for axis in reversed(range(len(shape))):
        index = index + jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride % 2**32)
        stride *= shape[axis]
    return index


def _mix(words: jax.Array, constants: tuple[int, int, int, int, int]) -> jax.Array:
    """A bijection of 32-bit words in which each input bit moves about half of the output bits."""
    shift1, multiplier1, shift2, multiplier2, shift3 = constants
    words = (words ^ (words >> shift1)) * jnp.uint32(multiplier1)
    words = (words ^ (words >> shift2)) * jnp.uint32(multiplier2)
    return words ^ (words >> shift3)


def _check_type(name: str, leaf: jax.Array | np.ndarray) -> None:
    dtype = getattr(leaf, "dtype", None)
    if dtype is None:
        raise TypeError(f"{name}: found a {type(leaf).__name__}, expected an array; wrap it in jnp.asarray")
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
        raise TypeError(f"{name}: found random keys ({dtype}), expected numbers; keep jax.random.key_data(key) instead")
    if not (dtype == jnp.bool_ or jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.floating)):
        raise TypeError(f"{name}: found {dtype}, expected a boolean, integer or floating array")
