"""The text side: a protocol that every text tower meets, and a small transformer trained with the model."""

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from fooddit.models.layers import DTYPES, RMSNorm, SelfAttention, SwiGLU
from fooddit.models.module import stack
from fooddit.parallel import shard_tokens


class TextFeatures(NamedTuple):
    """What a text tower gives: one vector a token, which of them are text, and one vector a caption."""

    tokens: Float[Array, "batch length width"]
    mask: Bool[Array, "batch length"]
    pooled: Float[Array, "batch width"]


@dataclass(frozen=True)
class TextConfig:
    """A small transformer over the byte-level BPE of the dataset's own captions.

    Attributes:
      dtype: of the activations; parameters stay float32.
      scan_unroll: blocks to unroll in the scan over depth.
    """

    width: int = 128
    depth: int = 2
    head_dim: int = 32
    vocabulary: int = 1024
    length: int = 48
    dtype: str = "float32"
    scan_unroll: int = field(default=2, metadata={"operational": True})

    def __post_init__(self):
        for name, least in (
            ("width", 1),
            ("depth", 1),
            ("head_dim", 4),
            ("length", 1),
            ("vocabulary", 1),
            ("scan_unroll", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"text.{name} must be at least {least}, found {getattr(self, name)}")
        if self.width % self.head_dim or self.head_dim % 4:
            raise ValueError(
                f"text: head_dim must be a multiple of 4 that divides the width, found {self.head_dim} and {self.width}"
            )
        if self.dtype not in DTYPES:
            raise ValueError(f"text.dtype: found {self.dtype!r}, expected one of {', '.join(DTYPES)}")


class TextTransformer(nnx.Module):
    """Embedding, pre-norm blocks (bidirectional attention, SwiGLU), final norm; pooled by the mean over tokens."""

    def __init__(self, config: TextConfig, *, rngs: nnx.Rngs, attention: str = "auto"):
        self.config = config
        table = jax.random.normal(rngs.params(), (config.vocabulary, config.width))
        self.embedding = nnx.Param(table, axes=("vocab", "embed"))
        self.blocks = stack(lambda r: TextBlock(config, rngs=r, attention=attention), config.depth, rngs)
        self.norm = RMSNorm(config.width)

    def __call__(self, ids: Int[Array, "batch length"], mask: Bool[Array, "batch length"]) -> TextFeatures:
        x = shard_tokens(self.embedding[...][ids].astype(self.config.dtype))
        # The rotary embedding is two-dimensional: a text runs along its diagonal.
        positions = jnp.repeat(jnp.arange(ids.shape[1], dtype=jnp.float32)[:, None], 2, axis=1)
        graph, parameters = nnx.split(self.blocks)
        x, _ = jax.lax.scan(
            lambda x, p: (shard_tokens(nnx.merge(graph, p)(x, positions=positions, mask=mask)), None),
            x,
            parameters,
            unroll=min(self.config.scan_unroll, self.config.depth),
        )
        x = self.norm(x)
        weight = mask.astype(jnp.float32)[..., None]
        pooled = (x.astype(jnp.float32) * weight).sum(axis=1) / jnp.maximum(weight.sum(axis=1), 1)
        return TextFeatures(x, mask, pooled)


class TextBlock(nnx.Module):
    """One pre-norm transformer block."""

    def __init__(self, config: TextConfig, *, rngs: nnx.Rngs, attention: str):
        self.attention_norm = RMSNorm(config.width)
        self.attention = SelfAttention(config.width, config.head_dim, rngs=rngs, implementation=attention)
        self.mlp_norm = RMSNorm(config.width)
        self.mlp = SwiGLU(config.width, rngs=rngs)

    def __call__(self, x, *, positions, mask):
        x = x + self.attention(self.attention_norm(x), positions=positions, mask=mask)
        return x + self.mlp(self.mlp_norm(x))
