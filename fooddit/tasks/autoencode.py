"""Autoencoders: pictures in, latents that a diffusion model finds easy out."""

from dataclasses import dataclass, field
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from fooddit.diffusion import example_keys, example_noise
from fooddit.evaluation.reconstruction import fine_detail, psnr
from fooddit.models import discriminator
from fooddit.models.autoencoder import TinyAutoencoder, TinyAutoencoderConfig, bytes_from_pixels, pixels_from_bytes
from fooddit.models.autoencoder_kl import KLConfig, autoencoder_kl, multiplications
from fooddit.models.autoencoder_kl_folder import save_kl
from fooddit.models.discriminator import PatchDiscriminator
from fooddit.models.latent_statistics import LatentStatistics, sums_of_moments
from fooddit.models.module import Definition, define
from fooddit.models.weights import save_weights
from fooddit.parallel.placement import replicate
from fooddit.tasks.adversarial import AdversarialConfig, adversarial_loss
from fooddit.tasks.perceptual import Perceptual, PerceptualConfig
from fooddit.tasks.pictures import Pictures, PicturesConfig
from fooddit.training.frozen import Frozen
from fooddit.training.optimizer import OptimizerConfig
from fooddit.training.task import Evaluation, Experiment

# Added to an example's key for the noise of the critic's penalty.
_CRITIC_STREAM = 3


@dataclass(frozen=True)
class LatentConfig:
    """Attributes:
    noise: deviation of the posterior where the model gives none (with unit-size latents): the decoder learns to forgive
      a sampler's errors, and detail that costs more than it is worth is not stored.
    kl: weight of the posterior's divergence from the unit normal, in nats a value, which keeps latents near unit
      variance.
    """

    noise: float = 0.2
    kl: float = 2e-3

    def __post_init__(self):
        if self.noise <= 0 or self.kl < 0:
            raise ValueError(f"latent.noise must be above 0, latent.kl not below: found {self.noise}, {self.kl}")


@dataclass(frozen=True)
class CriticOptimizerConfig(OptimizerConfig):
    """A critic's: little momentum, since what it judges changes under it; no decay; it is not averaged."""

    b1: float = 0.5
    weight_decay: float = 0.0
    ema: float = 0.0


@dataclass(frozen=True)
class AutoencodeOptimizerConfig(OptimizerConfig):
    """The autoencoder's, and that of the group `discriminator`."""

    discriminator: CriticOptimizerConfig = field(default_factory=CriticOptimizerConfig)


@dataclass(frozen=True)
class AutoencodeExperiment(Experiment):
    """Config of the task `autoencode`: a TinyAutoencoder."""

    model: TinyAutoencoderConfig = field(default_factory=TinyAutoencoderConfig)
    latent: LatentConfig = field(default_factory=LatentConfig)
    perceptual: PerceptualConfig = field(default_factory=PerceptualConfig)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    optimizer: AutoencodeOptimizerConfig = field(default_factory=AutoencodeOptimizerConfig)
    data: PicturesConfig = field(default_factory=PicturesConfig)

    @property
    def factor(self) -> int:
        return TinyAutoencoder.factor

    def __post_init__(self):
        super().__post_init__()
        # Of the autoencoder, and of a critic that halves as often.
        least = max(self.factor, 2**self.adversarial.discriminator.depth)
        if self.data.image_size % least:
            raise ValueError(f"data.image_size is {self.data.image_size}: expected a multiple of {least}")
        if self.data.batch_size % self.train.accumulate:
            raise ValueError(
                f"data.batch_size is {self.data.batch_size}: expected a multiple of train.accumulate, "
                f"which is {self.train.accumulate}"
            )


@dataclass(frozen=True)
class AutoencodeKLExperiment(AutoencodeExperiment):
    """Config of the task `autoencode_kl`: an AutoencoderKL in the diffusers layout."""

    model: KLConfig = field(default_factory=KLConfig)

    @property
    def factor(self) -> int:
        return self.model.factor


