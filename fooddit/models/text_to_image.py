"""The text tower and the transformer as one model, and how pictures are drawn from it."""

from dataclasses import dataclass

import jax
from flax import nnx
from jaxtyping import Array, Float

from fooddit.diffusion import ObjectiveConfig, example_noise, guide, sample, sampling_times, to_velocity
from fooddit.diffusion.samplers import STEPPERS
from fooddit.models.dit import Context, DiT, DiTConfig
from fooddit.models.text import TextConfig, TextFeatures, TextTransformer


class TextToImage(nnx.Module):
    """A DiT and the text transformer that is trained with it."""

    def __init__(self, dit: DiTConfig, text: TextConfig, *, token_features: int, rngs: nnx.Rngs):
        self.text = TextTransformer(text, rngs=rngs, attention=dit.attention)
        self.dit = DiT(dit, token_features=token_features, context_width=text.width, rngs=rngs)

    def encode_text(self, ids, mask) -> TextFeatures:
        """Features of captions; computed once for all steps of a sampler."""
        return self.text(ids, mask)

    def __call__(
        self, tokens, timestep, text: TextFeatures | None, *, positions, mask=None, image: Context | None = None
    ) -> Float[Array, "b n features"]:
        """The prediction (x0 or velocity) for tokens at time `timestep`, given features of captions.

        None is no caption, which is what training dropped: with an empty mask cross-attention and pooled text are
        exactly zero, so that leaving them out gives the same prediction for less work.
        """
        if text is None:
            return self.dit(tokens, timestep, positions=positions, mask=mask)
        context = [Context(text.tokens, text.mask)]
        return self.dit(
            tokens, timestep, positions=positions, mask=mask, context=context, pooled=text.pooled, image=image
        )


# More of either is a slip of the keyboard.
MAX_STEPS, MAX_GUIDANCE = 10_000, 1000


@dataclass(frozen=True)
class SamplingConfig:
    """Attributes:
    method: "euler", "heun" or "dpmpp_2m".
    shift: of the sampling times towards noise, as in training at this token count.
    guidance_low, guidance_high: times between which guidance is on.
    """

    steps: int = 20
    method: str = "euler"
    guidance_scale: float = 2.0
    guidance_low: float = 0.0
    guidance_high: float = 1.0
    shift: float = 1.0

    def __post_init__(self):
        if self.method not in STEPPERS:
            raise ValueError(f"sampling.method: found {self.method!r}, expected one of {', '.join(STEPPERS)}")
        if not 1 <= self.steps <= MAX_STEPS:
            raise ValueError(f"sampling.steps must be from 1 to {MAX_STEPS:,}, found {self.steps}")
        if not 0 <= self.guidance_scale <= MAX_GUIDANCE:
            raise ValueError(
                f"sampling.guidance_scale must be from 0 to {MAX_GUIDANCE} (1 is none), found {self.guidance_scale}"
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
    text: TextFeatures,
    keys: jax.Array,
    *,
    positions: Float[Array, "tokens 2"],
    features: int,
    objective: ObjectiveConfig,
    sampling: SamplingConfig,
) -> Float[Array, "batch tokens features"]:
    """Tokens of pictures for captions; each picture's noise comes from its own key and from nothing else."""
    noise = example_noise(keys, (positions.shape[0], features))

    def velocity(features: TextFeatures | None):
        return lambda x, t: to_velocity(model(x, t, features, positions=positions), x, t, objective)

    interval = (sampling.guidance_low, sampling.guidance_high)
    denoise = guide(velocity(text), velocity(None), sampling.guidance_scale, interval)
    return sample(denoise, noise, sampling_times(sampling.steps, sampling.shift), sampling.method)


# Parts of cross-attention that see the text's tokens, and an image prompt's.
_CONTEXTS = ("key", "value"), ("image_key", "image_value")


def flops_per_example(dit: DiTConfig, text: TextConfig, tokens: int, shapes) -> float:
    """Model FLOPs of one example's forward and backward pass, from the shapes of the weights.

    A weight matrix costs 2 x tokens x its size forward and twice that backward; attention adds its two products. XLA's
    own count would see a scanned block once.
    """

    def matrices(tree, rows: int) -> float:
        kernels = [leaf.size for path, leaf in jax.tree.leaves_with_path(tree) if path[-1].key == "kernel"]
        return 2.0 * rows * sum(kernels)

    network, cross = shapes["dit"], shapes["dit"]["blocks"]["cross"]
    context, image = ({name: cross[name] for name in names if name in cross} for names in _CONTEXTS)
    per_example = {name: network[name] for name in ("time", "modulation", "pooled")}
    per_token = {name: network[name] for name in ("embed", "blocks", "out")}
    products = matrices(per_token, tokens) - matrices((context, image), tokens)
    products += matrices(context, text.length) + matrices(image, dit.image_tokens)
    products += matrices(per_example, 1) + matrices(shapes["text"], text.length)
    attention = 4.0 * dit.depth * dit.width * tokens * (tokens + text.length + dit.image_tokens)
    attention += 4.0 * text.depth * text.width * text.length**2
    return 3.0 * (products + attention)
