import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from fooddit.training.checksum import _over_mesh, _whole, checksums

DTYPES = ("float32", "bfloat16", "float16", "int32", "uint8", "bool")


def _checksum(array) -> str:
    return checksums({"a": array})["a"]


def _random(dtype: str, shape: tuple[int, ...] = (8, 16), seed: int = 0) -> np.ndarray:
    draws = np.random.default_rng(seed).integers(0, 256, shape)
    return draws % 2 == 0 if dtype == "bool" else (draws / 7).astype(jnp.dtype(dtype))


def _flip(array: np.ndarray, index: int, bit: int) -> np.ndarray:
    flat = array.copy().reshape(-1).view(np.uint8)
    flat[index * array.itemsize + bit // 8] ^= 1 << (bit % 8)
    return flat.view(array.dtype).reshape(array.shape)


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype != "bool"])
def test_every_single_bit_flip_changes_it(dtype):
    array = _random(dtype, (3, 5))
    flipped = {f"{i} {bit}": _flip(array, i, bit) for i in (0, 7, 14) for bit in range(8 * array.itemsize)}
    assert _checksum(array) not in checksums(flipped).values()


def test_a_boolean_that_changes_is_seen():
    array = _random("bool")
    changed = array.copy()
    changed[3, 4] ^= True
    assert _checksum(changed) != _checksum(array)


def test_moved_values_are_seen():
    array = _random("float32")
    moved = {"reversed": array[::-1].copy(), "rolled": np.roll(array, 1), "swapped": array.copy()}
    moved["swapped"][[0, 1]] = moved["swapped"][[1, 0]]
    assert _checksum(array) not in checksums(moved).values()


def test_changes_that_cancel_in_a_weighted_sum_are_seen():
    """Two flipped signs add 2**31 twice to any sum with odd weights: nothing modulo 2**32."""
    array = np.ones((4, 4), np.float32)
    two = array.copy()
    two[0, :2] *= -1
    assert len({_checksum(array), _checksum(two), _checksum(-array)}) == 3


def test_zeros_of_other_lengths_differ():
    assert len(set(checksums({str(n): np.zeros(n, np.float32) for n in range(1, 6)}).values())) == 5


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("spec", [("a", "b"), ("b",), (None, ("a", "b")), (("a", "b"), None), ()])
def test_it_does_not_depend_on_the_sharding(dtype, spec):
    mesh = jax.make_mesh((2, 4), ("a", "b"), axis_types=(AxisType.Auto, AxisType.Auto))
    array = _random(dtype)
    sharded = jax.device_put(array, NamedSharding(mesh, PartitionSpec(*spec)))
    assert _checksum(sharded) == _checksum(array)


def test_over_a_mesh_no_device_talks_to_another():
    mesh = jax.make_mesh((8,), ("a",), axis_types=(AxisType.Auto,))
    array = jax.device_put(np.zeros((64, 4096), np.float32), NamedSharding(mesh, PartitionSpec("a")))
    program = _over_mesh(mesh, array.sharding.spec).lower(array).compile().as_text()
    assert not re.search(r"all-|collective", program)


def test_many_leaves_over_a_mesh_at_once():
    mesh = jax.make_mesh((8,), ("a",), axis_types=(AxisType.Auto,))
    leaves = {str(i): np.full((8, 4), i, np.float32) for i in range(100)}
    sharded = {k: jax.device_put(v, NamedSharding(mesh, PartitionSpec("a"))) for k, v in leaves.items()}
    assert checksums(sharded) == checksums(leaves)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 5), (2, 300, 700)])
def test_numpy_and_device_arrays_agree(dtype, shape):
    array = _random(dtype, shape)
    on_device = "".join(f"{word:08x}" for word in _whole(jnp.asarray(array)).tolist())
    assert _checksum(array) == _checksum(jnp.asarray(array)) == _checksum(np.asfortranarray(array)) == on_device


def test_it_stays_what_it_is():
    """Checkpoints on disk hold these values."""
    leaves = {"f": np.arange(6, dtype=np.float32).reshape(2, 3), "s": jnp.int32(7), "b": jnp.ones(3, jnp.bfloat16)}
    assert checksums(leaves) == {"b": "87e5ecd6ce2aa44b", "f": "aa977a36ba077a0a", "s": "312aa8b253eecaec"}


def test_what_cannot_be_summed_is_named():
    with pytest.raises(TypeError, match="seed: found random keys"):
        checksums({"seed": jax.random.key(0)})
    with pytest.raises(TypeError, match="step: found a int"):
        checksums({"step": 3})
