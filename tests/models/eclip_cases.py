"""Small published models of the CLIP family that the suite and parity/ both make: config.json, weights, inputs."""

from pathlib import Path

import jax
import numpy as np

from fooddit.models.clip_tables import PUBLISHED
from fooddit.models.eclip import Eclip
from fooddit.models.eclip_config import EclipConfig
from fooddit.models.module import define
from fooddit.models.tensors import save_folder

GOLDEN = Path(__file__).parent / "golden"
_TEXT = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2}
_IMAGE = {"hidden_size": 32, "intermediate_size": 56, "num_hidden_layers": 3, "num_attention_heads": 4}
_SIZE = {"image_size": 16, "patch_size": 4}
_WORDS = {"vocab_size": 60, "max_position_embeddings": 11}
# model_type of each is in its config.json. "clip-old" says its texts' end as the first files did.
CASES = {
    "clip": {
        "model_type": "clip",
        "projection_dim": 20,
        "text_config": _TEXT | _WORDS | {"eos_token_id": 57, "bos_token_id": 56, "pad_token_id": 57},
        "vision_config": _IMAGE | _SIZE,
    },
    "clip-old": {
        "model_type": "clip",
        "projection_dim": 16,
        "text_config": _TEXT | _WORDS | {"eos_token_id": 2, "hidden_act": "gelu", "num_hidden_layers": 3},
        "vision_config": _IMAGE | _SIZE | {"hidden_act": "gelu", "layer_norm_eps": 1e-3, "num_hidden_layers": 1},
    },
    "siglip": {
        "model_type": "siglip",
        "text_config": _TEXT | _WORDS | {"projection_size": 32},
        "vision_config": _IMAGE | _SIZE,
    },
    "siglip2": {
        "model_type": "siglip2",
        "text_config": _TEXT | _WORDS | {"projection_size": 32, "num_attention_heads": 3},
        "vision_config": _IMAGE | {"patch_size": 4, "num_patches": 16},
    },
}
END = {"clip": 57, "clip-old": 59}


def published(name: str):
    """(our config, where our leaves are in its files)."""
    return PUBLISHED[CASES[name]["model_type"]](CASES[name], {})


def weights(name: str) -> dict:
    """Our tree of arrays of a published model."""
    return random_weights(published(name)[0])


def random_weights(config: EclipConfig) -> dict:
    """Arrays, each of its own seeded generator; everything counts, biases, gains and what starts at zero, too."""
    leaves, tree = jax.tree.flatten_with_path(define(lambda rngs: Eclip(config, rngs=rngs)).shapes)
    return tree.unflatten(_array(jax.tree_util.keystr(path), leaf.shape) for path, leaf in leaves)


def _array(path: str, shape: tuple[int, ...]) -> np.ndarray:
    values = np.random.default_rng(list(path.encode())).normal(size=shape)
    if "logit_scale" in path:
        return np.asarray(2.0 + 0.1 * values, np.float32)
    if "kernel" in path:
        return (values * 1.5 * shape[-2] ** -0.5).astype(np.float32)
    return ((1 if "gain" in path else 0) + 0.3 * values).astype(np.float32)


def write(name: str, folder: Path) -> Path:
    """The published folder with these weights."""
    _, sources = published(name)
    save_folder(folder, CASES[name], sources, weights(name))
    return folder


def inputs(name: str, shape: tuple[int, int] = (16, 16)) -> dict[str, np.ndarray]:
    """Two pictures in [-1, 1] and three captions of other lengths, one of them full."""
    rng = np.random.default_rng(5)
    config, _ = published(name)
    length = config.text.length
    ids = rng.integers(3, 55, size=(3, length)).astype(np.int32)
    ends = np.array([length, 4, 7])
    mask = np.arange(length) < ends[:, None]
    if name in END:
        ids[np.arange(3), ends - 1] = END[name]
    return {
        "pixels": rng.uniform(-1, 1, size=(2, *shape, 3)).astype(np.float32),
        "ids": np.where(mask, ids, 1),
        "mask": mask,
    }
