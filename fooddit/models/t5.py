"""The encoder of T5 and its relatives: T5 v1.0 and v1.1, FLAN, mT5, UMT5; `t5_folder` reads published weights into it.

Raffel et al. 2020 (arXiv 1910.10683); v1.1: gated GELU (Shazeer 2020, arXiv 2002.05202); UMT5: Chung et al. 2023
(arXiv 2304.09151). Attention's logits are not scaled; what tells positions apart is a bias on them, by distance.
"""

import math
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from fooddit.models.layers import Linear, rms_normalise
from fooddit.models.module import stack
from fooddit.parallel import shard_tokens
from fooddit.parallel.rules import shard_tokens_of_heads

# float16 is not among them: hidden layers and residual streams of published weights exceed its 65,504.
T5_DTYPES = ("float32", "bfloat16")
FEED_FORWARDS = ("relu", "gated-gelu")


@dataclass(frozen=True)
class T5Config:
    """The shape of an encoder, and of the decoder that it was trained with.

    Attributes:
      vocabulary: rows of the embedding; at least the tokenizer's tokens.
      head_dim: of the `heads`, which together need not be as wide as the model.
      mlp: width of the feed-forward layer, `feed_forward` "relu" (v1.0) or "gated-gelu" (all later ones).
      bias_in_every_layer: each layer has relative position biases of its own (UMT5); else all have the first one's.
      buckets, max_distance: how distances share biases.
      dtype: of the activations but for the residual stream, norms, logits and softmax, which are float32.
      scan_unroll: blocks to unroll in the scan over depth.
    """

    vocabulary: int = 1024
    width: int = 128
    depth: int = 3
    decoder_depth: int = 3
    heads: int = 4
    head_dim: int = 32
    mlp: int = 256
    feed_forward: str = "gated-gelu"
    bias_in_every_layer: bool = True
    buckets: int = 32
    max_distance: int = 128
    epsilon: float = 1e-6
    dtype: str = "float32"
    scan_unroll: int = field(default=1, metadata={"operational": True})

    def __post_init__(self):
        for name, least in (
            *((name, 1) for name in ("vocabulary", "width", "depth", "heads", "head_dim", "mlp", "scan_unroll")),
            ("decoder_depth", 0),
            ("buckets", 4),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, found {getattr(self, name)}")
        if self.max_distance <= self.buckets // 2:
            raise ValueError(f"max_distance must be above half of the buckets, {self.buckets // 2}")
        for name, known in (("dtype", T5_DTYPES), ("feed_forward", FEED_FORWARDS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}: found {getattr(self, name)!r}, expected one of {', '.join(known)}")


class T5EncoderStack(nnx.Module):
    """Embedding, pre-norm blocks (bidirectional attention, feed-forward), final norm."""

    def __init__(self, config: T5Config, *, rngs: nnx.Rngs):
        self.config = config
        self.embedding = nnx.Param(
            jax.random.normal(rngs.params(), (config.vocabulary, config.width)), axes=("vocab", "embed")
        )
        self.position_bias = None if config.bias_in_every_layer else bias_table(config, rngs)
        self.blocks = stack(lambda r: T5Block(config, rngs=r), config.depth, rngs)
        self.norm = T5Norm(config)

    def __call__(
        self, ids: Int[Array, "batch length"], mask: Bool[Array, "batch length"]
    ) -> Float[Array, "batch length width"]:
        """Features of token ids, of which `mask` says which are text: what stands at padding changes no other feature,
        and its own features are finite and mean nothing."""
        buckets = relative_buckets(ids.shape[1], self.config, bidirectional=True)
        bias = None if self.position_bias is None else logit_bias(self.position_bias[...], buckets)
        # The sum that grows from block to block stays float32: bfloat16's 8 bits would swallow what late blocks add.
        x = shard_tokens(self.embedding[...][ids]).astype(jnp.float32)
        x = scan_blocks(
            self.blocks,
            lambda block, x: shard_tokens(block(x, buckets=buckets, bias=bias, mask=mask[:, None, None, :])),
            x,
            self.config.scan_unroll,
        )
        return self.norm(x)


class T5Block(nnx.Module):
    """One encoder block."""

    def __init__(self, config: T5Config, *, rngs: nnx.Rngs):
        self.attention_norm = T5Norm(config)
        self.attention = T5Attention(config, own_bias=config.bias_in_every_layer, rngs=rngs)
        self.mlp_norm = T5Norm(config)
        self.mlp = T5FeedForward(config, rngs=rngs)

    def __call__(self, x: Float[Array, "batch length width"], *, buckets, bias, mask):
        normed = self.attention_norm(x)
        x = x + self.attention(normed, normed, buckets=buckets, bias=bias, mask=mask)
        return x + self.mlp(self.mlp_norm(x))


class T5Attention(nnx.Module):
    """softmax(query key^T + bias) value, with an output in float32 for the residual stream.

    With `own_bias` it has a table of biases by bucket; `bias` is for all layers instead; with neither (the decoder's
    view of the encoder) there is none.
    """

    def __init__(self, config: T5Config, *, own_bias: bool, rngs: nnx.Rngs):
        width, inner = config.width, config.heads * config.head_dim
        self.heads = config.heads
        # The 1 / sqrt(head_dim) that other transformers scale the logits by is in the query's start.
        self.query = Linear(width, inner, axes=("embed", "heads"), rngs=rngs, scale=config.head_dim**-0.5)
        self.key = Linear(width, inner, axes=("embed", "heads"), rngs=rngs)
        self.value = Linear(width, inner, axes=("embed", "heads"), rngs=rngs)
        self.out = FloatLinear(inner, width, axes=("heads", "embed"), rngs=rngs)
        self.position_bias = bias_table(config, rngs) if own_bias else None

    def __call__(self, x, context, *, mask, buckets=None, bias=None) -> Float[Array, "batch length width"]:
        if self.position_bias is not None:
            bias = logit_bias(self.position_bias[...], buckets)
        query, key, value = self._split(self.query(x)), self._split(self.key(context)), self._split(self.value(context))
        logits = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
        logits = logits if bias is None else logits + bias
        # A finite fill: a caption without any token must not give NaN.
        logits = jnp.where(mask, logits, jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
        attended = jnp.einsum("bhqk,bkhd->bqhd", weights, value)
        return self.out(shard_tokens_of_heads(attended.reshape(*attended.shape[:2], -1), self.heads))

    def _split(self, x: Float[Array, "batch length inner"]) -> Float[Array, "batch length heads head_dim"]:
        return shard_tokens_of_heads(x, self.heads).reshape(*x.shape[:2], self.heads, -1)


class T5FeedForward(nnx.Module):
    """down(gelu(gate(x)) * up(x)), or down(relu(up(x))) in v1.0; the output is float32, for the residual stream."""

    def __init__(self, config: T5Config, *, rngs: nnx.Rngs):
        gated = config.feed_forward == "gated-gelu"
        self.gate = Linear(config.width, config.mlp, axes=("embed", "mlp"), rngs=rngs) if gated else None
        self.up = Linear(config.width, config.mlp, axes=("embed", "mlp"), rngs=rngs)
        self.down = FloatLinear(config.mlp, config.width, axes=("mlp", "embed"), rngs=rngs)

    def __call__(self, x: Float[Array, "batch length width"]) -> Float[Array, "batch length width"]:
        if self.gate is None:
            return self.down(jax.nn.relu(self.up(x)))
        return self.down(jax.nn.gelu(self.gate(x), approximate=True) * self.up(x))


class FloatLinear(Linear):
    """A Linear whose product is summed and given in float32, whatever its input's dtype."""

    def __call__(self, x: Float[Array, "... inner"]) -> Float[Array, "... outer"]:
        kernel = self.kernel[...].astype(x.dtype)
        y = jnp.matmul(x.reshape(-1, x.shape[-1]), kernel, preferred_element_type=jnp.float32)
        return y.reshape(*x.shape[:-1], kernel.shape[-1])


class T5Norm(nnx.Module):
    """Root-mean-square norm with a gain of the float32 residual stream, given in the activations' dtype."""

    def __init__(self, config: T5Config):
        self.epsilon, self.dtype = config.epsilon, config.dtype
        self.gain = nnx.Param(jnp.ones((config.width,)), axes=("embed",))

    def __call__(self, x: Float[Array, "... width"]) -> Float[Array, "... width"]:
        return (rms_normalise(x, self.epsilon) * self.gain[...].astype(x.dtype)).astype(self.dtype)


def scan_blocks(blocks: nnx.Module, call, x: jax.Array, unroll: int) -> jax.Array:
    """x through stacked blocks (`module.stack`): call(block, x) -> x for each."""
    graph, parameters = nnx.split(blocks)
    depth = jax.tree.leaves(parameters)[0].shape[0]
    x, _ = jax.lax.scan(lambda x, p: (call(nnx.merge(graph, p), x), None), x, parameters, unroll=min(unroll, depth))
    return x


def bias_table(config: T5Config, rngs: nnx.Rngs) -> nnx.Param:
    """What each head adds to its logits for a bucket of distances: (buckets, heads)."""
    table = jax.random.normal(rngs.params(), (config.buckets, config.heads)) * config.width**-0.5
    return nnx.Param(table, axes=("features", "heads"))


def logit_bias(table: Float[Array, "buckets heads"], buckets: Int[np.ndarray, "q k"]) -> Float[Array, "1 heads q k"]:
    """The bias of each head for each pair of query and key, in float32."""
    return jnp.moveaxis(table.astype(jnp.float32)[buckets], -1, 0)[None]


def relative_buckets(length: int, config: T5Config, *, bidirectional: bool) -> Int[np.ndarray, "length length"]:
    """The bucket of key - query for each pair of positions.

    The first half of the buckets (for each sign, if `bidirectional`; else keys after the query are as near ones) are of
    single distances, the others grow by a factor up to `max_distance`, and all beyond share the last (section 2.1).
    """
    distance = np.arange(length)[None, :] - np.arange(length)[:, None]
    count = config.buckets // 2 if bidirectional else config.buckets
    offset = np.where(distance > 0, count, 0) if bidirectional else 0
    distance = np.abs(distance) if bidirectional else np.maximum(-distance, 0)
    single = count // 2
    # In float32, as published models were trained: an exact logarithm would move a few distances to another bucket.
    ratio = np.log(np.maximum(distance, 1).astype(np.float32) / single) / math.log(config.max_distance / single)
    coarse = np.minimum(single + (ratio * (count - single)).astype(np.int32), count - 1)
    return (offset + np.where(distance < single, distance, coarse)).astype(np.int32)
