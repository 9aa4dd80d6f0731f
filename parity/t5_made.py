"""T5 folders in the Hugging Face layout with random weights that numpy makes: the same here and under torch."""

import json

import jax
import numpy as np
import tokenizers
from tokenizers import models, pre_tokenizers

from fooddit.models.module import define
from fooddit.models.t5 import T5Config
from fooddit.models.t5_decoder import T5
from fooddit.models.t5_folder import TOKENIZER
from fooddit.models.t5_names import decoder_sources, encoder_sources, t5_settings
from fooddit.models.tensors import save_folder

_SMALL = {
    "vocabulary": 64,
    "width": 24,
    "depth": 3,
    "decoder_depth": 2,
    "heads": 3,
    "head_dim": 16,
    "mlp": 40,
    "buckets": 8,
    "max_distance": 16,
}
# model_type and the shape: one of each family, with heads that are not as wide as the model.
KINDS = {
    "t5-v1_0": ("t5", T5Config(feed_forward="relu", bias_in_every_layer=False, **_SMALL)),
    "t5-v1_1": ("t5", T5Config(bias_in_every_layer=False, **_SMALL)),
    "mt5": ("mt5", T5Config(bias_in_every_layer=False, **_SMALL | {"width": 32})),
    "umt5": ("umt5", T5Config(**_SMALL)),
}
LENGTH = 20
LENGTHS = (20, 7, 1)
WORDS = ["<pad>", "</s>", "<unk>", "▁", "a", "bowl", "of", "noodles", "面", "条", "▁a", "▁bowl", "▁of", "▁noodles"]


def sources(config: T5Config) -> dict:
    return {"encoder": encoder_sources(config, "shared.weight"), "decoder": decoder_sources(config)}


def weights(config: T5Config, seed: int = 0, feed_forward_gain: float = 1.0) -> dict:
    """Random weights of encoder and decoder, of the sizes that make every part of the network show in its output."""
    shapes, rng = define(lambda rngs: T5(config, rngs=rngs)).shapes, np.random.default_rng(seed)

    def make(path, leaf):
        name, normal = path[-1].key, rng.normal(size=leaf.shape)
        if name == "gain":
            normal = 1 + 0.2 * normal
        elif name == "kernel":
            normal *= leaf.shape[-2] ** -0.5 * (feed_forward_gain if path[-3].key == "mlp" else 1)
        return normal.astype(np.float32)

    return jax.tree.map_with_path(make, shapes)


def write(path, kind: str, *, shard_bytes: int = 5 << 30, **options):
    """The folder of a kind of model with `weights`; returns it."""
    model_type, config = KINDS[kind]
    settings = t5_settings(config) | {"model_type": model_type}
    save_folder(path, settings, sources(config), weights(config, **options), shard_bytes=shard_bytes)
    words = tokenizers.Tokenizer(models.Unigram([(word, -1.0) for word in WORDS], unk_id=2))
    words.pre_tokenizer = pre_tokenizers.Metaspace()
    words.add_special_tokens(["<pad>", "</s>", "<unk>"])
    words.save(str(path / TOKENIZER))
    assert json.loads((path / "config.json").read_text())["model_type"] == model_type
    return path


def inputs(seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Token ids and mask of three texts: a whole one, a short one, and one of a single token."""
    rng = np.random.default_rng(seed)
    mask = np.arange(LENGTH) < np.array(LENGTHS)[:, None]
    return np.where(mask, rng.integers(3, 64, size=mask.shape), 0).astype(np.int32), mask
