"""Folders are read, a device's part at a time, and refused with what is wrong; texts become ids as the folder says."""

import json
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fooddit.config import ConfigError
from fooddit.models.module import count
from fooddit.models.t5_folder import PUBLISHED, TOKENIZER, open_t5
from fooddit.models.t5_names import t5_config, t5_settings
from fooddit.models.tensors import TensorError, TensorFolder
from fooddit.parallel import MeshConfig, make_mesh, parameter_shardings
from parity import t5_made

TOKENIZERS = os.environ.get("FOODDIT_TOKENIZERS", "")


@pytest.fixture(scope="module")
def umt5(tmp_path_factory):
    return t5_made.write(tmp_path_factory.mktemp("t5") / "umt5", "umt5")


@pytest.fixture
def folder(umt5, tmp_path):
    """A copy to break."""
    return Path(shutil.copytree(umt5, tmp_path / "copy"))


@pytest.mark.parametrize("kind", t5_made.KINDS)
@pytest.mark.parametrize("shard_bytes", [5 << 30, 20_000], ids=["one file", "shards"])
def test_what_a_folder_holds_is_loaded(tmp_path, kind, shard_bytes):
    config = t5_made.KINDS[kind][1]
    encoder = open_t5(str(t5_made.write(tmp_path / kind, kind, shard_bytes=shard_bytes)), 8, "float32")
    assert encoder.config == config and (encoder.length, encoder.width) == (8, config.width)
    assert jax.tree.structure(encoder.shapes) == jax.tree.structure(encoder.load())
    jax.tree.map(np.testing.assert_array_equal, encoder.load(), t5_made.weights(config)["encoder"])


