"""What a step of text to picture computes: stages 1 to 3 are this with other data and other starts. Needs no data."""

from dataclasses import dataclass, field
from pathlib import Path

import jax
import jax.numpy as jnp

from fooddit.config import OPERATIONAL, ConfigError
from fooddit.data.pipeline import DataConfig
from fooddit.diffusion import (
    ObjectiveConfig,
    TimestepConfig,
    example_keys,
    example_noise,
    flow_loss,
    sample_times,
)
from fooddit.models.autoencoder import patch_positions
from fooddit.models.dit import DiTConfig
from fooddit.models.flops import flops_per_example
from fooddit.models.latent_statistics import load_statistics
from fooddit.models.picture_space import PictureSpace, SpaceConfig
from fooddit.models.prompts import input_shapes, open_reader
from fooddit.models.text import TextConfig
from fooddit.models.text_to_image import SamplingConfig, define_model
from fooddit.models.towers import TowersConfig, drop
from fooddit.training.frozen import Frozen
from fooddit.training.task import Experiment

# One stream of an example's key a use: what is dropped, and the sample of its latent.
_DROPPING_STREAM, _LATENT_STREAM = 0x64726F70, 0x6C61746E


@dataclass(frozen=True)
class EvaluationConfig:
    """Attributes:
    examples: hold-out records whose loss is measured at each evaluation.
    samples: pictures in the sample grid.
    alignment: held-out scenes whose prompts are drawn and read back (0: none; only for scenes).
    nearest: compare samples with their nearest training pictures.
    distance: pictures drawn from held-out captions, whose FID and KID to the held-out pictures are measured (0: none).
    features: of that distance: builtin:scene_reader, inception:FILE, inception-clean:FILE or eclip:FOLDER.
    batch_size: of pictures drawn at once.
    """

    examples: int = 256
    samples: int = 16
    alignment: int = 0
    nearest: bool = False
    distance: int = 0
    features: str = "builtin:scene_reader"
    batch_size: int = 64

    def __post_init__(self):
        for name, least in (("examples", 1), ("samples", 0), ("alignment", 0), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"evaluation.{name} must be at least {least}, found {getattr(self, name)}")
        if self.distance < 0 or self.distance == 1:
            raise ValueError(f"evaluation.distance must be 0 (none) or at least 2, found {self.distance}")


@dataclass(frozen=True)
class DroppingConfig:
    """Odds that a condition is dropped in training, of each on its own; whole captions are `data.dropped`'s.

    Attributes:
      t5, eclip: one tower's tokens, so that the other must do; a tower that is the only one is not dropped.
      image, image_without_text: the image prompt, beside a caption that is heard and beside none. With `data.dropped`
        they set how often text alone, a picture alone, both and neither are trained.
    """

    t5: float = 0.1
    eclip: float = 0.1
    image: float = 0.1
    image_without_text: float = 0.5

    def __post_init__(self):
        for name in ("t5", "eclip", "image", "image_without_text"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"dropping.{name} must be from 0 to 1, found {getattr(self, name)}")


@dataclass(frozen=True)
class DenoiseExperiment(Experiment):
    """Config of the task `denoise`."""

    data: DataConfig = field(kw_only=True)
    space: SpaceConfig = field(default_factory=SpaceConfig)
    model: DiTConfig = field(default_factory=DiTConfig)
    text: TextConfig = field(default_factory=TextConfig)
    towers: TowersConfig = field(default_factory=TowersConfig)
    dropping: DroppingConfig = field(default_factory=DroppingConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    timesteps: TimestepConfig = field(default_factory=TimestepConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig, metadata=OPERATIONAL)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig, metadata=OPERATIONAL)

    def __post_init__(self):
        super().__post_init__()
        if not self.data.source:
            raise ValueError("data.source is empty; give a folder that `fooddit prepare` wrote, scenes:N or styles:N")
        if self.data.batch_size % self.train.accumulate:
            raise ValueError(
                f"data.batch_size is {self.data.batch_size}: expected a multiple of train.accumulate, "
                f"which is {self.train.accumulate}"
            )
        if self.text.vocabulary < 257:
            raise ValueError(
                f"text.vocabulary is {self.text.vocabulary}: expected at least 257, the bytes and the padding"
            )


