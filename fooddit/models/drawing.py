"""Captions in, pictures out: the sampler, compiled once for a batch size and a picture size."""

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from fooddit.data.pipeline import DataConfig
from fooddit.data.tokenizer import Tokenizer
from fooddit.diffusion import ObjectiveConfig, example_keys
from fooddit.models.autoencoder import patch_positions
from fooddit.models.dit import DiTConfig
from fooddit.models.module import define
from fooddit.models.picture_space import PictureSpace
from fooddit.models.text import TextConfig
from fooddit.models.text_to_image import SamplingConfig, TextToImage, draw
from fooddit.parallel.placement import replicate


class ModelConfig(Protocol):
    """The part of a text-to-image experiment that drawing needs."""

    data: DataConfig
    model: DiTConfig
    text: TextConfig
    objective: ObjectiveConfig
    sampling: SamplingConfig


class Artist:
    """Draws pictures for captions with given parameters.

    A picture depends on its caption, its seed, the parameters and the sampling settings, and on nothing else: noise is
    keyed by the seed, and every call runs the same program on a batch of the same size, filled up where it must be.
    """

    def __init__(self, config: ModelConfig, space: PictureSpace, tokenizer: Tokenizer | None, size: tuple[int, int]):
        """`size`: height and width of the pictures in pixels, multiples of `space.grid`. `tokenizer`: None where
        nothing is drawn and only the program is wanted.

        Positions are scaled by resolution: a larger picture has more tokens in the area that training knew.
        """
        self.config, self.space, self.tokenizer, self.size = config, space, tokenizer, size
        self.shape = space.shape(*size)
        self.trained_tokens = (config.data.image_size // space.grid) ** 2
        scale = (self.trained_tokens / (self.shape[0] * self.shape[1])) ** 0.5
        self.positions = patch_positions(self.shape) * scale
        self._definition = define(
            lambda rngs: TextToImage(config.model, config.text, token_features=space.features, rngs=rngs)
        )
        self._run = jax.jit(self._draw, static_argnames="sampling")

    def draw(
        self,
        params,
        frozen,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        batch_size: int,
        sampling: SamplingConfig | None = None,
    ) -> np.ndarray:
        """uint8 pictures (prompts, height, width, 3), one a prompt, from the noise of the seed beside it."""
        if len(prompts) != len(seeds):
            raise ValueError(f"{len(prompts)} prompts and {len(seeds)} seeds: expected one seed a prompt")
        wanted = zip(prompts, seeds, strict=True)
        return np.concatenate(list(self.draw_batches(params, frozen, wanted, batch_size=batch_size, sampling=sampling)))

    def draw_batches(
        self,
        params,
        frozen,
        wanted: Iterable[tuple[str, int]],
        *,
        batch_size: int,
        sampling: SamplingConfig | None = None,
    ) -> Iterator[np.ndarray]:
        """The pictures of `draw` in parts of at most `batch_size`, each as soon as it is drawn.

        `wanted`: prompts with their seeds, taken a part at a time.
        """
        run = functools.partial(self._run, sampling=sampling or self.config.sampling)
        wanted = iter(wanted)
        while part := list(itertools.islice(wanted, batch_size)):
            encoded = [self.tokenizer.encode(prompt, self.config.text.length) for prompt, _ in part]
            missing = batch_size - len(encoded)
            ids, mask = map(np.stack, zip(*encoded, *[encoded[0]] * missing, strict=True))
            numbers = np.array([*(seed for _, seed in part), *[0] * missing], np.uint32)
            yield np.asarray(run(params, frozen, ids, mask, numbers))[: len(encoded)]

    def batch_shapes(self, batch_size: int) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Of the ids, masks and seeds of a batch of prompts."""
        text, shape = (batch_size, self.config.text.length), jax.ShapeDtypeStruct
        return shape(text, np.int32), shape(text, np.bool_), shape((batch_size,), np.uint32)

    def trace(self, params, frozen, batch: tuple[jax.ShapeDtypeStruct, ...]):
        """The sampler's program (jax.stages.Traced) for shapes alone, with the config's sampling."""
        return self._run.trace(params, frozen, *batch, sampling=self.config.sampling)

    def _draw(self, params, frozen, ids, mask, seeds, *, sampling: SamplingConfig):
        model = self._definition.bind(params)
        tokens = draw(
            model,
            model.encode_text(ids, mask),
            example_keys(jax.random.key(0), seeds),
            positions=jnp.asarray(self.positions),
            features=self.space.features,
            objective=self.config.objective,
            sampling=sampling,
        )
        return replicate(self.space.decode(frozen, tokens, self.shape))
