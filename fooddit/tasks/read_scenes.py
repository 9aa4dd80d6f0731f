"""The reader of scenes: a classifier of all attributes, trained on endless fresh renders."""

from dataclasses import dataclass, field
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int

from fooddit.data.scene_stream import SceneBatches, SceneStreamConfig, scene_batch_shapes
from fooddit.data.scenes import ATTRIBUTES
from fooddit.diffusion import example_keys
from fooddit.evaluation.scene_reader import SceneReader, accuracy, classifier
from fooddit.models.autoencoder import pixels_from_bytes
from fooddit.models.module import Definition, count
from fooddit.models.weights import save_weights
from fooddit.training.frozen import Frozen
from fooddit.training.task import Evaluation, Experiment


@dataclass(frozen=True)
class ReadScenesExperiment(Experiment):
    """Config of the task `read_scenes`.

    Attributes:
      blur, noise: the most of each that is mixed into a training picture (noise as a deviation in [-1, 1] pixels): a
        generated picture is never as crisp as a render.
    """

    blur: float = 1.0
    noise: float = 0.15
    data: SceneStreamConfig = field(default_factory=SceneStreamConfig)


class ReadScenes:
    """Cross-entropy of every attribute."""

    kind = "scene_reader"

    def __init__(self, experiment: ReadScenesExperiment, workdir: Path | None = None, saved: dict | None = None):
        self.experiment = experiment
        self.definition = self._network()
        self.shapes, self.axes, self.frozen = self.definition.shapes, self.definition.axes, Frozen()
        self.metadata = {"kind": self.kind}
        self.flops_per_example = 3 * 2 * _multiplications(self.definition.shapes)
        self.init = self.definition.init

    @property
    def batch_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        return scene_batch_shapes(self.experiment.data)

    def batches(self, position: int, rows: np.ndarray | None = None):
        seed = self.experiment.train.seed
        return SceneBatches(self.experiment.data, seed=seed, position=position, rows=rows)

    def device_batch(self, frozen, batch: dict) -> dict:
        return batch

    def loss(self, params, frozen, batch: dict, key: jax.Array):
        image = self._degrade(pixels_from_bytes(batch["image"]), example_keys(key, batch["index"]))
        model = self.definition.bind(params)
        losses, correct = classify(model.split(model(image)), batch["attributes"])
        return losses.sum(), {"all_exact": correct.all(axis=0).mean()}

    def evaluate(self, params, frozen, step: int) -> Evaluation:
        return Evaluation({f"val/{name}": value for name, value in accuracy(SceneReader(params)).items()})

    def export(self, params, path: Path) -> None:
        """Writes the weights as `evaluation.scene_reader` reads them."""
        classes = {name: len(values) for name, values in ATTRIBUTES.items()}
        save_weights(path, jax.tree.map(np.asarray, params), {"model": "SceneClassifier", "classes": classes})

    def _network(self) -> Definition:
        return classifier()

    def _degrade(self, image: jax.Array, keys: jax.Array) -> jax.Array:
        """Each picture by its own draw: a mix with its 3 x 3 blur, then noise; half of them stay nearly clean."""
        amounts = jax.vmap(lambda key: jax.random.uniform(key, (2,)) ** 2)(keys)[:, :, None, None, None]
        blurred = jax.lax.reduce_window(image, 0.0, jax.lax.add, (1, 3, 3, 1), (1, 1, 1, 1), "SAME") / 9
        mix = self.experiment.blur * amounts[:, 0]
        noise = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, 1), image.shape[1:]))(keys)
        return (1 - mix) * image + mix * blurred + self.experiment.noise * amounts[:, 1] * noise


def classify(heads: list[jax.Array], labels: Int[Array, "batch heads"]) -> tuple[jax.Array, jax.Array]:
    """The mean cross-entropy of each head, (heads,), and where its answer is right, (heads, batch)."""
    losses, correct = [], []
    for i, logits in enumerate(heads):
        losses.append(optax.softmax_cross_entropy_with_integer_labels(logits, labels[:, i]).mean())
        correct.append(logits.argmax(-1) == labels[:, i])
    return jnp.stack(losses), jnp.stack(correct)


def _multiplications(shapes: dict) -> int:
    positions = {"stem": 32, "down_1": 16, "block_1": 16, "down_2": 8, "block_2": 8, "squeeze": 8}
    return sum(positions.get(name, 1) ** 2 * count(layer) for name, layer in shapes.items())
