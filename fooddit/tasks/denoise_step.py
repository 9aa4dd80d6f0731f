"""What a step of text to picture computes: stages 1 to 3 are this with other data and other starts. Needs no data."""

from dataclasses import dataclass, field

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
from fooddit.models.dit import Context, DiTConfig
from fooddit.models.module import define
from fooddit.models.picture_space import PictureSpace, SpaceConfig
from fooddit.models.text import TextConfig
from fooddit.models.text_to_image import SamplingConfig, TextToImage, flops_per_example
from fooddit.training.task import Experiment


@dataclass(frozen=True)
class EvaluationConfig:
    """Attributes:
    examples: hold-out records whose loss is measured at each evaluation.
    samples: pictures in the sample grid.
    alignment: held-out scenes whose prompts are drawn and read back (0: none; only for scenes).
    nearest: compare samples with their nearest training pictures.
    batch_size: of pictures drawn at once.
    """

    examples: int = 256
    samples: int = 16
    alignment: int = 0
    nearest: bool = False
    batch_size: int = 64

    def __post_init__(self):
        for name, least in (("examples", 1), ("samples", 0), ("alignment", 0), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"evaluation.{name} must be at least {least}, found {getattr(self, name)}")


@dataclass(frozen=True)
class DenoiseExperiment(Experiment):
    """Config of the task `denoise`."""

    data: DataConfig = field(kw_only=True)
    space: SpaceConfig = field(default_factory=SpaceConfig)
    model: DiTConfig = field(default_factory=DiTConfig)
    text: TextConfig = field(default_factory=TextConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    timesteps: TimestepConfig = field(default_factory=TimestepConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig, metadata=OPERATIONAL)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig, metadata=OPERATIONAL)

    def __post_init__(self):
        super().__post_init__()
        if not self.data.source:
            raise ValueError("data.source is empty; give a folder that `fooddit prepare` wrote, or scenes:N")
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
        if self.space.grid != experiment.data.grid:
            raise ConfigError(
                f"data.grid is {experiment.data.grid}, but a token of {experiment.space} is {self.space.grid} pixels; "
                f"set data.grid={self.space.grid}"
            )
        side = experiment.data.image_size // self.space.grid
        self.length, self.positions = side**2, patch_positions((side, side))
        self.definition = define(
            lambda rngs: TextToImage(experiment.model, experiment.text, token_features=self.space.features, rngs=rngs)
        )
        self.shapes, self.axes, self.init = self.definition.shapes, self.definition.axes, self.definition.init
        self.frozen = self.space.params
        self.flops_per_example = flops_per_example(experiment.model, experiment.text, self.length, self.shapes)

    @property
    def batch_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        data, shape = self.experiment.data, jax.ShapeDtypeStruct
        text = (data.batch_size, self.experiment.text.length)
        image = self.experiment.model.image_tokens
        prompt = {
            "image_tokens": shape((data.batch_size, image, self.experiment.model.image_width), jnp.bfloat16),
            "image_mask": shape((data.batch_size, image), jnp.bool),
        }
        return (prompt if image else {}) | {
            "image": shape((data.batch_size, data.image_size, data.image_size, 3), jnp.uint8),
            "text": shape(text, jnp.int32),
            "text_mask": shape(text, jnp.bool),
            "index": shape((data.batch_size,), jnp.int32),
        }

    def device_batch(self, frozen, batch: dict) -> dict:
        """Pictures of one bucket to tokens of the one length that the step is compiled for."""
        tokens = self.space.encode(frozen, batch["image"], self.length)
        count = len(batch["index"])
        passed = ("text", "text_mask", "index", "image_tokens", "image_mask")
        made = {name: batch[name] for name in passed if name in batch} | {"x0": tokens.values}
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
        positions = batch.get("positions", jnp.asarray(self.positions))
        model = self.definition.bind(params)
        text = model.encode_text(batch["text"], batch["text_mask"])
        image = Context(batch["image_tokens"], batch["image_mask"]) if "image_tokens" in batch else None
        return t, flow_loss(
            lambda x, t: model(x, t, text, positions=positions, mask=mask, image=image),
            x0,
            example_noise(keys, x0.shape[1:]),
            t,
            config=self.experiment.objective,
            mask=mask,
        )