class DenoiseStep:
    """The part of the task `denoise` that is compiled: parameters, what a batch is, the loss."""

    def __init__(self, experiment: DenoiseExperiment):
        self.experiment = experiment
        self.space = PictureSpace(experiment.space)
        if statistics := experiment.space.statistics:
            found = load_statistics(Path(statistics), self.space.description, experiment.data.image_size)
            self.space = self.space.standardised(found)
        if self.space.grid != experiment.data.grid:
            raise ConfigError(
                f"data.grid is {experiment.data.grid}, but a token of {experiment.space} is {self.space.grid} pixels; "
                f"set data.grid={self.space.grid}"
            )
        self.reader = open_reader(experiment)
        if self.reader.reference_size != experiment.data.reference_size:
            raise ConfigError(
                f"data.reference_size is {experiment.data.reference_size}, but the pictures that config.towers.eclip "
                f"sees have {self.reader.reference_size} pixels a side; set data.reference_size="
                f"{self.reader.reference_size}, or, for a model without image prompts, both data.reference_size and "
                "model.image_tokens to 0"
            )
        side = experiment.data.image_size // self.space.grid
        self.length, self.positions = side**2, patch_positions((side, side))
        self.definition = define_model(experiment, self.reader.widths, self.space.features)
        self.shapes, self.axes, self.init = self.definition.shapes, self.definition.axes, self.definition.init
        self.frozen = Frozen({"space": self.space, **self.reader.parts})
        self.flops_per_example = flops_per_example(
            experiment.model, experiment.text, self.length, self.shapes, self.reader.widths
        )

    @property
    def batch_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        data, shape = self.experiment.data, jax.ShapeDtypeStruct
        return input_shapes(self.reader, data.batch_size) | {
            "image": shape((data.batch_size, data.image_size, data.image_size, 3), jnp.uint8),
            "index": shape((data.batch_size,), jnp.int32),
        }

    @property
    def cached_batch_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Of a batch whose latents and features of captions come from a cache."""
        count, shape, shapes = self.experiment.data.batch_size, jax.ShapeDtypeStruct, self.batch_shapes
        side = self.experiment.data.image_size * self.experiment.space.patch // self.space.grid
        found = {"moments": shape((count, side, side, self.space.moments_width), jnp.float16)}
        widths, dtype = self.reader.widths, jnp.dtype(self.experiment.towers.dtype)
        for name in self.experiment.towers.names:
            found[f"{name}_features"] = shape((*shapes[name].shape, widths.text[name]), dtype)
        if "eclip" in self.experiment.towers.names:
            found["eclip_pooled"] = shape((count, widths.pooled), jnp.float32)
        replaced = ("image", *self.experiment.towers.names)
        return {name: leaf for name, leaf in shapes.items() if name not in replaced} | found

    def device_batch(self, frozen, batch: dict) -> dict:
        """Pictures of one bucket to tokens of the one length that the step is compiled for; captions and reference
        pictures to features of the frozen towers."""
        moments = batch["moments"] if "moments" in batch else self.space.moments(frozen["space"], batch["image"])
        tokens = self.space.tokens(moments, self.length)
        count = len(batch["index"])
        made = {"index": batch["index"], "x0": tokens.values, "features": self.reader.features(frozen, batch)}
        if tokens.log_variance is not None:
            made["log_variance"] = tokens.log_variance
        if self.experiment.data.max_aspect > 1:
            made["positions"] = jnp.broadcast_to(tokens.positions, (count, self.length, 2))
            made["mask"] = jnp.broadcast_to(tokens.mask, (count, self.length))
        return made

    def loss(self, params, frozen, batch: dict, key: jax.Array):
        t, flow = self.flow(params, batch, key)
        return flow.loss, {}

    def flow(self, params, batch: dict, key: jax.Array):
        """The times drawn for a batch on the devices, and its loss."""
        keys = example_keys(key, batch["index"])
        t = sample_times(keys, self.experiment.timesteps)
        x0, mask = batch["x0"], batch.get("mask")
        if "log_variance" in batch:
            # A latent is a distribution: another sample of it at every visit.
            x0 = x0 + jnp.exp(0.5 * batch["log_variance"]) * example_noise(_stream(keys, _LATENT_STREAM), x0.shape[1:])
        positions = batch.get("positions", jnp.asarray(self.positions))
        model = self.definition.bind(params)
        conditions = model.conditions(self._heard(batch["features"], keys))
        return t, flow_loss(
            lambda x, t: model(x, t, conditions, positions=positions, mask=mask),
            x0,
            example_noise(keys, x0.shape[1:]),
            t,
            config=self.experiment.objective,
            mask=mask,
        )

    def _heard(self, features: dict, keys: jax.Array) -> dict:
        """Features without what is dropped; drawn by example."""
        if self.reader.widths is None:
            return features
        odds, names = self.experiment.dropping, self.experiment.towers.names
        draws = jax.vmap(lambda key: jax.random.uniform(key, (3,)))(_stream(keys, _DROPPING_STREAM))
        if len(names) > 1:
            gone = {name: draws[:, i] < getattr(odds, name) for i, name in enumerate(("t5", "eclip"))}
            features = drop(features, gone)
        has_text = jnp.stack([features[f"{name}_mask"].any(axis=1) for name in names]).any(axis=0)
        return drop(features, {"patches": draws[:, 2] < jnp.where(has_text, odds.image, odds.image_without_text)})


def _stream(keys: jax.Array, tag: int) -> jax.Array:
    return jax.vmap(lambda key: jax.random.fold_in(key, tag))(keys)
