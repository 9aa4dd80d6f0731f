"""How far apart two pictures are to a network that knows pictures: the perceptual loss."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fooddit.evaluation.scene_reader import classifier
from fooddit.models.autoencoder import place
from fooddit.models.weights import load_weights

SCENE_READER = "builtin:scene_reader"


@dataclass(frozen=True)
class PerceptualConfig:
    """Attributes:
    features: the network: "" none; "builtin:scene_reader", which knows dish scenes; or a folder of an E-CLIP, a CLIP or
      a SigLIP, as config.towers.eclip takes it.
    weight: of the distance in the loss.
    """

    features: str = ""
    weight: float = 0.1

    def __post_init__(self):
        if self.weight < 0:
            raise ValueError(f"perceptual.weight must be at least 0, found {self.weight}")


class Perceptual:
    """A frozen network (`training.frozen.FrozenPart`) and the distance of its features.

    At each level features are scaled to unit length at every position, and the squared difference is averaged over
    positions: LPIPS without its learned weights (Zhang et al. 2018, arXiv:1801.03924).
    """

    def __init__(self, source: str):
        if source == SCENE_READER:
            self._network = _SceneFeatures()
        else:
            from fooddit.models.eclip_folder import open_eclip

            self._network = _TowerFeatures(open_eclip(source))
        self.shapes, self.axes = self._network.shapes, self._network.axes
        self.description = self._network.description

    def load(self, shardings: Any = None) -> Any:
        """The network's arrays."""
        return self._network.load(shardings)

    def distance(
        self, params, image: Float[Array, "batch height width 3"], decoded: Float[Array, "batch height width 3"]
    ) -> Float[Array, "batch"]:
        """Of pixels in [-1, 1]; 0 for equal pictures, at most 4 a level."""
        total = jnp.zeros(len(image))
        for ours, theirs in zip(self._network.levels(params, decoded), self._network.levels(params, image)):
            squared = jnp.square(_unit(ours) - jax.lax.stop_gradient(_unit(theirs))).sum(axis=-1)
            total += squared.mean(axis=tuple(range(1, squared.ndim)))
        return total


class _SceneFeatures:
    """The scene reader's, after each of its three halvings."""

    def __init__(self):
        self._weights, _, digest = load_weights(SCENE_READER)
        self._definition = classifier()
        self.shapes, self.axes = self._definition.shapes, self._definition.axes
        self.description = {"features": SCENE_READER, "sha256": digest}

    def load(self, shardings=None):
        return place(self._weights, shardings)

    def levels(self, params, pixels) -> list[Array]:
        model = self._definition.bind(params)
        first = jax.nn.silu(model.stem(pixels))
        second = model.block_1(jax.nn.silu(model.down_1(first)))
        return [first, second, model.block_2(jax.nn.silu(model.down_2(second)))]


class _TowerFeatures:
    """An image tower's patch tokens, of the picture at the tower's size."""

    def __init__(self, encoder):
        self._encoder = encoder
        self.shapes, self.axes, self.description = encoder.shapes, encoder.axes, encoder.description
        self.load = encoder.load

    def levels(self, params, pixels) -> list[Array]:
        size = self._encoder.image_size
        if pixels.shape[1:3] != (size, size):
            pixels = jax.image.resize(pixels, (len(pixels), size, size, 3), "bilinear")
        return [self._encoder.bind(params).encode_image(pixels).tokens.astype(jnp.float32)]


def _unit(x):
    return x * jax.lax.rsqrt(jnp.square(x).sum(axis=-1, keepdims=True) + 1e-8)
