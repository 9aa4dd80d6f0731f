"""The reader of styled scenes: as that of scenes, with a head that gives the hue a direction."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fooddit.data.scenes import TEXTURES
from fooddit.data.style_stream import StyleBatches, style_batch_shapes
from fooddit.diffusion import example_keys
from fooddit.evaluation.style_reader import HEADS, TOLERANCE, StyleReader, accuracy, style_classifier
from fooddit.models.autoencoder import pixels_from_bytes
from fooddit.models.module import Definition
from fooddit.models.weights import save_weights
from fooddit.tasks.read_scenes import ReadScenes, ReadScenesExperiment, classify
from fooddit.training.task import Evaluation

__all__ = ["ReadScenesExperiment", "ReadStyles"]


class ReadStyles(ReadScenes):
    """Cross-entropy of every attribute and of the texture, and the von Mises likelihood of the hue: all in nats."""

    kind = "style_reader"

    @property
    def batch_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        return style_batch_shapes(self.experiment.data)

    def batches(self, position: int, rows: np.ndarray | None = None):
        seed = self.experiment.train.seed
        return StyleBatches(self.experiment.data, seed=seed, position=position, rows=rows)

    def loss(self, params, frozen, batch: dict, key: jax.Array):
        image = self._degrade(pixels_from_bytes(batch["image"]), example_keys(key, batch["index"]))
        model = self.definition.bind(params)
        *heads, direction = model.split(model(image))
        labels = jnp.concatenate([batch["attributes"], batch["texture"][:, None]], axis=1)
        losses, correct = classify(heads, labels)
        hue_loss, error = von_mises(direction, batch["hue"])
        metrics = {
            "named_exact": correct[:-1].all(axis=0).mean(),
            "texture": correct[-1].mean(),
            "hue": (error <= TOLERANCE).mean(),
            "hue_loss": hue_loss.mean(),
        }
        return losses.sum() + hue_loss.mean(), metrics

    def evaluate(self, params, frozen, step: int) -> Evaluation:
        return Evaluation({f"val/{name}": value for name, value in accuracy(StyleReader(params)).items()})

    def export(self, params, path: Path) -> None:
        """Writes the weights as `evaluation.style_reader` reads them."""
        description = {"model": "SceneClassifier", "heads": HEADS, "textures": list(TEXTURES)}
        save_weights(path, jax.tree.map(np.asarray, params), description)

    def _network(self) -> Definition:
        return style_classifier()


def von_mises(
    direction: Float[Array, "batch 2"], degrees: Float[Array, "batch"]
) -> tuple[Float[Array, "batch"], Float[Array, "batch"]]:
    """The negative log-likelihood of angles under von Mises distributions, and how far off their means are, in degrees.

    The mean is where `direction` points, the concentration is its length: a network that knows nothing gives a short
    one. The density is exp(k cos(x - mean)) / (2 pi I0(k)) (Mardia and Jupp, Directional Statistics, 3.5.4).
    """
    angle = jnp.radians(degrees)
    aligned = direction[:, 0] * jnp.cos(angle) + direction[:, 1] * jnp.sin(angle)
    across = direction[:, 1] * jnp.cos(angle) - direction[:, 0] * jnp.sin(angle)
    # A length of zero has no gradient.
    length = jnp.sqrt((direction**2).sum(axis=-1) + 1e-8)
    normaliser = jnp.log(2 * jnp.pi) + jnp.log(jax.scipy.special.i0e(length)) + length
    return normaliser - aligned, jnp.abs(jnp.degrees(jnp.arctan2(across, aligned)))
