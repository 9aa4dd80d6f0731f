"""Checksums of arrays that do not depend on how the array is cut over devices.

Each element's bits are mixed with its position by two bijections of 32-bit words and summed modulo 2**32. A sum does
not care who adds what: every device adds up its own part and the host adds the parts, so an array has one checksum on
one device, on eight, on many hosts and as numpy. A bijection sends two different words to two different words, so a
change of any single element (of up to 32 bits) is caught with certainty; others escape with a chance of about 2**-64.
"""

from collections.abc import Mapping, Sequence
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

# Constants of Austin Appleby's MurmurHash3 finaliser and of Chris Wellons' lowbias32.
_MURMUR = (16, 0x85EBCA6B, 13, 0xC2B2AE35, 16)
_LOWBIAS = (16, 0x7FEB352D, 15, 0x846CA68B, 16)
_GOLDEN = 0x9E3779B9
# Words of a numpy array that are summed at a time: one program for arrays of any shape.
_CHUNK = 2**18


def checksums(leaves: Mapping[str, jax.Array | np.ndarray]) -> dict[str, str]:
    """Checksum of every named array as 16 hexadecimal digits.

    Booleans, integers and floats of 8 to 64 bits, any shape, on one device or over a mesh. Two words of each part come
    to the host. With several processes all of them must call it, with the same leaves. Raises TypeError for others.
    """
    for name, leaf in leaves.items():
        _check_type(name, leaf)
    names = sorted(leaves)
    # Everything is started before anything is waited for.
    started = {name: _start(leaves[name]) for name in names if not _is_on_host(leaves[name])}
    sums = np.zeros((len(names), 2), np.uint32)
    for i, name in enumerate(names):
        parts = jax.device_get(started[name]) if name in started else _host_parts(np.asarray(leaves[name]))
        sums[i] = np.sum([part.reshape(2) for part in parts] or [sums[i]], axis=0, dtype=np.uint32)
    spread = [i for i, name in enumerate(names) if name in started and not leaves[name].is_fully_addressable]
    if spread:
        sums[spread] = multihost_utils.process_allgather(sums[spread]).sum(axis=0, dtype=np.uint32)
    return {name: f"{first:08x}{second:08x}" for name, (first, second) in zip(names, sums.tolist(), strict=True)}


def _is_on_host(leaf: jax.Array | np.ndarray) -> bool:
    """Whether it can be read whole where it lies, which spares a program for every shape."""
    return not isinstance(leaf, jax.Array) or (
        leaf.is_fully_replicated and all(device.platform == "cpu" for device in leaf.sharding.device_set)
    )


def _start(array: jax.Array) -> list[jax.Array]:
    """Sums of the parts that this process answers for, on their devices; copies of a part count once."""
    if not isinstance(array.sharding, NamedSharding):
        parts = [_whole(array)]
    else:
        # No collective: programs with collectives, started while others run, can block each other on CPU devices.
        sums = _over_mesh(array.sharding.mesh, array.sharding.spec)(array)
        owners = {shard.device for shard in array.addressable_shards if shard.replica_id == 0}
        parts = [shard.data for shard in sums.addressable_shards if shard.device in owners]
    for part in parts:
        part.copy_to_host_async()
    return parts


@jax.jit
def _whole(array: jax.Array) -> jax.Array:
    words = _words(array)
    return _sums(words, _positions(words.shape, words.shape, (0,) * words.ndim))


@cache
def _over_mesh(mesh: Mesh, spec: PartitionSpec):
    """A program that gives each device's sums of its own part, stacked along a first axis."""

    def part(array: jax.Array) -> jax.Array:
        words = _words(array)
        names = [(entry,) if isinstance(entry, str) else tuple(entry or ()) for entry in spec]
        names += [()] * (words.ndim - len(names))
        starts = [jax.lax.axis_index(axes) * size if axes else 0 for axes, size in zip(names, words.shape)]
        counts = [int(np.prod([mesh.shape[axis] for axis in axes])) for axes in names]
        shape = [size * count for size, count in zip(words.shape, counts)]
        return _sums(words, _positions(words.shape, shape, starts))[None]

    every_axis = PartitionSpec(mesh.axis_names)
    return jax.jit(jax.shard_map(part, mesh=mesh, in_specs=spec, out_specs=every_axis, check_vma=False))


def _host_parts(array: np.ndarray) -> list[np.ndarray]:
    """The same of a numpy array, by chunks: it compiles once, whatever the shapes."""
    words = np.ascontiguousarray(array).reshape(-1).view(f"uint{8 * min(array.dtype.itemsize, 4)}")
    sums = []
    for start in range(0, words.size, _CHUNK):
        chunk = words[start : start + _CHUNK].astype(np.uint32)
        sums.append(_chunk(np.pad(chunk, (0, _CHUNK - chunk.size)), np.uint32(start % 2**32), chunk.size))
    return jax.device_get(sums)


@jax.jit
def _chunk(words: jax.Array, start: jax.Array, count: jax.Array) -> jax.Array:
    offsets = jnp.arange(_CHUNK, dtype=jnp.uint32)
    return _sums(words, start + offsets, offsets < count)


def _sums(words: jax.Array, positions: jax.Array, used: jax.Array | bool = True) -> jax.Array:
    """The two sums of uint32 words at their positions in the whole array."""
    # Positions repeat after 2**32 words: a change of one word is still caught, only such far swaps are not told apart.
    place = _mix(positions + jnp.uint32(1), _MURMUR)
    # A plain weighted sum would not do: negating two elements adds 2**31 twice, which is nothing modulo 2**32.
    first = jnp.where(used, _mix(words ^ place, _LOWBIAS), jnp.uint32(0))
    second = jnp.where(used, _mix(words + place * jnp.uint32(_GOLDEN), _MURMUR), jnp.uint32(0))
    # One reduction of both sums reads the array once.
    zeros = (jnp.uint32(0), jnp.uint32(0))
    axes = tuple(range(words.ndim))
    return jnp.stack(jax.lax.reduce((first, second), zeros, lambda a, b: (a[0] + b[0], a[1] + b[1]), axes))


def _words(array: jax.Array) -> jax.Array:
    """The bits of each element as uint32; 64-bit elements give two words along a new last axis."""
    if array.dtype == jnp.bool_:
        return array.astype(jnp.uint32)
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}[array.dtype.itemsize]
    return jax.lax.bitcast_convert_type(array, unsigned).astype(jnp.uint32)


def _positions(part: Sequence[int], whole: Sequence[int], starts: Sequence[jax.Array | int]) -> jax.Array:
    """Row-major index in the whole array, modulo 2**32, of each element of a part that begins at `starts`."""
    index, stride = jnp.zeros(part, jnp.uint32), 1
    for axis in reversed(range(len(part))):
        along = jax.lax.broadcasted_iota(jnp.uint32, part, axis) + jnp.asarray(starts[axis]).astype(jnp.uint32)
        index = index + along * jnp.uint32(stride % 2**32)
        stride *= whole[axis]
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
