"""E-CLIP from folders: published layouts, our own exactly, a device's part only, names of sizes, what is refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers

from fooddit.config import ConfigError
from fooddit.data.tokenizer import train_tokenizer
from fooddit.models.eclip_config import EclipConfig, ImageTowerConfig, TextTowerConfig
from fooddit.models.eclip_folder import PublishedTokenizer, open_eclip, save_eclip
from fooddit.models.tensors import TensorError, TensorFolder, unused_tensors
from fooddit.parallel import MeshConfig, make_mesh, parameter_shardings
from tests.models.eclip_cases import CASES, published, random_weights, weights, write

CONFIG = EclipConfig(
    ImageTowerConfig(width=32, depth=3, head_dim=8, patch=4, image_size=16),
    TextTowerConfig(width=24, depth=2, head_dim=8, vocabulary=300, length=9),
    embed=12,
)


@pytest.fixture
def ours(tmp_path):
    params = random_weights(CONFIG)
    save_eclip(tmp_path / "out", CONFIG, params, train_tokenizer(["a soup", "两只饺子"], 300))
    return params, tmp_path / "out"


@pytest.mark.parametrize("name", CASES)
def test_a_published_folder_is_read_whole(name, tmp_path):
    folder = write(name, tmp_path / "published")
    encoder = open_eclip(str(folder))
    jax.tree.map(np.testing.assert_array_equal, encoder.load(), weights(name))
    assert unused_tensors(TensorFolder(folder), published(name)[1]) == []
    config = encoder.config
    assert (encoder.length, encoder.width, encoder.embed) == (11, 24, config.embed)
    assert (encoder.image_size, encoder.image_tokens, encoder.image_width) == (16, 16, 32)


def test_the_description_changes_with_weights_tokenizer_and_pixels(ours, tmp_path):
    params, folder = ours
    described = open_eclip(str(folder)).description
    assert described["source"] == str(folder) and open_eclip("eclip-b").description["fingerprint"] is None
    found = {described["fingerprint"]}
    save_eclip(
        tmp_path / "other", CONFIG, jax.tree.map(lambda x: x + 1e-3, params), train_tokenizer(["soup", "soup"], 300)
    )
    found.add(open_eclip(str(tmp_path / "other")).description["fingerprint"])
    (folder / "tokenizer.json").write_bytes((tmp_path / "other" / "tokenizer.json").read_bytes())
    found.add(open_eclip(str(folder)).description["fingerprint"])
    published = write("clip", tmp_path / "published")
    found.add(open_eclip(str(published)).description["fingerprint"])
    (published / "preprocessor_config.json").write_text('{"image_mean": [0.1, 0.2, 0.3]}')
    found.add(open_eclip(str(published)).description["fingerprint"])
    assert len(found) == 5


def test_preprocessing_comes_from_the_folder_or_is_the_models_own(tmp_path):
    folder = write("clip", tmp_path / "published")
    assert open_eclip(str(folder)).mean[0] == pytest.approx(0.48145466)
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 3]}')
    encoder = open_eclip(str(folder))
    assert encoder.mean == (0.1, 0.2, 0.3) and encoder.deviation == (1, 2, 3)


def test_our_own_folder_is_exact_with_torchs_names_and_layout(ours):
    params, folder = ours
    encoder = open_eclip(str(folder))
    assert encoder.config == CONFIG
    jax.tree.map(np.testing.assert_array_equal, encoder.load(), params)
    stored = TensorFolder(folder)
    assert stored.shapes["image.blocks.2.mlp.up.weight"] == (96, 32) and stored.shapes["logit_scale"] == ()
    ids, mask = encoder.tokenize("两只饺子")
    # A Chinese character is three bytes, of which so small a vocabulary has made nothing yet.
    assert ids.shape == mask.shape == (9,) and mask.all() and encoder.count("两只饺子") == 12
    with pytest.raises(FileExistsError):
        save_eclip(folder, CONFIG, params, train_tokenizer(["a soup"], 300))


def test_arrays_are_of_the_type_asked_for_and_cut_over_devices(ours):
    params, folder = ours
    encoder = open_eclip(str(folder), "bfloat16")
    mesh = make_mesh(MeshConfig(data=1, fsdp=4), jax.devices()[:4])
    placed = encoder.load(parameter_shardings(mesh, encoder.shapes, encoder.axes))
    query = placed["image"]["blocks"]["attention"]["query"]["kernel"]
    assert query.dtype == jnp.bfloat16 and query.addressable_shards[0].data.shape == (3, 8, 32)
    expected = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    jax.tree.map(np.testing.assert_array_equal, placed, expected)
    encode = lambda params, pixels: encoder.bind(params).encode_image(pixels)
    features = jax.eval_shape(encode, encoder.shapes, jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32))
    assert features.tokens.dtype == jnp.bfloat16 and features.pooled.dtype == jnp.float32


def test_a_name_of_a_size_has_shapes_and_no_arrays():
    encoder = open_eclip("eclip-s")
    assert encoder.shapes["image"]["blocks"]["attention"]["query"]["kernel"].shape == (12, 384, 384)
    for ask in (encoder.load, lambda: encoder.tokenize("soup"), lambda: encoder.count("soup")):
        with pytest.raises(ConfigError, match="eclip-s is the name of a size.*--config.towers.eclip=DIR"):
            ask()


def test_what_is_no_such_model_is_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match="'eclip-xxl': no such folder; expected one, or one of eclip-s, eclip-b"):
        open_eclip("eclip-xxl")
    folder = write("siglip", tmp_path / "published")
    config = json.loads((folder / "config.json").read_text())

    def refuses(change: dict, message: str):
        (folder / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(TensorError, match=message):
            open_eclip(str(folder)).load()

    refuses({"model_type": "blip"}, "model_type is 'blip', expected one of fooddit_eclip, clip, siglip, siglip2")
    vision = config["vision_config"]
    refuses({"vision_config": vision | {"hidden_act": "relu"}}, "hidden_act is 'relu'")
    refuses({"vision_config": vision | {"vision_use_head": False}}, "vision_use_head is false")
    refuses({"vision_config": vision | {"num_hidden_layers": 4}}, "vision_model.encoder.layers.3.*missing")
    refuses(
        {"vision_config": vision | {"intermediate_size": 60}}, r"mlp.fc1.weight: found \(56, 32\), expected \(60, 32\)"
    )
    with pytest.raises(TensorError, match="tokenizer.json: no such file"):
        (folder / "config.json").write_text(json.dumps(config))
        open_eclip(str(folder)).tokenize("soup")


def test_a_published_tokenizer_keeps_its_special_tokens_and_pads_on_the_right(tmp_path):
    vocabulary = {"<pad>": 0, "</s>": 1, "<unk>": 2, "soup": 3, "noodles": 4, "hot": 5}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    made.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"pad_token": "<pad>", "tokenizer_class": "SiglipTokenizer"}')
    reader = PublishedTokenizer(tmp_path / "tokenizer.json", {"model_type": "siglip"})
    for text, expected in {
        "Hot, hot soup!": [5, 5, 3, 1, 0, 0],
        "hot hot hot hot hot noodles soup": [5, 5, 5, 5, 5, 1],
        "饺子": [2, 1, 0, 0, 0, 0],
        "": [0, 0, 0, 0, 0, 0],
    }.items():
        ids, mask = reader.encode(text, 6)
        assert ids.tolist() == expected and mask.tolist() == [i != 0 for i in expected]
    assert reader.count("hot hot hot hot hot noodles soup") == 8
    cased = PublishedTokenizer(tmp_path / "tokenizer.json", {"model_type": "clip"})
    assert cased.encode("Hot soup", 4)[0].tolist() == [2, 3, 1, 0]
