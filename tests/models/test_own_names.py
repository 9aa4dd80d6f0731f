"""Our own modules' arrays in files: torch's names, back again without the module, one file in memory at a time."""

import tracemalloc

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from safetensors.numpy import load_file, save_file

from fooddit.models.dit import DiT, DiTConfig
from fooddit.models.module import define
from fooddit.models.own_names import own_sources, read_own
from fooddit.models.tensors import Source, TensorError, TensorFolder, load_tree, save_folder, stored_tensors

CONFIG = DiTConfig(width=16, depth=3, head_dim=8, image_tokens=2, image_width=12)
DEFINITION = define(lambda rngs: DiT(CONFIG, token_features=6, context_width=10, rngs=rngs))
NAME = "blocks.1.attention.query.weight"


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), DEFINITION.shapes)


@pytest.fixture
def folder(params, tmp_path):
    save_folder(tmp_path / "dit", {}, own_sources(params), params)
    return tmp_path / "dit"


def flat(tree) -> dict:
    return {jax.tree_util.keystr(k, simple=True, separator="/"): v for k, v in jax.tree.leaves_with_path(tree)}


def test_names_and_layout_are_torchs(params):
    sources = own_sources(DEFINITION.shapes)
    assert sources["embed"] == {"kernel": Source("embed.weight", (1, 0)), "bias": Source("embed.bias")}
    assert sources["context_norm"]["gain"] == Source("context_norm.weight")
    assert sources["blocks"]["table"] == Source(tuple(f"blocks.{i}.table" for i in range(3)))
    stored = stored_tensors(sources, params)
    np.testing.assert_array_equal(stored[NAME], params["blocks"]["attention"]["query"]["kernel"][1].T)
    assert stored["blocks.2.cross.image_key.weight"].shape == (16, 12)


def test_a_folder_is_read_back_bit_for_bit_with_and_without_the_module(params, folder):
    found = read_own(TensorFolder(folder))
    expected = flat(params)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    loaded = load_tree(TensorFolder(folder), own_sources(DEFINITION.shapes), DEFINITION.shapes)
    assert all(np.array_equal(value, expected[name]) for name, value in flat(loaded).items())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda tensors: tensors.pop(NAME), f"no tensor '{NAME}', but 'blocks.2.attention.query.weight'"),
        (lambda tensors: tensors.update({NAME: tensors[NAME][:8]}), rf"{NAME} is \(8, 16\), expected \(16, 16\) as"),
    ],
    ids=["missing", "reshaped"],
)
def test_a_block_that_is_not_like_the_others_is_named(folder, change, says):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(TensorError, match=says):
        read_own(TensorFolder(folder))


@pytest.mark.parametrize("sharded", [False, True], ids=["host", "eight devices"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_beside_the_parameters_one_file_is_held(sharded, dtype, tmp_path):
    layer, depth = 1 << 16, 32
    leaf = np.arange(depth * layer, dtype=np.float32).reshape(depth, 256, 256)
    params = {"blocks": {"a": {"kernel": leaf}, "b": {"kernel": leaf + 1}}}
    if sharded:
        mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
        params = jax.device_put(params, NamedSharding(mesh, PartitionSpec(None, "x")))
    tracemalloc.start()
    save_folder(tmp_path / "out", {}, own_sources(params), params, dtype=dtype, shard_bytes=4 * layer * 4)
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # A file's tensors, and the one that is being made in two types.
    assert 4 * layer < held < 8 * layer * 4 < leaf.nbytes
    found = read_own(TensorFolder(tmp_path / "out"))["blocks/b/kernel"]
    np.testing.assert_array_equal(found, (leaf + 1).astype(dtype))


def test_what_cannot_be_written_leaves_nothing_behind(params, tmp_path, monkeypatch):
    monkeypatch.setattr("fooddit.models.tensors.save_file", lambda *_, **__: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        save_folder(tmp_path / "out", {}, own_sources(params), params)
    assert not list(tmp_path.iterdir())