class Autoencode:
    """Reconstruction by mean absolute error on pixels and on their differences (edges), the posterior's divergence,
    and, where they are asked for, a perceptual distance and a critic."""

    def __init__(self, experiment: AutoencodeExperiment, workdir: Path | None = None, saved: dict | None = None):
        self.experiment = experiment
        self.autoencoder, multiplied = self._model()
        definitions = {"autoencoder": self.autoencoder}
        # Forward, and backward with respect to inputs and weights.
        flops = 3 * 2 * multiplied
        if experiment.adversarial.weight:
            config = experiment.adversarial.discriminator
            self.critic = define(lambda rngs: PatchDiscriminator(config, rngs=rngs))
            definitions["discriminator"] = self.critic
            # On real, decoded and noisy pictures for its own sake; to the decoded ones and back for the autoencoder's.
            flops += (3 * 3 + 2) * 2 * discriminator.multiplications(config, experiment.data.image_size)
        self.shapes = {name: definition.shapes for name, definition in definitions.items()}
        self.axes = {name: definition.axes for name, definition in definitions.items()}
        self._definitions, self.flops_per_example = definitions, float(flops)
        self.perceptual = Perceptual(experiment.perceptual.features) if experiment.perceptual.features else None
        self.frozen = Frozen({} if self.perceptual is None else {"perceptual": self.perceptual})
        self.metadata = {"kind": "autoencoder", "frozen": self.frozen.description}
        self.pictures = Pictures(experiment.data, experiment.train.seed)
        self.batch_shapes = self.pictures.batch_shapes
        self._decoded = jax.jit(self._reconstruct)

    def _model(self) -> tuple[Definition, int]:
        """The autoencoder, and the multiplications of encoding and decoding a picture."""
        config = self.experiment.model
        definition = define(lambda rngs: TinyAutoencoder(config, rngs=rngs))
        return definition, _tiny_multiplications(definition.shapes, self.experiment.data.image_size)

    def init(self, key: jax.Array) -> dict:
        keys = jax.random.split(key, len(self._definitions))
        return {name: definition.init(k) for (name, definition), k in zip(self._definitions.items(), keys)}

    def batches(self, position: int, rows: np.ndarray | None = None):
        return self.pictures.batches(position, rows)

    def device_batch(self, frozen, batch: dict) -> dict:
        return batch

    def loss(self, params, frozen, batch: dict, key: jax.Array):
        image, keys = pixels_from_bytes(batch["image"]), example_keys(key, batch["index"])
        model, settings = self.autoencoder.bind(params["autoencoder"]), self.experiment
        mean, log_variance = self._posterior(model.encode(image))
        noise = example_noise(keys, mean.shape[1:])
        decoded = model.decode(mean + jnp.exp(0.5 * log_variance) * noise)
        error = decoded - image
        absolute = jnp.mean(jnp.abs(error))
        edges = jnp.mean(jnp.abs(jnp.diff(error, axis=1))) + jnp.mean(jnp.abs(jnp.diff(error, axis=2)))
        divergence = 0.5 * jnp.mean(mean**2 + jnp.exp(log_variance) - 1 - log_variance)
        total = absolute + edges + settings.latent.kl * divergence
        metrics = {"absolute_error": absolute, "edge_error": edges, "kl": divergence}
        if self.perceptual is not None:
            distance = self.perceptual.distance(frozen["perceptual"], image, decoded).mean()
            total += settings.perceptual.weight * distance
            metrics["perceptual"] = distance
        if settings.adversarial.weight:
            against = self._against(params["discriminator"], image, decoded, keys, batch["step"])
            total += settings.adversarial.weight * against.autoencoder + against.critic
            metrics |= {"critic": against.critic, "real": against.real, "decoded": against.decoded}
        return total, metrics

    def _posterior(self, moments: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and log-variance."""
        if isinstance(self.experiment.model, TinyAutoencoderConfig) and not self.experiment.model.variational:
            return moments, jnp.full_like(moments, 2 * np.log(self.experiment.latent.noise))
        return tuple(jnp.split(moments, 2, axis=-1))

    def _against(self, critic, image, decoded, keys, step):
        apart = jax.vmap(lambda key: jax.random.fold_in(key, _CRITIC_STREAM))(keys)
        return adversarial_loss(
            lambda params, pixels: self.critic.bind(params)(pixels),
            critic,
            image,
            decoded,
            example_noise(apart, image.shape[1:]),
            step,
            self.experiment.adversarial,
        )

    def evaluate(self, params, frozen, step: int) -> Evaluation:
        images = self.pictures.first("holdout", 256)
        if not len(images):
            return Evaluation()
        decoded = np.concatenate([np.asarray(self._decoded(params, part)) for part in _parts(images)])
        pairs = np.stack([images[:8], decoded[:8]], axis=1).reshape(-1, *images.shape[1:])
        return Evaluation(
            {"val/psnr": float(psnr(images, decoded).mean()), "val/fine_detail": fine_detail(images, decoded)},
            samples=pairs,
            prompts=("picture", "reconstruction") * (len(pairs) // 2),
        )

    def _reconstruct(self, params, images: jax.Array) -> jax.Array:
        """Bytes to bytes, through the posterior's mean."""
        model = self.autoencoder.bind(params["autoencoder"])
        mean, _ = self._posterior(model.encode(pixels_from_bytes(images)))
        return replicate(bytes_from_pixels(model.decode(mean)))

    def statistics(self, params) -> LatentStatistics:
        """Of the latents of the first training pictures, for whoever reads the exported weights."""
        channels = self.channels
        plain = {"mean": jnp.zeros(channels), "deviation": jnp.ones(channels)}
        encode = jax.jit(lambda p, image: self.autoencoder.bind(p).encode(pixels_from_bytes(image)))
        images = self.pictures.first("train", 1024)
        parts = [sums_of_moments(plain, encode(params["autoencoder"], part)) for part in _parts(images)]
        return sum(parts[1:], parts[0]).statistics()

    @property
    def channels(self) -> int:
        return self.experiment.model.channels

    def export(self, params, path: Path) -> None:
        """Writes the weights with the latents' mean and deviation a channel, as `picture_space` reads them."""
        found, model = self.statistics(params), self.experiment.model
        arrays = {
            "weights": jax.tree.map(np.asarray, params["autoencoder"]),
            "mean": np.array(found.mean),
            "deviation": np.array(found.deviation),
        }
        config = {"channels": model.channels, "width": model.width, "variational": model.variational}
        save_weights(path, arrays, {"model": "TinyAutoencoder", "config": config})


class AutoencodeKL(Autoencode):
    """The same of an AutoencoderKL, exported as a folder that diffusers reads, too."""

    def _model(self) -> tuple[Definition, int]:
        config = self.experiment.model
        return autoencoder_kl(config), multiplications(config, self.experiment.data.image_size)

    @property
    def channels(self) -> int:
        return self.experiment.model.latent_channels

    def export(self, params, path: Path) -> None:
        """Writes a new folder in the diffusers layout, with the latents' statistics."""
        save_kl(path, self.experiment.model, params["autoencoder"], self.statistics(params))


def _parts(images: np.ndarray, size: int = 64):
    return (images[i : i + size] for i in range(0, len(images), size))


def _tiny_multiplications(shapes: dict, size: int) -> int:
    total = 0
    for name, layer in shapes.items():
        quarter = name in ("stem", "to_pixels", "decode_block_3", "decode_block_4")
        positions = (size // (4 if quarter else 8)) ** 2
        kernels = [layer["kernel"]] if "kernel" in layer else [conv["kernel"] for conv in layer.values()]
        total += positions * sum(kernel.size for kernel in kernels)
    return total
