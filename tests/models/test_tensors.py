"""Folders in the Hugging Face layout: read whole or a device's part, written back exactly, refused with names."""

import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from safetensors.numpy import save_file

from fooddit.models.tensors import Source, TensorError, TensorFolder, load_tree, save_folder, unused_tensors

rng = np.random.default_rng(0)
LINEAR = [rng.normal(size=(6, 4)).astype(np.float32) for _ in range(3)]
FUSED = rng.normal(size=(12, 4)).astype(np.float32)
CONV = rng.normal(size=(8, 3, 2, 2)).astype(np.float32)
STORED = {f"blocks.{i}.weight": w for i, w in enumerate(LINEAR)} | {"in_proj": FUSED, "patch.weight": CONV}
SOURCES = {
    "kernel": Source(tuple(f"blocks.{i}.weight" for i in range(3)), (1, 0)),
    "key": Source("in_proj", (1, 0), part=(1, 3)),
    "query": Source("in_proj", (1, 0), part=(0, 3)),
    "value": Source("in_proj", (1, 0), part=(2, 3)),
    "patch": Source("patch.weight", (2, 3, 1, 0), stored=(8, 3, 2, 2)),
}
SHAPES = {
    name: jax.ShapeDtypeStruct(shape, jnp.float32)
    for name, shape in {"kernel": (3, 4, 6), "key": (4, 4), "query": (4, 4), "value": (4, 4), "patch": (12, 8)}.items()
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "made"}', encoding="utf-8")
    save_file(STORED | {"more": np.zeros(2, np.float32)}, str(tmp_path / "model.safetensors"))
    return tmp_path


def test_leaves_are_the_stored_tensors_permuted_stacked_cut_and_reshaped(folder):
    found = load_tree(TensorFolder(folder), SOURCES, SHAPES)
    np.testing.assert_array_equal(found["kernel"], np.stack([w.T for w in LINEAR]))
    np.testing.assert_array_equal(found["key"], FUSED[4:8].T)
    np.testing.assert_array_equal(found["patch"], CONV.transpose(2, 3, 1, 0).reshape(12, 8))


def test_a_device_reads_its_part_and_nothing_else(folder, monkeypatch):
    mesh = jax.make_mesh((4,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    cut = {"kernel": (None, None, "x"), "key": ("x",), "query": (None, "x"), "value": (), "patch": ("x",)}
    cut["kernel"] = (None, "x")
    placed = {name: NamedSharding(mesh, PartitionSpec(*spec)) for name, spec in cut.items()}
    opened, sizes = TensorFolder(folder), []
    read = opened.read
    monkeypatch.setattr(
        opened, "read", lambda name, index=(): sizes.append((name, read(name, index).size)) or read(name, index)
    )
    found = load_tree(opened, SOURCES, SHAPES, placed)
    for name, whole in load_tree(TensorFolder(folder), SOURCES, SHAPES).items():
        np.testing.assert_array_equal(found[name], whole)
    # A quarter of the inputs of each matrix; of the part of a fused one, a quarter of a third.
    assert max(size for name, size in sizes if name.startswith("blocks")) == 6
    assert sorted({size for name, size in sizes if name == "in_proj"}) == [4, 16]


def test_what_is_written_is_read_back_bit_for_bit_also_in_shards(tmp_path):
    params = {name: rng.normal(size=s.shape).astype(np.float32) for name, s in SHAPES.items()}
    save_folder(tmp_path / "whole", {"a": "中文"}, SOURCES, params)
    save_folder(tmp_path / "cut", {"a": "中文"}, SOURCES, params, shard_bytes=300)
    assert len(list((tmp_path / "cut").glob("*.safetensors"))) > 1
    for name in ("whole", "cut"):
        opened = TensorFolder(tmp_path / name)
        assert opened.config == {"a": "中文"} and opened.shapes["in_proj"] == (12, 4)
        found = load_tree(opened, SOURCES, SHAPES)
        assert all(np.array_equal(found[key], params[key]) for key in params)
        # Who may read the configuration may read the tensors.
        assert len({file.stat().st_mode for file in (tmp_path / name).iterdir()}) == 1
    with pytest.raises(FileExistsError, match="whole is there already"):
        save_folder(tmp_path / "whole", {}, SOURCES, params)


def test_bfloat16_files_are_read_and_arrays_made_in_the_type_asked_for(tmp_path):
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    save_file({"w": LINEAR[0].astype(ml_dtypes.bfloat16)}, str(tmp_path / "model.safetensors"))
    shapes = {"w": jax.ShapeDtypeStruct((4, 6), jnp.float32)}
    found = load_tree(TensorFolder(tmp_path), {"w": Source("w", (1, 0))}, shapes)["w"]
    np.testing.assert_array_equal(found, LINEAR[0].T.astype(ml_dtypes.bfloat16).astype(np.float32))
    assert (
        load_tree(TensorFolder(tmp_path), {"w": Source("w", (1, 0))}, shapes, dtype="bfloat16")["w"].dtype == "bfloat16"
    )


def test_all_that_does_not_fit_is_named(folder):
    wrong = SOURCES | {"key": Source("in_project", (1, 0)), "kernel": Source(SOURCES["kernel"].name)}
    with pytest.raises(TensorError) as caught:
        load_tree(TensorFolder(folder), wrong, SHAPES)
    for part in ("4 tensors", "in_project: missing, expected (4, 4)", "blocks.2.weight: found (6, 4), expected (4, 6)"):
        assert part in str(caught.value)
    assert unused_tensors(TensorFolder(folder), SOURCES) == ["more"]


def test_the_fingerprint_follows_config_and_content(folder):
    before = TensorFolder(folder).fingerprint
    assert TensorFolder(folder).fingerprint == before
    (folder / "config.json").write_text('{"model_type": "other"}', encoding="utf-8")
    other = TensorFolder(folder).fingerprint
    save_file(STORED | {"more": np.ones(2, np.float32)}, str(folder / "model.safetensors"))
    assert len({before, other, TensorFolder(folder).fingerprint}) == 3


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "config.json: no such file"),
        ({"config.json": "{"}, "not JSON"),
        ({"config.json": "{}"}, "expected model.safetensors"),
        ({"config.json": "{}", "pytorch_model.bin": "x"}, "pytorch_model.bin is a pickle"),
        ({"config.json": "{}", "model.safetensors": "x"}, "cannot be read as safetensors"),
        (
            {"config.json": "{}", "model.safetensors.index.json": json.dumps({"weight_map": {"a": "b.safetensors"}})},
            "lists b.safetensors",
        ),
    ],
)
def test_a_folder_that_is_none_is_refused(tmp_path, files, says):
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(TensorError, match=says):
        TensorFolder(tmp_path)
