"""`fooddit export`: averaged weights in torch's layout, exact; what is drawn and trained from them is the same."""

import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

import fooddit
from fooddit.cli import main
from fooddit.config import ConfigError, build
from fooddit.models.tensors import TensorError
from fooddit.parallel import make_mesh
from fooddit.tasks.denoise import Denoise, DenoiseExperiment
from fooddit.training import loop
from fooddit.training.checkpoint import Checkpointer, load_parameters
from fooddit.training.exported import is_exported, save_exported
from fooddit.training.task import Evaluation
from fooddit.training.transfer import source_metadata

PROMPT = "two dumplings on a round blue plate"
BLOCK = "dit.blocks.0.attention.query.weight"


@pytest.fixture(scope="module")
def whole(tiny_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "model"
    assert main(["export", str(tiny_run), str(folder)]) == 0
    return folder


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "copy")


def same_trees(a, b) -> bool:
    return jax.tree.structure(a) == jax.tree.structure(b) and jax.tree.all(jax.tree.map(np.array_equal, a, b))


def edit(folder, **changes) -> None:
    path = folder / "config.json"
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in values.items() if value is not None}))


def test_the_round_trip_is_exact(whole, tiny_run):
    assert sorted(path.name for path in whole.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    params, metadata = load_parameters(tiny_run)
    found, about = load_parameters(whole)
    assert same_trees(found, params)
    assert about == {name: metadata[name] for name in ("task", "experiment", "step")}
    stored = load_file(whole / "model.safetensors")
    np.testing.assert_array_equal(stored[BLOCK], params["dit"]["blocks"]["attention"]["query"]["kernel"][0].T)
    config = json.loads((whole / "config.json").read_text())
    assert config["model_type"] == "fooddit_text_to_image" and config["step"] == 4
    assert config["task"]["frozen"] == {"space": {"autoencoder": "pixels"}}


def test_bfloat16_in_several_files_is_the_same_rounded(whole, tiny_run, tmp_path, capsys):
    assert main(["export", str(tiny_run), str(tmp_path / "half"), "--dtype", "bfloat16", "--step", "4"]) == 0
    assert "step 4, " in capsys.readouterr().out
    params, metadata = load_parameters(tiny_run)
    save_exported(tmp_path / "parts", params, metadata, "bfloat16", shard_bytes=50_000)
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 2
    rounded = jax.tree.map(lambda leaf: leaf.astype("bfloat16").astype(np.float32), params)
    for name in ("half", "parts"):
        found, _ = load_parameters(tmp_path / name)
        assert same_trees(found, rounded) and not same_trees(found, params)


def test_pictures_have_the_bits_of_the_runs(whole, tiny_run, tmp_path):
    run, exported = (fooddit.Pipeline.from_checkpoint(folder) for folder in (tiny_run, whole))
    assert exported.name == str(whole)
    before, after = (pipe.generate(PROMPT, num_images=2, seed=5) for pipe in (run, exported))
    assert all(np.array_equal(a.image, b.image) for a, b in zip(before, after, strict=True))
    command = ["generate", "--prompt", PROMPT, "--num", "1", "--seed", "5", "--out"]
    assert main([*command, str(tmp_path / "a"), "--checkpoint", str(whole)]) == 0
    with Image.open(next((tmp_path / "a").iterdir())) as drawn:
        assert np.array_equal(drawn, before[0].image) and drawn.text["checkpoint"] == str(whole)


def test_a_run_starts_from_it_by_name(whole, tiny_run, tmp_path, capsys, monkeypatch):
    metadata = source_metadata(str(tiny_run))
    assert source_metadata(str(whole))["task"] == metadata["task"]
    values = dict(metadata["experiment"])
    records = next(tiny_run.glob("records-*"))
    values |= {"init_from": str(whole), "data": values["data"] | {"source": str(records)}}
    values |= {
        "train": values["train"] | {"steps": 1},
        "optimizer": values["optimizer"] | {"trainable": ("dit/out/bias",)},
    }
    experiment = build(DenoiseExperiment, values)
    monkeypatch.setattr(loop, "make_mesh", lambda config: make_mesh(config, jax.devices()[:1]))
    monkeypatch.setattr(Denoise, "evaluate", lambda *_: Evaluation())
    loop.train(Denoise(experiment, tmp_path), experiment, tmp_path)
    assert "44 of 44 parameters by name" in capsys.readouterr().out
    trained, about = load_parameters(tmp_path, ema=False)
    started = load_parameters(whole)[0]
    assert not np.array_equal(trained["dit"]["out"].pop("bias"), started["dit"]["out"].pop("bias"))
    assert same_trees(trained, started)
    assert about["task"]["tokenizer"] == metadata["task"]["tokenizer"]


def test_what_cannot_be_exported_is_one_line(whole, tiny_run, tmp_path, capsys):
    checkpointer = Checkpointer(tmp_path / "other/checkpoints")
    checkpointer.save(
        1, {"opt_state": {"ema": {"params": {"a": np.zeros(2, np.float32)}}}}, {"task": {"kind": "eclip"}}
    )
    checkpointer.close()
    (tmp_path / "file").write_text("")
    for arguments, says in [
        ([tiny_run, whole], f"{whole} is there already"),
        ([tmp_path, tmp_path / "new"], f"{tmp_path} holds no checkpoints"),
        ([tmp_path / "other", tmp_path / "new"], "holds a checkpoint of kind 'eclip', expected text_to_image"),
        ([tiny_run, tmp_path / "new", "--step", "3"], "expected step 3, found"),
        ([whole, tmp_path / "new"], f"{whole} is an exported model already"),
        ([tiny_run, tmp_path / "file/new"], "file"),
    ]:
        assert main(["export", *map(str, arguments)]) == 2
        error = capsys.readouterr().err
        assert says in error and error.count("\n") == 1, error
        assert not (tmp_path / "new").exists() and not list(tmp_path.glob("*.partial"))


def flip_a_bit(folder) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-5] ^= 1
    (folder / "model.safetensors").write_bytes(content)


