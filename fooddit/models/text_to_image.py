"""Conditions and the transformer as one model, and how pictures are drawn from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import jax
from flax import nnx
from jaxtyping import Array, Float

from fooddit.diffusion import ObjectiveConfig, example_noise, guide, guide_twice, sample, sampling_times, to_velocity
from fooddit.diffusion.samplers import STEPPERS
from fooddit.models.conditioning import Conditions, Resampler, TowerProjections
from fooddit.models.dit import Context, DiT, DiTConfig
from fooddit.models.module import Definition, define
from fooddit.models.text import TextConfig, TextTransformer
from fooddit.models.towers import TowersConfig, TowerWidths


class NetworkConfig(Protocol):
    """The part of an experiment that says what is trained."""

    model: DiTConfig
    text: TextConfig
    towers: TowersConfig


class TextToImage(nnx.Module):
    """A DiT, and what is trained with it of its conditions: a text transformer, or projections of frozen towers."""

    def __init__(self, config: NetworkConfig, widths: TowerWidths | None, *, token_features: int, rngs: nnx.Rngs):
        """`widths`: of the frozen towers; None: captions are read by the text transformer of `config.text`."""
        dit, width = config.model, config.text.width
        if widths is None:
            self.text = TextTransformer(config.text, rngs=rngs, attention=dit.attention)
        else:
            self.towers = TowerProjections(widths, width, rngs=rngs)
        self.dit = DiT(dit, token_features=token_features, context_width=width, rngs=rngs)
        if dit.image_tokens:
            self.resampler = Resampler(dit, widths.patch, config.towers.resampler_depth, rngs=rngs)
        self.learned = widths is None

    def conditions(self, features: Mapping[str, Array]) -> Conditions:
        """Of captions and image prompts, from features ("text" ids and "text_mask", or those of towers); the same at
        all steps of a sampler."""
        if self.learned:
            text = self.text(features["text"], features["text_mask"])
            return Conditions((Context(text.tokens, text.mask),), text.pooled)
        found = self.towers(features)
        if "patches" in features:
            found = found._replace(image=self.resampler(features["patches"], features["patches_mask"]))
        return found

    def __call__(
        self, tokens, timestep, conditions: Conditions | None, *, positions, mask=None, image_scale=1.0
    ) -> Float[Array, "b n features"]:
        """The prediction (x0 or velocity) for tokens at time `timestep`.

        None is no condition, which is what training dropped: with an empty mask cross-attention and pooled text are
        exactly zero, so that leaving them out gives the same prediction for less work.
        """
        if conditions is None:
            return self.dit(tokens, timestep, positions=positions, mask=mask)
        context, pooled, image = conditions
        heard = {"context": context, "pooled": pooled, "image": image, "image_scale": image_scale}
        return self.dit(tokens, timestep, positions=positions, mask=mask, **heard)


def define_model(config: NetworkConfig, widths: TowerWidths | None, token_features: int) -> Definition:
    """The network of an experiment without its arrays."""
    return define(lambda rngs: TextToImage(config, widths, token_features=token_features, rngs=rngs))


# More of any is a slip of the keyboard.
MAX_STEPS, MAX_GUIDANCE, MAX_IMAGE_SCALE = 10_000, 1000, 100


@dataclass(frozen=True)
class SamplingConfig:
    """Attributes:
    method: "euler", "heun" or "dpmpp_2m".
    shift: of the sampling times towards noise, as in training at this token count.
    guidance_scale, image_guidance_scale: of text, and of an image prompt; 1 is none.
    image_scale: how loud an image prompt is in cross-attention; 0 is no prompt.
    guidance_low, guidance_high: times between which guidance is on.
    """

    steps: int = 20
    method: str = "euler"
    guidance_scale: float = 2.0
    image_guidance_scale: float = 1.0
    image_scale: float = 1.0
    guidance_low: float = 0.0
    guidance_high: float = 1.0
    shift: float = 1.0

    def __post_init__(self):
        if self.method not in STEPPERS:
            raise ValueError(f"sampling.method: found {self.method!r}, expected one of {', '.join(STEPPERS)}")
        if not 1 <= self.steps <= MAX_STEPS:
            raise ValueError(f"sampling.steps must be from 1 to {MAX_STEPS:,}, found {self.steps}")
        for name in ("guidance_scale", "image_guidance_scale"):
            if not 0 <= getattr(self, name) <= MAX_GUIDANCE:
                raise ValueError(
                    f"sampling.{name} must be from 0 to {MAX_GUIDANCE} (1 is none), found {getattr(self, name)}"
                )
        if not 0 <= self.image_scale <= MAX_IMAGE_SCALE:
            raise ValueError(
                f"sampling.image_scale must be from 0 (no image prompt) to {MAX_IMAGE_SCALE}, found {self.image_scale}"
            )
        if not 0 < self.shift < float("inf"):
            raise ValueError(f"sampling.shift must be positive, found {self.shift}")
        if not 0 <= self.guidance_low <= self.guidance_high <= 1:
            raise ValueError(
                "sampling: expected 0 <= guidance_low <= guidance_high <= 1, "
                f"found {self.guidance_low} and {self.guidance_high}"
            )


def draw(
    model: TextToImage,
    conditions: Conditions,
    keys: jax.Array,
    *,
    positions: Float[Array, "tokens 2"],
    features: int,
    objective: ObjectiveConfig,
    sampling: SamplingConfig,
) -> Float[Array, "batch tokens features"]:
    """Tokens of pictures for captions and image prompts; each one's noise comes from its own key and nothing else.

    With an image prompt, text guidance compares with the image alone, and image guidance with nothing.
    """
    noise = example_noise(keys, (positions.shape[0], features))

    def velocity(conditions: Conditions | None):
        def predict(x, t):
            prediction = model(x, t, conditions, positions=positions, image_scale=sampling.image_scale)
            return to_velocity(prediction, x, t, objective)

        return predict

    interval = (sampling.guidance_low, sampling.guidance_high)
    if conditions.image is None:
        denoise = guide(velocity(conditions), velocity(None), sampling.guidance_scale, interval)
    else:
        weaker = velocity(conditions.without_text()), velocity(None)
        scales = sampling.guidance_scale, sampling.image_guidance_scale
        denoise = guide_twice(velocity(conditions), *weaker, *scales, interval)
    return sample(denoise, noise, sampling_times(sampling.steps, sampling.shift), sampling.method)