def test_each_device_reads_its_part(umt5, monkeypatch):
    encoder, read, sizes = open_t5(str(umt5), 8), TensorFolder.read, []

    def recorded(self, name, index=()):
        found = read(self, name, index)
        sizes.append((name.split(".")[-2], found.size))
        return found

    monkeypatch.setattr(TensorFolder, "read", recorded)
    mesh = make_mesh(MeshConfig(data=1, fsdp=2, tensor=2), jax.devices()[:4])
    placed = parameter_shardings(mesh, encoder.shapes, encoder.axes)
    params, config = encoder.load(placed), encoder.config
    assert jax.tree.map(lambda x: x.sharding, params) == placed
    # A quarter of a matrix of one layer is the most that is in memory of each at once.
    assert {size for name, size in sizes if name == "wo"} == {config.width * config.mlp // 4}
    assert {size for name, size in sizes if name == "shared"} == {config.vocabulary * config.width // 4}
    jax.tree.map(np.testing.assert_array_equal, params, encoder.load())


def test_matrices_are_bfloat16_and_gains_and_biases_float32(umt5):
    params = open_t5(str(umt5), 8).load()
    blocks = params["blocks"]
    assert params["embedding"].dtype == blocks["mlp"]["down"]["kernel"].dtype == "bfloat16"
    assert params["norm"]["gain"].dtype == blocks["attention"]["position_bias"].dtype == "float32"


@pytest.mark.parametrize("name", ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"])
def test_the_embedding_may_have_another_of_its_names(folder, name):
    tensors = load_file(folder / "model.safetensors")
    tensors[name] = tensors.pop("shared.weight")
    save_file(tensors, folder / "model.safetensors")
    np.testing.assert_array_equal(open_t5(str(folder), 8, "float32").load()["embedding"], tensors[name])


def test_a_text_ends_and_is_padded_or_cut(umt5):
    encoder = open_t5(str(umt5), 6)
    words = ["▁a", "▁bowl", "▁of", "▁noodles"]
    wanted = [t5_made.WORDS.index(word) for word in words]
    ids, mask = encoder.tokenize("a bowl of noodles")
    assert ids.dtype == np.int32 and ids.tolist() == [*wanted, 1, 0] and mask.tolist() == [True] * 5 + [False]
    ids, mask = encoder.tokenize("a bowl of noodles a bowl of noodles")
    assert ids.tolist() == [*wanted, wanted[0], 1] and mask.all()
    assert encoder.count("a bowl of noodles a bowl of noodles") == 9
    # No caption: what training drops.
    ids, mask = encoder.tokenize("")
    assert not ids.any() and not mask.any() and encoder.count("") == 0


def test_the_padding_is_the_configs(folder):
    settings = json.loads((folder / "config.json").read_text()) | {"pad_token_id": 5, "eos_token_id": [7, 8]}
    (folder / "config.json").write_text(json.dumps(settings))
    assert open_t5(str(folder), 4).tokenize("a")[0].tolist() == [t5_made.WORDS.index("▁a"), 7, 5, 5]


def test_the_description_names_the_source_and_follows_weights_and_tokenizer(folder):
    first = open_t5(str(folder), 6).description
    assert json.loads(json.dumps(first)) == first and first["source"] == str(folder)
    assert open_t5(str(folder), 6).description == first
    content = (folder / TOKENIZER).read_text(encoding="utf-8")
    (folder / TOKENIZER).write_text(content + "\n", encoding="utf-8")
    second = open_t5(str(folder), 6).description
    tensors = load_file(folder / "model.safetensors")
    save_file({name: 2 * tensor for name, tensor in tensors.items()}, folder / "model.safetensors")
    assert len({first["fingerprint"], second["fingerprint"], open_t5(str(folder), 6).description["fingerprint"]}) == 3


# Parameters of the encoders, embedding included, in millions.
@pytest.mark.parametrize(
    "name, millions", [("t5-v1_1-xxl", 4762.3), ("flan-t5-base", 109.6), ("mt5-small", 146.94), ("umt5-xxl", 5680.9)]
)
def test_a_published_shape_has_its_size_and_cannot_be_loaded(name, millions):
    encoder = open_t5(name, 256)
    assert count(encoder.shapes) / 1e6 == pytest.approx(millions, abs=0.1)
    assert encoder.description["fingerprint"] is None and encoder.width == PUBLISHED[name].width
    for use in (encoder.load, lambda: encoder.tokenize("noodles"), lambda: encoder.count("noodles")):
        with pytest.raises(ConfigError, match=f"{name} is a shape .*--config.towers.t5=DIR"):
            use()


def test_settings_are_read_as_they_are_written():
    for kind, (_, config) in t5_made.KINDS.items():
        if kind != "mt5":
            assert t5_config(t5_settings(config), "here") == config


@pytest.mark.parametrize(
    "settings, says",
    [
        ({"model_type": "bert"}, "model_type 'bert', expected one of t5, mt5, umt5"),
        ({"d_model": None, "d_kv": None}, "says nothing of d_model, d_kv"),
        ({"feed_forward_proj": "gated-silu"}, "feed_forward_proj 'gated-silu', expected relu or gated-gelu"),
        ({"num_heads": 0}, "heads must be at least 1, found 0"),
        ({"num_heads": "four"}, "config.json: "),
        ({"vocab_size": 10}, "tokenizer.json: has 14 tokens, .* has 10"),
        ({"d_ff": 41}, r"9 tensors .*wi_0.weight: found \(40, 24\), expected \(41, 24\)"),
        ({"num_layers": 4}, r"encoder.block.3.layer.0.SelfAttention.q.weight: missing, expected \(48, 24\)"),
        ({"model_type": "t5"}, r"\(t5\) has no place for 2 .*encoder.block.1.layer.0.*relative_attention_bias"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(folder, settings, says):
    changed = json.loads((folder / "config.json").read_text()) | settings
    (folder / "config.json").write_text(json.dumps({k: v for k, v in changed.items() if v is not None}))
    with pytest.raises(TensorError) as caught:
        open_t5(str(folder), 8).load()
    assert str(folder) in str(caught.value)
    caught.match("(?s)" + says)


@pytest.mark.parametrize(
    "break_it, says",
    [
        (lambda path: path.unlink(), "no such file; copy the tokenizer.json"),
        (lambda path: path.rename(path.with_name("spiece.model")), "has spiece.model only.*save_pretrained"),
        (lambda path: path.write_text("{}"), "cannot be read as a tokenizer"),
    ],
)
def test_a_folder_without_a_usable_tokenizer_is_refused(folder, break_it, says):
    break_it(folder / TOKENIZER)
    with pytest.raises(TensorError, match=says):
        open_t5(str(folder), 8)


@pytest.mark.parametrize(
    "arguments, says",
    [
        (("umt5-xx", 8), "found 'umt5-xx', expected a folder .*umt5-xxl"),
        (("umt5-xxl", 8, "float16"), "dtype: found 'float16'"),
        (("umt5-xxl", 1), "found|expected at least 2"),
    ],
)
def test_what_cannot_be_opened_is_said(arguments, says):
    with pytest.raises(ConfigError, match=says):
        open_t5(*arguments)


@pytest.mark.skipif(
    not TOKENIZERS, reason="FOODDIT_TOKENIZERS is not set to a folder with t5_tokenizer.json, umt5_tokenizer.json"
)
@pytest.mark.parametrize("name, knows", [("t5", False), ("umt5", True)])
def test_published_tokenizers_end_texts_and_know_chinese_or_not(tmp_path, name, knows):
    shape = PUBLISHED["umt5-small" if knows else "t5-v1_1-small"]
    shutil.copy(Path(TOKENIZERS) / f"{name}_tokenizer.json", tmp_path / TOKENIZER)
    (tmp_path / "config.json").write_text(json.dumps(t5_settings(shape)))
    save_file({"nothing": np.zeros(1, np.float32)}, tmp_path / "model.safetensors")
    encoder = open_t5(str(tmp_path), 32)
    unknown = json.loads((tmp_path / TOKENIZER).read_text(encoding="utf-8"))["model"]["unk_id"]
    for text in ("three dumplings on a round blue plate", "木桌左侧放着一只蓝色圆盘"):
        ids, mask = encoder.tokenize(text)
        assert ids[mask][-1] == 1 and mask.sum() == encoder.count(text) and not ids[~mask].any()
        assert (unknown in ids[mask]) == (text[0] > "z" and not knows)
