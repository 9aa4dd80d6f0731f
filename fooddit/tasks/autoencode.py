"""The tiny autoencoder of dish scenes: pictures in, latents that a diffusion model finds easy out."""

from dataclasses import dataclass, field
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from fooddit.data.scene_stream import SceneBatches, SceneStreamConfig, scene_batch_shapes
from fooddit.data.scenes import render_image, sample_spec
from fooddit.diffusion import example_keys, example_noise
from fooddit.models.autoencoder import TinyAutoencoder, TinyAutoencoderConfig, bytes_from_pixels, pixels_from_bytes
from fooddit.models.module import define
from fooddit.models.weights import save_weights
from fooddit.parallel.placement import replicate
from fooddit.training.frozen import Frozen
from fooddit.training.task import Evaluation, Experiment


@dataclass(frozen=True)
class LatentConfig:
    """Attributes:
    noise: deviation of the noise added to unit-size latents in training: the decoder learns to forgive a sampler's
      errors, and detail that costs more than it is worth is not stored.
    prior: weight of the latents' squared size, which keeps them near unit variance (with `noise`, a variational
      autoencoder of fixed posterior variance).
    """

    noise: float = 0.2
    prior: float = 1e-3


@dataclass(frozen=True)
class AutoencodeExperiment(Experiment):
    """Config of the task `autoencode`."""

    model: TinyAutoencoderConfig = field(default_factory=TinyAutoencoderConfig)
    latent: LatentConfig = field(default_factory=LatentConfig)
    data: SceneStreamConfig = field(default_factory=SceneStreamConfig)


class Autoencode:
    """Reconstruction of endless scenes by mean absolute error on pixels and on their differences (edges)."""

    def __init__(self, experiment: AutoencodeExperiment, workdir: Path | None = None, saved: dict | None = None):
        self.experiment = experiment
        self.definition = define(lambda rngs: TinyAutoencoder(experiment.model, rngs=rngs))
        self.shapes, self.axes, self.frozen = self.definition.shapes, self.definition.axes, Frozen()
        self.metadata = {"kind": "autoencoder"}
        self.flops_per_example = 3 * 2 * _multiplications(self.definition.shapes, experiment.data.image_size)
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
        image = pixels_from_bytes(batch["image"])
        model = self.definition.bind(params)
        latent = model.encode(image)
        noise = example_noise(example_keys(key, batch["index"]), latent.shape[1:])
        decoded = model.decode(latent + self.experiment.latent.noise * noise)
        error = decoded - image
        absolute = jnp.mean(jnp.abs(error))
        edges = jnp.mean(jnp.abs(jnp.diff(error, axis=1))) + jnp.mean(jnp.abs(jnp.diff(error, axis=2)))
        size = jnp.mean(latent**2)
        loss = absolute + edges + self.experiment.latent.prior * size
        return loss, {"absolute_error": absolute, "edge_error": edges, "latent_square": size}

    def evaluate(self, params, frozen, step: int) -> Evaluation:
        images = _holdout_images(256, self.experiment.data.image_size)
        decoded = _reconstruct(self.definition, params, images)
        squared = np.mean((decoded.astype(np.float32) - images) ** 2, axis=(1, 2, 3))
        pairs = np.stack([images[:8], decoded[:8]], axis=1).reshape(16, *images.shape[1:])
        return Evaluation(
            {"val/psnr": float(np.mean(10 * np.log10(255**2 / squared)))},
            samples=pairs,
            prompts=("picture", "reconstruction") * 8,
        )

    def export(self, params, path: Path) -> None:
        """Writes the weights with the latents' mean and deviation a channel, as `picture_space` reads them."""
        images = _holdout_images(1024, self.experiment.data.image_size)
        encode = jax.jit(lambda p, image: self.definition.bind(p).encode(pixels_from_bytes(image)))
        latent = np.concatenate([encode(params, images[i : i + 128]) for i in range(0, len(images), 128)])
        arrays = {
            "weights": jax.tree.map(np.asarray, params),
            "mean": latent.mean(axis=(0, 1, 2)),
            "deviation": latent.std(axis=(0, 1, 2)),
        }
        config = {"channels": self.experiment.model.channels, "width": self.experiment.model.width}
        save_weights(path, arrays, {"model": "TinyAutoencoder", "config": config})


def _reconstruct(definition, params, images: np.ndarray) -> np.ndarray:
    @jax.jit
    def run(params, images):
        model = definition.bind(params)
        return replicate(bytes_from_pixels(model.decode(model.encode(pixels_from_bytes(images)))))

    return np.concatenate([run(params, images[i : i + 64]) for i in range(0, len(images), 64)])


def _holdout_images(count: int, size: int) -> np.ndarray:
    return np.stack([render_image(sample_spec(1, i, "holdout"), size) for i in range(count)])


def _multiplications(shapes: dict, size: int) -> int:
    total = 0
    for name, layer in shapes.items():
        quarter = name in ("stem", "to_pixels", "decode_block_3", "decode_block_4")
        positions = (size // (4 if quarter else 8)) ** 2
        kernels = [layer["kernel"]] if "kernel" in layer else [conv["kernel"] for conv in layer.values()]
        total += positions * sum(kernel.size for kernel in kernels)
    return total
