"""The oracle of dish scenes: reads all eight attributes of a picture from its pixels."""

import functools

import jax
import numpy as np
from jaxtyping import Int, UInt8

from fooddit.data.scenes import ATTRIBUTES, render_image, sample_spec
from fooddit.models.autoencoder import pixels_from_bytes
from fooddit.models.module import Definition, define
from fooddit.models.scene_classifier import SceneClassifier
from fooddit.models.weights import load_weights
from fooddit.parallel.placement import replicate

BATCH = 128


def classifier() -> Definition:
    """The classifier whose heads are the attributes, in their order."""
    return define(lambda rngs: SceneClassifier([len(values) for values in ATTRIBUTES.values()], rngs=rngs))


class SceneReader:
    """Pictures to attribute indices. Its own error on real renders stands beside every figure it gives (`accuracy`)."""

    def __init__(self, params: dict | None = None):
        if params is None:
            params, description, _ = load_weights("builtin:scene_reader")
            classes = {name: len(values) for name, values in ATTRIBUTES.items()}
            if description["classes"] != classes:
                raise ValueError(
                    f"the shipped scene reader knows {description['classes']}, the scenes have {classes}; train it "
                    "again: python main.py --config=configs/scene_reader.py --workdir=runs/scene_reader"
                )
        self.params = params
        self._predict = _compiled()

    def read(self, images: UInt8[np.ndarray, "batch height width 3"]) -> Int[np.ndarray, "batch attributes"]:
        """Indices into ATTRIBUTES' values for pictures of any one size (resized to 64 pixels)."""
        images = fit(images, SceneClassifier.size)
        padded = np.concatenate([images, np.zeros((-len(images) % BATCH, *images.shape[1:]), np.uint8)])
        parts = [self._predict(self.params, padded[i : i + BATCH]) for i in range(0, len(padded), BATCH)]
        return np.concatenate([np.asarray(part) for part in parts])[: len(images)]


def accuracy(reader: SceneReader, count: int = 2048, seed: int = 1) -> dict[str, float]:
    """The reader on real renders of held-out combinations: all_exact and each attribute's share of right answers."""
    specs = [sample_spec(seed, i, "holdout") for i in range(count)]
    read = reader.read(np.stack([render_image(spec, SceneClassifier.size) for spec in specs]))
    right = read == np.array([spec.indices for spec in specs])
    return {"all_exact": float(right.all(axis=1).mean()), **dict(zip(ATTRIBUTES, right.mean(axis=0).tolist()))}


@functools.cache
def _compiled():
    definition = classifier()

    @jax.jit
    def predict(params, images):
        model = definition.bind(params)
        parts = model.split(model(pixels_from_bytes(images)))
        return replicate(jax.numpy.stack([logits.argmax(-1) for logits in parts], axis=-1))

    return predict


def fit(images: UInt8[np.ndarray, "batch height width 3"], size: int) -> UInt8[np.ndarray, "batch size size 3"]:
    """Pictures of any one size at `size` pixels a side, by the mean of areas."""
    if images.shape[1:3] == (size, size):
        return images
    import cv2

    return np.stack([cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA) for image in images])
