"""From features to what the transformer hears: the part of the conditions that is trained with it."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from fooddit.models.dit import Context, DiTConfig
from fooddit.models.layers import CrossAttention, Linear, RMSNorm, SwiGLU
from fooddit.models.module import stack
from fooddit.models.towers import TEXT_TOWERS, TowerWidths


class Conditions(NamedTuple):
    """What the transformer hears beside the noise: groups of text tokens, a vector of the text, an image prompt."""

    context: tuple[Context, ...] = ()
    pooled: Float[Array, "batch width"] | None = None
    image: Context | None = None

    def without_text(self) -> "Conditions":
        """The same, no token of a text being heard: what training dropped."""
        context = tuple(Context(tokens, jnp.zeros_like(mask)) for tokens, mask in self.context)
        return Conditions(context, None if self.pooled is None else jnp.zeros_like(self.pooled), self.image)


class TowerProjections(nnx.Module):
    """Features of frozen towers, each normed and projected to one width; E-CLIP's pooled text is the vector.

    A tower whose features are not there is left out: the result is bit for bit that of a model without it.
    """

    def __init__(self, widths: TowerWidths, width: int, *, rngs: nnx.Rngs):
        for name in TEXT_TOWERS:
            if name in widths.text:
                setattr(self, name, TowerProjection(widths.text[name], width, rngs=rngs))
        if widths.pooled:
            self.pooled = TowerProjection(widths.pooled, width, rngs=rngs)

    def __call__(self, features: Mapping[str, Array]) -> Conditions:
        """`features` as `Towers.features` gives them."""
        heard = [name for name in TEXT_TOWERS if name in features]
        context = tuple(Context(getattr(self, name)(features[name]), features[f"{name}_mask"]) for name in heard)
        pooled = self.pooled(features["pooled"]) if "pooled" in features else None
        return Conditions(context, pooled)


class TowerProjection(nnx.Module):
    """RMS norm and a matrix: towers differ in scale by orders of magnitude, and E-CLIP's pooled text has unit length.

    The zeros of what was dropped stay zeros.
    """

    def __init__(self, features: int, width: int, *, rngs: nnx.Rngs):
        self.norm = RMSNorm(features, axis="features")
        self.out = Linear(features, width, axes=("context", "embed"), rngs=rngs)

    def __call__(self, tokens: Float[Array, "*batch features"]) -> Float[Array, "*batch width"]:
        return self.out(self.norm(tokens))


class Resampler(nnx.Module):
    """Patch tokens of a reference picture to a fixed number of tokens: learned queries that attend to them.

    The Perceiver resampler (Alayrac et al. 2022, arXiv:2204.14198), as image prompts use it (Ye et al. 2023,
    arXiv:2308.06721).
    """

    def __init__(self, config: DiTConfig, patch_width: int, depth: int, *, rngs: nnx.Rngs):
        width, tokens = config.image_width, config.image_tokens
        self.queries = nnx.Param(jax.random.normal(rngs.params(), (tokens, width)), axes=("features", "embed"))
        self.norm = RMSNorm(patch_width, axis="features")
        self.blocks = stack(lambda r: ResamplerBlock(config, patch_width, rngs=r), depth, rngs)

    def __call__(self, patches: Float[Array, "batch patches width"], mask: Bool[Array, "batch patches"]) -> Context:
        patches = self.norm(patches)
        x = jnp.broadcast_to(self.queries[...].astype(patches.dtype), (len(patches), *self.queries.shape))
        graph, parameters = nnx.split(self.blocks)
        x, _ = jax.lax.scan(lambda x, p: (nnx.merge(graph, p)(x, patches, mask), None), x, parameters)
        return Context(x, jnp.broadcast_to(mask.any(axis=1)[:, None], x.shape[:2]))


class ResamplerBlock(nnx.Module):
    """Cross-attention to the patches and SwiGLU, each a residual."""

    def __init__(self, config: DiTConfig, patch_width: int, *, rngs: nnx.Rngs):
        width = config.image_width
        self.norm = RMSNorm(width)
        # Not from zero: a prompt of tokens that are the same for every picture teaches the model to ignore it.
        self.attention = CrossAttention(
            width, patch_width, config.head_dim, rngs=rngs, implementation=config.attention, out_scale=1.0
        )
        self.mlp_norm = RMSNorm(width)
        self.mlp = SwiGLU(width, rngs=rngs)

    def __call__(self, x, patches, mask):
        x = x + self.attention(self.norm(x), patches, mask)
        return x + self.mlp(self.mlp_norm(x))
