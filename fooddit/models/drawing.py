"""Captions in, pictures out: the sampler, compiled once for a batch size and a picture size."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from fooddit.data.buckets import Bucket, bucket_table
from fooddit.data.data_config import DataConfig
from fooddit.diffusion import ObjectiveConfig, example_keys
from fooddit.models.autoencoder import patch_positions
from fooddit.models.picture_space import PictureSpace
from fooddit.models.prompts import Prompt, PromptReader, encode_prompts, input_shapes
from fooddit.models.text_to_image import NetworkConfig, SamplingConfig, define_model, draw
from fooddit.parallel.placement import replicate


class ModelConfig(NetworkConfig, Protocol):
    """The part of a text-to-image experiment that drawing needs."""

    data: DataConfig
    objective: ObjectiveConfig
    sampling: SamplingConfig


class Artist:
    """Draws pictures for captions and reference pictures with given parameters.

    A picture depends on its prompt, its seed, the parameters and the sampling settings, and on nothing else: noise is
    keyed by the seed, and every call runs the same program on a batch of the same size, filled up where it must be.
    """

    def __init__(self, config: ModelConfig, space: PictureSpace, reader: PromptReader, size: tuple[int, int]):
        """`size`: height and width of the pictures in pixels, multiples of `space.grid`.

        Positions are those of training where it knew the size; those of another are scaled by resolution: a larger
        picture has more tokens in the area that training knew.
        """
        self.config, self.space, self.reader, self.size = config, space, reader, size
        self.shape = space.shape(*size)
        self.trained_tokens = (config.data.image_size // space.grid) ** 2
        data = config.data
        known = Bucket(*size) in bucket_table(data.image_size, data.grid, data.max_aspect)
        scale = 1.0 if known else (self.trained_tokens / (self.shape[0] * self.shape[1])) ** 0.5
        self.positions = patch_positions(self.shape) * scale
        self._definition = define_model(config, reader.widths, space.features)
        self._run = jax.jit(self._draw, static_argnames="sampling")

    def draw(
        self,
        params,
        frozen,
        prompts: Sequence[str | Prompt],
        seeds: Sequence[int],
        *,
        batch_size: int,
        sampling: SamplingConfig | None = None,
    ) -> np.ndarray:
        """uint8 pictures (prompts, height, width, 3), one a prompt, from the noise of the seed beside it."""
        if len(prompts) != len(seeds):
            raise ValueError(f"{len(prompts)} prompts and {len(seeds)} seeds: expected one seed a prompt")
        wanted = zip(prompts, seeds, strict=True)
        parts = [np.zeros((0, *self.size, 3), np.uint8)]
        return np.concatenate(
            [*parts, *self.draw_batches(params, frozen, wanted, batch_size=batch_size, sampling=sampling)]
        )

    def draw_batches(
        self,
        params,
        frozen,
        wanted: Iterable[tuple[str | Prompt, int]],
        *,
        batch_size: int,
        sampling: SamplingConfig | None = None,
    ) -> Iterator[np.ndarray]:
        """The pictures of `draw` in parts of at most `batch_size`, each as soon as it is drawn.

        `wanted`: prompts with their seeds, taken a part at a time.
        """
        sampling = sampling or self.config.sampling
        for part in _parts(wanted, batch_size, heard=sampling.image_scale > 0):
            missing = batch_size - len(part)
            inputs = encode_prompts(self.reader, [*(prompt for prompt, _ in part), *[Prompt()] * missing])
            numbers = np.array([*(seed for _, seed in part), *[0] * missing], np.uint32)
            yield np.asarray(self._run(params, frozen, inputs, numbers, sampling=sampling))[: len(part)]

    def batch_shapes(self, batch_size: int) -> tuple[dict[str, jax.ShapeDtypeStruct], jax.ShapeDtypeStruct]:
        """Of what is read of a batch of prompts, and of their seeds."""
        return input_shapes(self.reader, batch_size), jax.ShapeDtypeStruct((batch_size,), np.uint32)

    def trace(self, params, frozen, batch):
        """The sampler's program (jax.stages.Traced) for shapes alone, with the config's sampling."""
        return self._run.trace(params, frozen, *batch, sampling=self.config.sampling)

    def _draw(self, params, frozen, inputs, seeds, *, sampling: SamplingConfig):
        model = self._definition.bind(params)
        tokens = draw(
            model,
            model.conditions(self.reader.features(frozen, inputs)),
            example_keys(jax.random.key(0), seeds),
            positions=jnp.asarray(self.positions),
            features=self.space.features,
            objective=self.config.objective,
            sampling=sampling,
        )
        return replicate(self.space.decode(frozen["space"], tokens, self.shape))


def _parts(wanted: Iterable[tuple[str | Prompt, int]], size: int, *, heard: bool) -> Iterator[list[tuple[Prompt, int]]]:
    """Prompts with their seeds, at most `size` at once, all of them with an image prompt or none: the two are drawn by
    different programs, and no picture may depend on what stands beside it.

    heard: an image prompt that is not heard at all is none.
    """
    part: list[tuple[Prompt, int]] = []
    for prompt, seed in wanted:
        prompt = Prompt(prompt) if isinstance(prompt, str) else prompt
        prompt = prompt if heard else prompt._replace(image=None)
        if part and (len(part) == size or (part[0][0].image is None) != (prompt.image is None)):
            yield part
            part = []
        part.append((prompt, seed))
    if part:
        yield part