def resave(folder, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


DAMAGE = {
    "another model": (lambda f: edit(f, model_type="siglip"), "model_type is 'siglip', expected fooddit_text_to_image"),
    "another version": (lambda f: edit(f, format_version=1), "format_version is 1, expected 2"),
    "no experiment": (lambda f: edit(f, experiment=None), "has no experiment"),
    "a bit": (flip_a_bit, r"1 parameters are not those that were exported:\s+text/norm/gain: found"),
    "cut": (lambda f: (f / "model.safetensors").write_bytes(b"\0" * 20), "cannot be read as safetensors"),
    "no tensors": (lambda f: (f / "model.safetensors").unlink(), "expected model.safetensors or"),
    "no config": (lambda f: (f / "config.json").unlink(), "config.json: no such file"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json: cannot be read"),
    "another tokenizer": (lambda f: (f / "tokenizer.json").write_text("{}"), "is not the tokenizer"),
    "a tensor less": (lambda f: resave(f, lambda t: t.pop(BLOCK)), f"no tensor '{BLOCK}'"),
    "a tensor more": (lambda f: resave(f, lambda t: t.update(x=t[BLOCK])), "x: unknown to config.json"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_or_foreign_is_refused_by_name(copy, damage):
    break_it, says = DAMAGE[damage]
    break_it(copy)
    assert is_exported(copy)
    with pytest.raises(TensorError, match=says):
        fooddit.Pipeline.from_checkpoint(copy)
    if not damage.startswith("a "):  # What is in the arrays is seen when they are read.
        with pytest.raises(ConfigError, match=f"config.init_from: .*{says}"):
            source_metadata(str(copy))


def test_weights_that_someone_else_trained_on_are_taken_if_they_fit(copy):
    """Whoever writes other values takes the checksums out; names and shapes are still the model's."""
    resave(copy, lambda tensors: tensors.update({BLOCK: 2 * tensors[BLOCK]}))
    with pytest.raises(TensorError, match="attention/query/kernel: found"):
        load_parameters(copy)
    edit(copy, checksums=None)
    fooddit.Pipeline.from_checkpoint(copy)
    resave(copy, lambda tensors: tensors.update({"dit.out.bias": tensors["dit.out.bias"][:4], "more": tensors[BLOCK]}))
    with pytest.raises(TensorError, match=r"2 parameters .*\s+dit/out/bias: found \(4,\), expected \(192,\)\s+more: "):
        fooddit.Pipeline.from_checkpoint(copy)


def test_another_step_is_not_there(whole):
    fooddit.Pipeline.from_checkpoint(whole, step=4)
    with pytest.raises(FileNotFoundError, match="expected step 2, found an exported model of step 4"):
        fooddit.Pipeline.from_checkpoint(whole, step=2)
